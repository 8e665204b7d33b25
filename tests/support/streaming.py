"""A stream service's ring and hub without a network: a log in memory, and what its subscribers are told."""

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pyarrow as pa
from eventlog.v1 import stream_service_pb2

from shared.columns.encoded_events import EncodedEvents
from shared.columns.schema import EVENT_SCHEMA
from shared.columns.wire import WireCodec
from shared.filters.batch_filter import BatchFilter
from shared.filters.parser import parse_filter
from shared.filters.tree import Everything, Tree
from stream_service import subscription_wire as wire
from stream_service.block import Block
from stream_service.hub import Hub
from stream_service.log_source import LogForms
from stream_service.matcher import Matcher
from stream_service.message_builder import MessageBuilder
from stream_service.ring import Ring
from stream_service.subscriber import Delivery, Subscriber
from stream_service.subscription import Policy, Subscription
from tests.support.fake_clock import START_NS, FakeClock

LOG_ID = "ABCDEFGH"
TURNS = 30

forms = LogForms(WireCodec(), LOG_ID)
EVERYTHING = Everything()
THIRD = parse_filter("type = 'third'")


def events_of(first: int, count: int) -> pa.RecordBatch:
    """Consecutive events; the type of every third is "third"."""
    positions = range(first, first + count)
    columns = {
        "position": list(positions),
        "recorded_at": [START_NS + position for position in positions],
        "timestamp": [START_NS] * count,
        "type": ["third" if position % 3 == 0 else "other" for position in positions],
        "source": ["test"] * count,
        "correlation_id": [f"chain {position % 5}" if position % 7 else None for position in positions],
        "payload": [f'{{"n":{position}}}' for position in positions],
        "host": ["host"] * count,
        "version": ["1"] * count,
        "user": [None] * count,
        "session_id": [None] * count,
        "tags": [[]] * count,
    }
    return pa.RecordBatch.from_pydict(columns, schema=EVENT_SCHEMA)


class MemoryLog:
    """A log, the hub that follows it, and history."""

    def __init__(self, *, bytes_max: int = 1 << 20, subscribers_max: int = 100) -> None:
        self.clock = FakeClock()
        ring = Ring(bytes_max=bytes_max)
        self.hub = Hub(ring, MessageBuilder(ring, wire.joined), subscribers_max=subscribers_max)
        self.end = 1
        self.reads = 0

    def publish(self, count: int) -> None:
        """Commit events and publish them as one block."""
        events = events_of(self.end, count)
        self.hub.append(Block(self.end, self.end + count, events, forms, received_s=self.clock.monotonic_s()))
        self.end += count

    def commit_unpublished(self, count: int) -> None:
        """Commit events that the ring misses."""
        self.end += count
        self.hub.restart(self.end)

    def history(self, tree: Tree):
        """How history is read by a subscriber with this filter, a few events at a time."""

        async def read(first: int, until: int) -> AsyncGenerator[EncodedEvents, None]:
            self.reads += 1
            for start in range(first, until, 4):
                await asyncio.sleep(0)
                columns = events_of(start, min(4, until - start))
                mask = BatchFilter(tree).mask(forms.columns(columns), now_ns=0)
                events = forms.encode(columns, payload_as_struct=False).pick(np.flatnonzero(mask))
                if len(events):
                    yield events

        return read

    def subscriber(
        self, start: int, policy: Policy = Policy.CATCH_UP, *, buffer_size: int = 1000, tree: Tree = EVERYTHING
    ) -> Subscriber:
        """A subscriber; let the hub deliver to it."""
        return Subscriber(
            "name",
            Subscription(start, policy, buffer_size=buffer_size),
            Matcher(repr(tree).encode(), tree, self.clock),
            self.hub.ring,
            self.hub.builder,
            self.history(tree),
            self.clock,
            heartbeat_s=5.0,
            pressure_threshold=0.8,
        )


class Reader:
    """Takes the messages of one subscriber, one when it is told to."""

    def __init__(self, log: MemoryLog, subscriber: Subscriber) -> None:
        self._log = log
        self._messages = subscriber.messages()
        self._next: asyncio.Future[Delivery] | None = None
        self.told: list[stream_service_pb2.SubscribeResponse] = []

    async def take(self) -> stream_service_pb2.SubscribeResponse | None:
        """The next message; None where there is none for now. Taking it ends the sending of the one before."""
        if self.told and self.told[-1].HasField("closing"):
            return None
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._messages))
        return await self._taken()

    async def _taken(self) -> stream_service_pb2.SubscribeResponse | None:
        assert self._next is not None
        for _ in range(TURNS):
            if self._next.done():
                break
            await asyncio.sleep(0)
        else:
            return None
        taken, self._next = self._next.result(), None
        message = stream_service_pb2.SubscribeResponse.FromString(wire.message_of(taken, self._log.clock))
        self.told.append(message)
        return message

    async def take_all(self) -> None:
        """Take until there is nothing, or the stream has ended."""
        while (message := await self.take()) is not None and not message.HasField("closing"):
            pass

    async def close(self) -> None:
        """Leave. What is on its way arrives."""
        if self._next is not None and await self._taken() is None:
            self._next.cancel()
            await asyncio.wait([self._next])
        await self._messages.aclose()

    def kinds(self) -> list[str]:
        """What it was told, heartbeats aside."""
        kinds = [str(message.WhichOneof("message")) for message in self.told]
        return [kind for kind in kinds if kind != "heartbeat"]

    def positions(self) -> list[int]:
        """Positions delivered."""
        return [event.position for message in self.told for event in message.events.events]

    def dropped(self) -> list[stream_service_pb2.Dropped]:
        """What it was told it will not get."""
        return [message.dropped for message in self.told if message.HasField("dropped")]
