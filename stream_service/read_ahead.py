"""Reads history ahead of whoever takes it, a replay or a subscription, as far as is good for both.

Invariants: no more than READ_AHEAD_BYTES_MAX, and one message, wait to be taken; what is taken has no gap and nothing
twice, in the order of positions. A reading that is left waiting is given up and begun anew behind what was read, so
that a slow subscriber or a paused replay holds nothing in the query service.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self

from shared.columns.encoded_events import EncodedEvents

READ_AHEAD_BYTES_MAX = 8 * 1024 * 1024
# How long a reading may wait to be taken from before it is given up.
STALL_S_MAX = 1.0

# Reads the events from this position on, to the end of what is wanted.
Source = Callable[[int], AsyncGenerator[EncodedEvents, None]]


class ReadAhead:
    """A buffer between history and one reader of it. Reads while its context is entered."""

    def __init__(self, source: Source, from_position: int, changed: asyncio.Event) -> None:
        """changed: set when there is something to take, or nothing more."""
        self._source = source
        self._next = from_position
        self._changed = changed
        self._taken = asyncio.Event()
        self._waiting: deque[EncodedEvents] = deque()
        self._bytes = 0
        self._error: BaseException | None = None
        self._ended = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._read_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    @property
    def exhausted(self) -> bool:
        """Whether everything was taken. Raises what ended the reading before its end, once all before it was taken."""
        if self._waiting or not self._ended:
            return False
        if self._error is not None:
            raise self._error
        return True

    def take(self) -> EncodedEvents | None:
        """The next events; None where none have been read yet, or no more are to come."""
        if not self._waiting:
            return None
        events = self._waiting.popleft()
        self._bytes -= len(events.data)
        self._taken.set()
        return events

    async def _read_all(self) -> None:
        try:
            while not await self._read():
                await self._room(READ_AHEAD_BYTES_MAX // 2)
        except Exception as error:  # noqa: BLE001 — raised where what was read is taken
            self._error = error
        self._ended = True
        self._changed.set()

    async def _read(self) -> bool:
        """Read until the end, or until it has waited too long to be taken from. Returns whether it was the end."""
        async with aclosing(self._source(self._next)) as batches:
            async for events in batches:
                self._waiting.append(events)
                self._bytes += len(events.data)
                self._next = int(events.positions[-1]) + 1
                self._changed.set()
                try:
                    async with asyncio.timeout(STALL_S_MAX):
                        await self._room(READ_AHEAD_BYTES_MAX)
                except TimeoutError:
                    return False
        return True

    async def _room(self, bytes_max: int) -> None:
        """Wait until no more than this waits to be taken."""
        while self._bytes > bytes_max:
            self._taken.clear()
            await self._taken.wait()
