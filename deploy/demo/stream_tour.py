"""Delivers events while they are logged, keeps a place for a program that goes away, and plays the events again.

Every event that arrives is compared with what was logged, field by field. Prints what it does.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from eventlog.v1 import ingest_service_pb2, ingest_service_pb2_grpc

from deploy.demo.batches import Batches
from deploy.demo.producer import Acknowledged
from deploy.demo.questions import live_event_of
from deploy.demo.read_back import Defaults, expected_events
from deploy.demo.sparkline import sparkline
from deploy.demo.stretch import Stretch, liveliest_stretch
from shared.client import EventReplay, EventStreamer, ReplayOptions, StreamOptions
from shared.client.event_messages import event_of
from shared.clock import SystemClock
from shared.config import EventConfig
from shared.events import EventFilters, RecordedEvent
from shared.events.timestamps import to_datetime
from shared.filters.parser import parse_filter
from shared.filters.predicate import compile_predicate
from shared.rpc.channel import connect

_SPEED = 100.0
# At _SPEED, four seconds.
_STRETCH_S = 400
_EVENTS_MAX = 5_000
_LIVE_S = 2.0
_REQUESTS = 100
_CALL_S_MAX = 30.0
_ARRIVAL_S_MAX = 30.0
_WORKER = "worker"


@dataclass(slots=True)
class _Program:
    """Somebody who subscribes to what matches."""

    name: str
    expression: str
    events: list[RecordedEvent] = field(default_factory=list)
    delays_ms: list[float] = field(default_factory=list)


class StreamTour:
    """One after the other: live subscriptions, a durable one, a replay."""

    def __init__(self, ingest_address: str, stream_address: str, defaults: Defaults) -> None:
        self._ingest_address = ingest_address
        self._options = StreamOptions(address=stream_address)
        self._replay_options = ReplayOptions(address=stream_address)
        self._defaults = defaults
        self._clock = SystemClock()
        self._problems: list[str] = []

    def run(self, sources: Sequence[Batches]) -> list[str]:
        """Log a stretch of these events once more, and stream it. Returns what was wrong, in words.

        Raises EventException, grpc.RpcError where a call fails.
        """
        asyncio.run(self._run(liveliest_stretch(sources, seconds=_STRETCH_S, events_max=_EVENTS_MAX)))
        return self._problems

    async def _run(self, stretch: Stretch) -> None:
        async with EventStreamer(EventConfig(), self._options) as streamer:
            # Made now, so that it begins here; nobody reads it yet.
            await streamer.subscribe(_WORKER, durable=True)
        logged = await self._live(stretch)
        await self._durable(logged)
        await self._replay(logged, stretch)

    async def _live(self, stretch: Stretch) -> list[RecordedEvent]:
        """Log the stretch while programs listen; returns its events as they are recorded."""
        programs = _programs(stretch)
        events = f"{len(stretch.events):,} events of {stretch.name}"
        print(f"\nlive: {len(programs)} programs subscribe; then {events} are logged once more")
        async with EventStreamer(EventConfig(), self._options) as streamer, asyncio.TaskGroup() as tasks:
            for program in programs:
                filters = EventFilters(expression=program.expression)
                await streamer.subscribe(program.name, filters, buffer_size=_EVENTS_MAX)
                wanted = len(_matching(program.expression, stretch))
                tasks.create_task(self._listen(streamer, program, wanted))
            acknowledged = await self._log(stretch)
        logged = [event_of(event) for each in acknowledged for event in expected_events(each, self._defaults)]
        print(f"  {'program':<12}{'events':>8}{'p50':>9}{'p99':>9}   filter")
        for program in programs:
            print(_line_of(program))
            expected = [logged[row] for row in _matching(program.expression, stretch)]
            self._compare(f"the live program {program.name!r}", program.events, expected)
        return logged

    async def _listen(self, streamer: EventStreamer, program: _Program, count: int) -> None:
        """Take as many events as are to come, and note how old each is."""
        async for event in _first(streamer, program.name, count):
            program.events.append(event)
            program.delays_ms.append((self._clock.now_ns() - event.recorded_at_ns) / 1e6)

    async def _log(self, stretch: Stretch) -> list[Acknowledged]:
        """Log the events in order, at a steady pace."""
        size = -(-len(stretch.events) // _REQUESTS)
        begun_s = time.perf_counter()
        acknowledged = []
        async with connect(self._ingest_address) as channel:
            stub = ingest_service_pb2_grpc.IngestServiceStub(channel)
            for start in range(0, len(stretch.events), size):
                due_s = begun_s + start / len(stretch.events) * _LIVE_S
                await asyncio.sleep(max(due_s - time.perf_counter(), 0.0))
                request = ingest_service_pb2.LogBatchRequest(events=stretch.events[start : start + size])
                acknowledged.append(Acknowledged(request, await stub.LogBatch(request, timeout=_CALL_S_MAX)))
        return acknowledged

    async def _durable(self, logged: Sequence[RecordedEvent]) -> None:
        """Take half of a durable subscription, acknowledge it, go away; come back for the rest."""
        half = len(logged) // 2
        begun_s = time.perf_counter()
        first = await self._work(half)
        rest = await self._work(len(logged) - half)
        took_s = time.perf_counter() - begun_s
        print(f"a durable subscription: one program takes {len(first):,} events, acknowledges them and goes away;")
        print(f"  the next of its name goes on behind them and gets {len(rest):,} more, in {took_s:.1f} s together")
        # In order by chain; where one program leaves and the next comes at once, chains may change places.
        self._compare("the durable subscription", sorted([*first, *rest], key=attrgetter("position")), logged)

    async def _work(self, count: int) -> list[RecordedEvent]:
        """Take events of the durable subscription, acknowledge them, and hang up."""
        async with EventStreamer(EventConfig(), self._options) as streamer:
            subscriber = await streamer.subscribe(_WORKER, durable=True, auto_acknowledge=False, buffer_size=count)
            events = [event async for event in _first(streamer, _WORKER, count)]
            await subscriber.acknowledge(*events)
        return events

    async def _replay(self, logged: Sequence[RecordedEvent], stretch: Stretch) -> None:
        """Play the stretch at _SPEED, and see how far from its time each event comes."""
        print(f"replay: {stretch.seconds / 60:.1f} minutes of {stretch.name} at {_SPEED:.0f} times their pace")
        filters = EventFilters(expression=f"position >= {logged[0].position} AND position <= {logged[-1].position}")
        events, arrivals_s = [], []
        async with EventReplay(EventConfig(), self._replay_options) as replay:
            start = to_datetime(_time_ns(logged[0]))
            async for event in replay.replay_from(start, filters, speed=_SPEED):
                arrivals_s.append(time.perf_counter())
                events.append(event)
        self._compare("the replay", events, logged)
        if not events:
            return
        times_s = np.array([_time_ns(event) - _time_ns(events[0]) for event in events]) / 1e9
        played_s = np.array(arrivals_s) - arrivals_s[0]
        errors_ms = np.abs(played_s - times_s / _SPEED) * 1e3
        print(f"  as it happened   {sparkline(times_s, until=times_s[-1])}  {times_s[-1]:.1f} s")
        print(f"  as it was played {sparkline(played_s, until=played_s[-1])}  {played_s[-1]:.3f} s")
        p50, p99 = np.percentile(errors_ms, (50, 99))
        print(f"  {len(events):,} events, as they were logged, each at its time within {p50:.1f} ms (p99 {p99:.1f} ms)")

    def _compare(self, who: str, received: Sequence[RecordedEvent], expected: Sequence[RecordedEvent]) -> None:
        """Note a problem where not exactly these events came, in this order."""
        if list(received) == list(expected):
            return
        pairs = zip(received, expected, strict=False)
        at = next((number for number, (one, other) in enumerate(pairs) if one != other), len(received))
        self._problems.append(f"{who} got {len(received)} events of {len(expected)}; number {at + 1} is another")


async def _first(streamer: EventStreamer, name: str, count: int) -> AsyncIterator[RecordedEvent]:
    """The first events of a subscription; fewer where they do not come in time."""
    try:
        async with asyncio.timeout(_ARRIVAL_S_MAX), aclosing(streamer.stream(name)) as events:
            for _ in range(count):
                yield await anext(events)
    except TimeoutError:
        return


def _programs(stretch: Stretch) -> list[_Program]:
    """Programs with something to do in a stretch: with all of it, one type, slow things, one chain."""
    types = Counter(event.type for event in stretch.events)
    chains = Counter(event.correlation_id for event in stretch.events if event.correlation_id)
    programs = [
        _Program("recorder", ""),
        _Program("counter", f"type = {_quoted(types.most_common(1)[0][0])}"),
        _Program("watchdog", "payload.duration_ms > 100 OR payload.message CONTAINS 'Failed password'"),
    ]
    programs += [_Program("tracer", f"correlation_id = {_quoted(chain)}") for chain, _ in chains.most_common(1)]
    return programs


def _matching(expression: str, stretch: Stretch) -> list[int]:
    """Which of the events match, as evaluated here."""
    if not expression:
        return list(range(len(stretch.events)))
    predicate = compile_predicate(parse_filter(expression), now_ns=0)
    return [row for row, event in enumerate(stretch.events) if predicate(live_event_of(event))]


def _line_of(program: _Program) -> str:
    p50, p99 = np.percentile(program.delays_ms or [0.0], (50, 99))
    filters = program.expression or "none: everything"
    return f"  {program.name:<12}{len(program.events):>8,}{p50:>6.1f} ms{p99:>6.1f} ms   {filters}"


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _time_ns(event: RecordedEvent) -> int:
    assert event.timestamp_ns is not None, "what is recorded has a time"
    return event.timestamp_ns
