"""History for one subscriber: the events from its cursor to the end that is known, read ahead while it takes them.

Invariants: what is taken has no gap and nothing twice, across restarts of the query service; while it cannot be
reached the reading is tried again, and the subscriber waits; what is not there any more, removed or damaged, is
said to be so, never passed over in silence.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from shared.columns.encoded_events import EncodedEvents
from shared.errors import EventException
from stream_service.read_ahead import ReadAhead

TRIMMED = "TRIMMED"
DAMAGED = "DAMAGED"
_RETRY_S = 1.0
_RETRYABLE = frozenset({"DEPENDENCY_UNAVAILABLE", "LOG_UNAVAILABLE", "TOO_MANY_REQUESTS", "SERVER_DRAINING"})

# Reads the matching events of positions [from, until).
ReadRange = Callable[[int, int], AsyncGenerator[EncodedEvents, None]]


@dataclass(frozen=True, slots=True)
class Taken:
    """Events of history, and where to go on; `events` is None where none match up to there."""

    events: EncodedEvents | None
    until: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Positions before `until` are not there any more, because of this reason."""

    until: int
    reason: str


class CatchUp:
    """Reads history for one subscriber while its context is entered."""

    def __init__(self, read: ReadRange, changed: asyncio.Event) -> None:
        """changed: set when there may be something to take."""
        self._read = read
        self._changed = changed
        self._reading: ReadAhead | None = None
        # What it reads: from there on, up to there.
        self._next = 0
        self._until = 0
        self._retry: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Give the reading up, if there is one."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._reading is not None:
            reading, self._reading = self._reading, None
            await reading.__aexit__(None, None, None)

    async def take(self, cursor: int, end: int) -> Taken | Missing | None:
        """What comes next from a cursor on, as far as it is read; None where nothing is yet. Raises EventException.

        end: the position behind the last that is committed. A cursor that is not where the call before ended begins
        another reading.
        """
        assert cursor < end, (cursor, end)
        if self._retry is not None:
            return None
        if cursor != self._next:
            await self.stop()
        if self._reading is None:
            self._next, self._until = cursor, end
            self._reading = ReadAhead(lambda position: self._read(position, end), cursor, self._changed)
            await self._reading.__aenter__()
        events = self._reading.take()
        if events is not None:
            self._next = int(events.positions[-1]) + 1
            return Taken(events, self._next)
        try:
            if not self._reading.exhausted:
                return None
        except EventException as error:
            await self.stop()
            return self._missing(error, cursor)
        await self.stop()
        return Taken(None, self._until)

    def _missing(self, error: EventException, cursor: int) -> Missing | None:
        if error.reason == "POSITION_TRIMMED":
            return Missing(max(int(error.metadata["first_position"]), cursor + 1), TRIMMED)
        if error.reason == "LOG_CORRUPTED":
            return Missing(max(int(error.metadata["last_position"]) + 1, cursor + 1), DAMAGED)
        if error.reason not in _RETRYABLE:
            raise error
        self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._try_again)
        return None

    def _try_again(self) -> None:
        self._retry = None
        self._changed.set()
