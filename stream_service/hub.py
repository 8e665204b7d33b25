"""The ring and everyone who takes from it.

Invariants: a block is given to all subscribers at once, and takes each a time that does not depend on how slow
another is; there are no more than subscribers_max; once closed, nobody is admitted and everyone is ended.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from shared.errors import EventException, EventStreamException
from shared.log.types import Position
from shared.rpc.drain import draining_error
from stream_service.block import Block
from stream_service.matcher import Matcher
from stream_service.message_builder import MessageBuilder
from stream_service.ring import Ring
from stream_service.subscriber import Subscriber


class Member(Protocol):
    """Whoever takes a place: an ephemeral subscriber, or a consumer of a group."""

    def end(self, error: EventException) -> None:
        """End the stream with this error."""


class Hub:
    """Hands blocks to subscribers. Belongs to one event loop."""

    def __init__(self, ring: Ring, builder: MessageBuilder, *, subscribers_max: int) -> None:
        self.ring = ring
        self.builder = builder
        self._subscribers_max = subscribers_max
        self._members: set[Member] = set()
        self._live: dict[Subscriber, None] = {}
        self._watchers: dict[asyncio.Event, None] = {}
        self._closed = False
        self._all_left = asyncio.Event()

    @property
    def members(self) -> int:
        """How many take places now."""
        return len(self._members)

    @property
    def filters(self) -> int:
        """How many distinct filters the ephemeral subscribers have."""
        return len(self._matchers())

    @property
    def subscribers(self) -> list[Subscriber]:
        """The ephemeral subscribers, oldest first."""
        return list(self._live)

    @contextmanager
    def place(self, member: Member) -> Iterator[None]:
        """Hold a place. Raises EventException (TOO_MANY_SUBSCRIBERS, SERVER_DRAINING)."""
        if self._closed:
            raise draining_error("the stream service")
        if len(self._members) >= self._subscribers_max:
            raise EventStreamException(
                f"{len(self._members)} subscribers are connected, as many as streaming.max_subscribers allows: "
                "try again when one has left",
                reason="TOO_MANY_SUBSCRIBERS",
                subscribers_max=self._subscribers_max,
            )
        self._members.add(member)
        try:
            yield
        finally:
            self._members.discard(member)
            if not self._members:
                self._all_left.set()

    @contextmanager
    def delivering_to(self, subscriber: Subscriber) -> Iterator[None]:
        """Give a subscriber, which has a place, what is published."""
        self._live[subscriber] = None
        try:
            with self.watching(subscriber.changed):
                yield
        finally:
            del self._live[subscriber]

    @contextmanager
    def watching(self, changed: asyncio.Event) -> Iterator[None]:
        """Set an event whenever the ring changes."""
        self._watchers[changed] = None
        try:
            yield
        finally:
            del self._watchers[changed]

    def append(self, block: Block) -> None:
        """Publish the block that follows."""
        first = self.ring.first_after(block)
        for subscriber in self._live:
            if subscriber.subscription.cursor < first:
                self._evict(subscriber, first)
        self.ring.append(block)
        with block.columns_kept():
            counts = {matcher: matcher.matching(block) for matcher in self._matchers()}
        for subscriber in self._live:
            self._publish(subscriber, counts[subscriber.matcher])
        self._changed()

    def restart(self, end: Position) -> None:
        """Go on at this position, without what is before it: subscribers read that from history."""
        self.ring.restart(end)
        for subscriber in self._live:
            if subscriber.subscription.cursor < end:
                subscriber.subscription.missed()
        self._changed()

    async def close(self) -> None:
        """End everyone with SERVER_DRAINING and a resume position; returns when all have left."""
        self._closed = True
        for member in list(self._members):
            member.end(draining_error("the stream service"))
        if self._members:
            await self._all_left.wait()

    def _matchers(self) -> set[Matcher]:
        return {subscriber.matcher for subscriber in self._live}

    def _publish(self, subscriber: Subscriber, count: int) -> None:
        subscriber.subscription.published(
            count, lambda cursor, excess: subscriber.matcher.position_after(self.ring, cursor, excess)
        )

    def _evict(self, subscriber: Subscriber, until: Position) -> None:
        subscription = subscriber.subscription
        subscription.evicted(until, lambda: subscriber.matcher.count(self.ring, subscription.cursor, until))

    def _changed(self) -> None:
        self.builder.forget()
        for changed in self._watchers:
            changed.set()
