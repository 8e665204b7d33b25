"""One connected subscriber: takes from history or from the ring, as its subscription says.

It speaks at least once in a heartbeat interval.

Invariants: it is asked for one message at a time, when the one before is on its way; the last is Closing.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from shared.clock import Clock
from shared.columns.encoded_events import EncodedEvents
from shared.errors import EventException
from stream_service.catch_up import CatchUp, Missing, ReadRange
from stream_service.matcher import Matcher
from stream_service.message_builder import Message, MessageBuilder
from stream_service.ring import Ring
from stream_service.subscription import Closing, Notice, State, Subscription


@dataclass(frozen=True, slots=True)
class History:
    """Events of history on their way to a subscriber, which goes on at `until`."""

    events: EncodedEvents
    until: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The subscriber lives: where it is, and how far behind."""

    head: int
    resume_position: int
    lag_events: int
    lag_ns: int
    under_pressure: bool


Delivery: TypeAlias = Notice | Message | History | Beat


@dataclass(eq=False)
class Subscriber:
    """Serves one subscription. Belongs to one event loop."""

    name: str
    subscription: Subscription
    matcher: Matcher
    ring: Ring
    builder: MessageBuilder
    read: ReadRange
    clock: Clock
    heartbeat_s: float
    pressure_threshold: float
    payload_as_struct: bool = False
    created_ns: int = 0
    # In metrics.
    label: str = ""
    # Set when there may be something to do.
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._catch_up = CatchUp(self.read, self.changed)
        self._spoke_s = self.clock.monotonic_s()
        self._told_pressure = False
        self._delivered_ns = 0

    @property
    def under_pressure(self) -> bool:
        """Whether its buffer is fuller than the threshold."""
        subscription = self.subscription
        return subscription.buffered >= self.pressure_threshold * subscription.buffer_size

    async def messages(self) -> AsyncGenerator[Delivery, None]:
        """Everything it is told, in order, until Closing."""
        async with self._catch_up:
            while True:
                message = await self._next()
                self._spoke_s = self.clock.monotonic_s()
                yield message
                if isinstance(message, Closing):
                    return

    def resume_position(self) -> int:
        """Where to go on if the stream ended now."""
        return self.subscription.resume_position

    def beat(self) -> Beat:
        """Where it is now."""
        cursor = self.subscription.resume_position
        head = self.ring.end - 1
        return Beat(head, cursor, max(head - cursor + 1, 0), self._lag_ns(cursor), self.under_pressure)

    def end(self, error: EventException) -> None:
        """End it with this error."""
        self.subscription.end(error)
        self.changed.set()

    async def _next(self) -> Delivery:
        subscription = self.subscription
        while True:
            self.changed.clear()
            if (notice := subscription.next_notice()) is not None:
                return notice
            if self.under_pressure is not self._told_pressure or self._due_s() <= 0:
                self._told_pressure = self.under_pressure
                return self.beat()
            delivery: Delivery | None = None
            if self.ring.holds(subscription.cursor):
                # What is left of a reading would come a second time.
                await self._catch_up.stop()
                delivery = self._from_ring()
            elif subscription.cursor < self.ring.end:
                delivery = await self._from_history()
            if delivery is not None:
                return delivery
            if self.changed.is_set():
                await asyncio.sleep(0)
                continue
            subscription.ready()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._due_s(), 0)):
                    await self.changed.wait()

    def _from_ring(self) -> Message | None:
        subscription, message = self.subscription, None
        if subscription.cursor < self.ring.end:
            message = self.builder.build(self.matcher, subscription.cursor, payload_as_struct=self.payload_as_struct)
            subscription.took(message.until, message.count)
            # There may be more, or notices.
            self.changed.set()
        if subscription.cursor == self.ring.end and subscription.state is State.CATCHING_UP:
            subscription.reached_end()
            self.changed.set()
        return message if message and message.count else None

    async def _from_history(self) -> History | None:
        subscription = self.subscription
        found = await self._catch_up.take(subscription.cursor, self.ring.end)
        if found is None or subscription.state is State.CLOSED:
            return None
        self.changed.set()
        if isinstance(found, Missing):
            subscription.skip(min(found.until, self.ring.end), found.reason)
            return None
        subscription.took(found.until, 0)
        if found.events is None:
            return None
        self._delivered_ns = int(found.events.recorded_ns[-1])
        return History(found.events, found.until)

    def _due_s(self) -> float:
        return self._spoke_s + self.heartbeat_s - self.clock.monotonic_s()

    def _lag_ns(self, cursor: int) -> int:
        if cursor >= self.ring.end:
            return 0
        block = next(self.ring.blocks_from(cursor), None) if self.ring.holds(cursor) else None
        recorded_ns = block.recorded_ns if block else self._delivered_ns
        return max(self.clock.now_ns() - recorded_ns, 0) if recorded_ns else 0
