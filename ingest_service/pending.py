"""What waits between an RPC and the disk: a request, the frame it went into, and its answer."""

import asyncio
from dataclasses import dataclass, field

from shared.columns.wire import RequestHead
from shared.errors import EventException
from shared.log.frame import EncodedFrame, SerializedFrame, compress_frame
from shared.log.types import Nanoseconds, PositionRange


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The answer to a request: where its events are, and what is promised."""

    positions: PositionRange
    recorded_at: Nanoseconds
    durable: bool
    duplicate: bool = False


@dataclass(slots=True)
class StreamOrder:
    """The requests of one stream: after the first that is refused, none is logged."""

    failed: bool = False


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One log request on its way, received at a time by the monotonic clock.

    `abandoned` once nobody waits for the answer any more.
    """

    body: bytes
    head: RequestHead
    durable: bool
    answer: "asyncio.Future[Acknowledgement]"
    stream: StreamOrder | None = None
    abandoned: bool = False
    received_s: float = 0.0

    @property
    def cost(self) -> int:
        """Bytes it is charged with until it is committed: its own and what its objects take."""
        return len(self.body) + 512


@dataclass(slots=True, eq=False)
class PendingFrame:
    """A frame that waits to be synced, and the answers that wait for it."""

    serialized: SerializedFrame
    cost: int
    waiting: list[tuple[PendingRequest, Acknowledgement]] = field(default_factory=list)
    _encoded: EncodedFrame | None = None

    @property
    def positions(self) -> PositionRange:
        """The positions in the frame."""
        return self.serialized.positions

    def encoded(self) -> EncodedFrame:
        """The frame ready to be written: compressed when it is first asked for, kept for retries."""
        if self._encoded is None:
            self._encoded = compress_frame(self.serialized)
        return self._encoded


Outcome = tuple[PendingRequest, Acknowledgement | EventException]


def deliver(outcomes: list[Outcome]) -> None:
    """Give answers to those who wait. Runs on the event loop."""
    for request, outcome in outcomes:
        if request.answer.done():
            continue
        if isinstance(outcome, EventException):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)
