"""The state of one live subscription: where it is, what waits for it, and what happens when too much does. Pure.

              REACHED_END              OVERFLOWED (CATCH_UP), MISSED
    CATCHING_UP ────────▶ LIVE ────────────────────────────────────▶ CATCHING_UP
         │                 │  OVERFLOWED (DROP_OLDEST): stays LIVE
         │ ENDED           │ ENDED, OVERFLOWED (DISCONNECT)
         ▼                 ▼
               CLOSED

The buffer of a subscriber is the matching events between its cursor and the end of the ring that were published
while a message was on its way to it. One that waits for events is given whatever comes next, however much that is.

Invariants: the cursor never goes back; every matching event from the start on was delivered, or is in the ranges of
Dropped notices, whose counts are exact, or is still to come; nothing is both. Notices come in order, before the
events that follow them.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeAlias

from shared.errors import EventException, EventStreamException

BUFFER_FULL = "BUFFER_FULL"

# The position that follows the first n matching events from a position on.
PositionAfter: TypeAlias = Callable[[int, int], int]


class Policy(Enum):
    """What happens when the buffer is full."""

    DROP_OLDEST = auto()
    CATCH_UP = auto()
    DISCONNECT = auto()


class State(Enum):
    """Where a subscription is."""

    CATCHING_UP = "catching_up"
    LIVE = "live"
    CLOSED = "closed"


class Signal(Enum):
    """What happens to a subscription."""

    # Everything there is was taken.
    REACHED_END = auto()
    # The buffer is full, or what waits leaves the ring.
    OVERFLOWED = auto()
    # The ring went on without some events.
    MISSED = auto()
    ENDED = auto()


NEXT: dict[tuple[State, Signal, Policy | None], State] = {
    (State.CATCHING_UP, Signal.REACHED_END, None): State.LIVE,
    (State.CATCHING_UP, Signal.ENDED, None): State.CLOSED,
    (State.LIVE, Signal.OVERFLOWED, Policy.DROP_OLDEST): State.LIVE,
    (State.LIVE, Signal.OVERFLOWED, Policy.CATCH_UP): State.CATCHING_UP,
    (State.LIVE, Signal.OVERFLOWED, Policy.DISCONNECT): State.CLOSED,
    (State.LIVE, Signal.MISSED, None): State.CATCHING_UP,
    (State.LIVE, Signal.ENDED, None): State.CLOSED,
}


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """History is read up to this position; what follows is live."""

    position: int


@dataclass(frozen=True, slots=True)
class FellBehind:
    """From this position on, history is read."""

    position: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Positions of [first, last] will not be delivered; `count` of them match, 0 where that is not known."""

    first: int
    last: int
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Closing:
    """The stream ends, because of this error. It can be resumed at this position."""

    error: EventException
    resume_position: int


Notice: TypeAlias = CaughtUp | FellBehind | Dropped | Closing


class Subscription:
    """One subscription, from its start to its end."""

    def __init__(self, start: int, policy: Policy, *, buffer_size: int) -> None:
        assert buffer_size >= 1, buffer_size
        self.state = State.CATCHING_UP
        # The next position that may be delivered.
        self.cursor = start
        self.policy = policy
        self.buffer_size = buffer_size
        # Matching events from the cursor on; known while it is live.
        self.waiting = 0
        # Those of them that came while the subscriber was waiting for events: they do not fill the buffer.
        self._granted = 0
        self._sending = False
        self._notices: deque[Notice] = deque()

    @property
    def buffered(self) -> int:
        """Events in the buffer."""
        return self.waiting - self._granted

    @property
    def resume_position(self) -> int:
        """Where to go on if the stream ended now: at what was dropped, where that has not been told."""
        untold = next((notice.first for notice in self._notices if isinstance(notice, Dropped)), self.cursor)
        return min(untold, self.cursor)

    # What the subscriber does.

    def next_notice(self) -> Notice | None:
        """Take the next notice. It is on its way from now on."""
        if not self._notices:
            return None
        self._sending = True
        return self._notices.popleft()

    def took(self, until: int, count: int) -> None:
        """A message with `count` events is on its way; the next begins at `until`."""
        assert until >= self.cursor, (until, self.cursor)
        assert not self._notices, "notices come before the events that follow them"
        self.cursor = until
        self._sending = True
        if self.state is State.LIVE:
            self.waiting -= count
            self._granted = max(self._granted - count, 0)
            assert self.waiting >= 0, self.waiting

    def reached_end(self) -> None:
        """The cursor is at the end of everything there is."""
        if self.state is State.CATCHING_UP:
            self._move(Signal.REACHED_END)
            self.waiting = self._granted = 0
            self._notices.append(CaughtUp(self.cursor - 1))

    def ready(self) -> None:
        """The subscriber has taken all there is and waits for more."""
        self._sending = False

    def skip(self, until: int, reason: str) -> None:
        """History does not have the positions before `until` any more. Only while catching up."""
        assert self.state is State.CATCHING_UP
        self._drop(until, 0, reason)

    # What happens to it.

    def published(self, count: int, position_after: PositionAfter) -> None:
        """`count` matching events were added at the end of the ring."""
        if self.state is not State.LIVE:
            return
        self.waiting += count
        if not self._sending:
            self._granted = self.waiting
        elif self.buffered > self.buffer_size:
            excess = self.waiting - self.buffer_size
            self._overflow(lambda: (position_after(self.cursor, excess), excess))

    def evicted(self, until: int, count: Callable[[], int]) -> None:
        """The ring lets go of positions before `until`. count: how many from the cursor to there match."""
        if self.state is not State.LIVE or self.cursor >= until:
            return
        matching = count()
        if matching == 0:
            self.cursor = until
        else:
            self._overflow(lambda: (until, matching))

    def missed(self) -> None:
        """The ring went on without events that were committed."""
        if self.state is State.LIVE:
            self._move(Signal.MISSED)
            self._notices.append(FellBehind(self.cursor))

    def end(self, error: EventException) -> None:
        """End it. What is on its way is delivered; what waits is not. A second end changes nothing."""
        if self.state is not State.CLOSED:
            self._move(Signal.ENDED)
            self._notices.append(Closing(error, self.cursor))

    def _overflow(self, oldest: Callable[[], tuple[int, int]]) -> None:
        """oldest: the position behind the events that are too many, and their number."""
        self._move(Signal.OVERFLOWED)
        if self.policy is Policy.DROP_OLDEST:
            until, count = oldest()
            self.waiting -= count
            self._granted = 0
            self._drop(until, count, BUFFER_FULL)
        elif self.policy is Policy.CATCH_UP:
            self._notices.append(FellBehind(self.cursor))
        else:
            self._notices.append(Closing(slow_consumer("its buffer is full"), self.cursor))

    def _drop(self, until: int, count: int, reason: str) -> None:
        last = self._notices[-1] if self._notices else None
        if isinstance(last, Dropped) and last.reason == reason:
            self._notices[-1] = replace(last, last=until - 1, count=last.count + count)
        else:
            self._notices.append(Dropped(self.cursor, until - 1, count, reason))
        self.cursor = until

    def _move(self, signal: Signal) -> None:
        policy = self.policy if signal is Signal.OVERFLOWED else None
        self.state = NEXT[self.state, signal, policy]


def slow_consumer(why: str) -> EventException:
    """The error for a subscriber that does not keep up."""
    return EventStreamException(
        f"the subscriber is too slow: {why}. Resume at the position given, take more at a time, or choose a "
        "larger buffer or another policy",
        reason="SLOW_CONSUMER",
    )
