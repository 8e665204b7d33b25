"""One replay: takes history from its read-ahead and gives it away when it is due.

It is one loop that waits in one place, for whatever comes first: the next event is due, history has more, somebody
pauses it or changes its speed, it is told to end, or it has been silent for long enough to show that it lives.

Invariants: events are given in the order of positions, each once; what comes last is an Ending, whatever ended it;
`passed` is behind what was given until that was taken. Knows neither gRPC nor where history comes from.
"""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass

import numpy as np

from shared.clock import Clock
from shared.columns.encoded_events import EncodedEvents
from shared.errors import EventException
from stream_service.pacing import Playback, PlaybackTimes, RateLimit, Timeline, Times
from stream_service.read_ahead import ReadAhead, Source

COMPLETED = "COMPLETED"
# Bytes of the events of one message, unless one event has more: gRPC's clients take 4 MiB by default.
DELIVERY_BYTES_MAX = 3_500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """What a replay is about, and how it goes."""

    # Positions of [from_position, until_position).
    from_position: int
    until_position: int
    # 0 for unpaced, or a multiple of the recorded pace.
    speed: float
    # Whether recorded_at sets the pace, not the timestamp.
    by_recorded_at: bool = False
    gap_max_ns: int | None = None
    events_per_second_max: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay has got: every matching event up to the position was taken."""

    position: int
    # Of the last event taken; None before the first.
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """Events that are due."""

    events: EncodedEvents
    resume_position: int


@dataclass(frozen=True, slots=True)
class Beat:
    """Nothing was due for a while."""

    resume_position: int


@dataclass(frozen=True, slots=True)
class Ending:
    """The replay is over: COMPLETED, or the reason of an error."""

    reason: str
    resume_position: int


class ReplayRun:
    """A replay that runs. Belongs to one event loop."""

    def __init__(self, plan: ReplayPlan, source: Source, clock: Clock, *, heartbeat_s: float) -> None:
        self._plan = plan
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._changed = asyncio.Event()
        self._ahead = ReadAhead(source, plan.from_position, self._changed)
        self._timeline = Timeline(plan.gap_max_ns)
        self._playback = Playback(speed=plan.speed, now_s=clock.monotonic_s())
        self._limit = None if plan.events_per_second_max is None else RateLimit(plan.events_per_second_max)
        self._pending = _Pending.none()
        # Playback time of the last event given; None before the first.
        self._given_ns: int | None = None
        # Whether the schedule stands: the first event was taken, or the pace was changed since it was given.
        self._is_scheduled = False
        self._end: EventException | None = None
        self.passed = Progress(plan.from_position - 1)

    @property
    def speed(self) -> float:
        """The speed in force."""
        return self._playback.speed

    @property
    def paused(self) -> bool:
        """Whether it is paused."""
        return self._playback.paused

    def change(self, *, speed: float | None = None, paused: bool | None = None) -> None:
        """Change the speed, pause or go on, at once."""
        now_s = self._clock.monotonic_s()
        self._playback.change(now_s, given_ns=self._given_ns or 0, speed=speed, paused=paused)
        self._is_scheduled = self._given_ns is not None
        self._changed.set()

    def end(self, error: EventException) -> None:
        """End the replay for this reason, as soon as its consumer takes something."""
        self._end = error
        self._changed.set()

    async def messages(self) -> AsyncGenerator[Delivery | Beat | Ending, None]:
        """Run. Raises what ended the replay before its end, after an Ending that names the reason."""
        async with self._ahead:
            try:
                async with aclosing(self._until_end()) as messages:
                    async for message in messages:
                        yield message
            except Exception as error:
                reason = error.reason if isinstance(error, EventException) else EventException.reason
                yield Ending(reason, self._resume_position)
                raise
            self.passed = Progress(max(self._plan.until_position - 1, self.passed.position), self.passed.time_ns)
            yield Ending(COMPLETED, self._resume_position)

    async def _until_end(self) -> AsyncGenerator[Delivery | Beat, None]:
        silent_since_s = self._clock.monotonic_s()
        while True:
            # Cleared before anything is looked at, so that no change is missed.
            self._changed.clear()
            if self._end is not None:
                raise self._end
            if not self._pending and not self._refill() and self._ahead.exhausted:
                return
            now_s = self._clock.monotonic_s()
            if count := self._due_count(now_s):
                events, self._given_ns = self._pending.take(count)
                last = Progress(int(events.positions[-1]), int(self._times(events)[-1]))
                yield Delivery(events, last.position + 1)
                self.passed = last
                self._schedule()
            elif now_s - silent_since_s >= self._heartbeat_s:
                yield Beat(self._resume_position)
            else:
                await self._wait(min(silent_since_s + self._heartbeat_s, self._next_due_s()) - now_s)
                continue
            silent_since_s = self._clock.monotonic_s()

    @property
    def _resume_position(self) -> int:
        return self.passed.position + 1

    def _refill(self) -> bool:
        """Take the next events that history has read; whether there were any."""
        events = self._ahead.take()
        if events is None:
            return False
        if self._given_ns is None:
            # The first event is due when it is there.
            self._playback.restart(self._clock.monotonic_s())
        self._pending = _Pending(events, self._timeline.extend(self._times(events)))
        return True

    def _schedule(self) -> None:
        """Schedule everything against the moment at which the consumer had taken the first event."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._playback.restart(self._clock.monotonic_s())

    def _due_count(self, now_s: float) -> int:
        count = min(self._playback.due_count(self._pending.playback, now_s), self._pending.fitting)
        return count if self._limit is None or not count else self._limit.take(count, now_s)

    def _next_due_s(self) -> float:
        if not self._pending:
            return math.inf
        due_s = self._playback.due_s(int(self._pending.playback[0]))
        return due_s if self._limit is None else max(due_s, self._limit.next_s)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._changed.wait()

    def _times(self, events: EncodedEvents) -> Times:
        return events.recorded_ns if self._plan.by_recorded_at else events.timestamps_ns


class _Pending:
    """Events that were read and are not all given yet."""

    __slots__ = ("_at", "_events", "_playback")

    def __init__(self, events: EncodedEvents, playback: PlaybackTimes) -> None:
        self._events = events
        self._playback = playback
        self._at = 0

    @classmethod
    def none(cls) -> "_Pending":
        nothing = np.empty(0, np.int64)
        return cls(EncodedEvents(b"", nothing.astype(np.uint64), nothing, nothing), nothing.astype(np.uint64))

    def __bool__(self) -> bool:
        return self._at < len(self._playback)

    @property
    def playback(self) -> PlaybackTimes:
        return self._playback[self._at :]

    @property
    def fitting(self) -> int:
        """How many of the next events fit one message; at least one."""
        if len(self._events.data) <= DELIVERY_BYTES_MAX:
            return len(self._playback) - self._at
        begin = int(self._events.ends[self._at - 1]) if self._at else 0
        return max(int(self._events.ends.searchsorted(begin + DELIVERY_BYTES_MAX, side="right")) - self._at, 1)

    def take(self, count: int) -> tuple[EncodedEvents, int]:
        """The next events, and the playback time of the last of them."""
        stop = self._at + count
        events = self._events.slice(self._at, stop)
        self._at = stop
        return events, int(self._playback[stop - 1])
