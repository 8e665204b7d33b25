"""One connected consumer of a durable subscription: what it is told, in order.

Invariants: it speaks at least once in a heartbeat interval, and its last word is Closing; a notice comes behind the
events before the position that it is about, and before those behind it.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from shared.errors import EventException
from stream_service.parcel import Parcel
from stream_service.subscriber import Beat
from stream_service.subscription import CaughtUp, Closing, Dropped


@dataclass(frozen=True, slots=True)
class Redelivered:
    """An event that was sent before, and how often it has failed."""

    position: int
    failures: int


@dataclass(frozen=True, slots=True)
class Share:
    """Events on their way to a consumer, in parcels; those among them that were sent before."""

    parcels: list[Parcel]
    redelivered: list[Redelivered]

    @property
    def count(self) -> int:
        """Number of events."""
        return sum(len(parcel.events) for parcel in self.parcels)


# No position is beyond it.
POSITION_MAX = 2**64 - 1

ShareDelivery: TypeAlias = Share | CaughtUp | Dropped | Closing | Beat


class Source(Protocol):
    """Where a consumer's share comes from: its group."""

    def share_of(self, consumer: "GroupConsumer", *, up_to: int) -> Share | None:
        """What the consumer is to be sent next of positions up to there; None where there is nothing for now."""

    def awaits(self, consumer: "GroupConsumer", *, up_to: int) -> bool:
        """Whether the consumer has still to be sent something of positions up to there."""

    def beat(self, consumer: "GroupConsumer") -> Beat:
        """Where the subscription is now."""

    def resume_position(self) -> int:
        """The first position that is not done with."""


@dataclass(eq=False)
class GroupConsumer:
    """One connected consumer of a group."""

    name: str
    source: Source
    heartbeat_s: float
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    notices: list[CaughtUp | Dropped] = field(default_factory=list)
    ended: EventException | None = None
    # Should it end now: what it has failed with at the first event that it had not acknowledged; None where it has not.
    failure: str | None = ""

    def end(self, error: EventException, *, failure: str | None = None) -> None:
        """End its stream with this error. failure: what it has failed with at the first event that it holds."""
        if self.ended is None:
            self.ended, self.failure = error, failure
            self.changed.set()

    async def messages(self) -> AsyncGenerator[ShareDelivery, None]:
        """Everything it is told, in order, until Closing."""
        while True:
            self.changed.clear()
            if self.ended is not None:
                yield Closing(self.ended, self.source.resume_position())
                return
            up_to = _last_before(self.notices[0]) if self.notices else POSITION_MAX
            if (share := self.source.share_of(self, up_to=up_to)) is not None:
                yield share
            elif self.notices and not self.source.awaits(self, up_to=up_to):
                yield self.notices.pop(0)
            elif not await self._changes():
                yield self.source.beat(self)

    async def _changes(self) -> bool:
        """Wait until there may be something to send; False where there is nothing for a heartbeat interval."""
        try:
            async with asyncio.timeout(self.heartbeat_s):
                return await self.changed.wait()
        except TimeoutError:
            return False


def _last_before(notice: CaughtUp | Dropped) -> int:
    """The last position of which the events come before a notice."""
    return notice.position if isinstance(notice, CaughtUp) else notice.first - 1
