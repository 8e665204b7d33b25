"""Whether the service is shutting down, and reading requests only until it is.

Invariant: once begun, a drain does not end. All methods belong to the event loop's thread.
Does not end response streams: a service does that in its before_stop hook.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn, TypeVar

from shared.errors import EventException

T = TypeVar("T")

# During a drain, how long a response may wait for its caller to take it.
WRITE_S_MAX = 1.0


def draining_error(service: str) -> EventException:
    """Return what a caller is told of a service that shuts down."""
    return EventException(
        f"{service} is shutting down; try again on another replica, or when it is back",
        reason="SERVER_DRAINING",
    )


class Drain:
    """The shutdown of one service, from the signal to the last call."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        # A call came that is to be refused; it need not wait for that.
        self._came = asyncio.Event()
        self._released = asyncio.Event()
        self._released.set()
        # One for each call that waits for a request right now.
        self._reads: set[asyncio.Timeout] = set()
        # One for each response that waits for its caller to take it.
        self._writes: set[asyncio.Timeout] = set()

    @property
    def begun(self) -> bool:
        """Whether the service is shutting down."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Begin: new calls are refused and `until_begun` ends. A second call does nothing."""
        self._begun.set()
        for read in self._reads:
            read.reschedule(0)
        for write in self._writes:
            write.reschedule(asyncio.get_running_loop().time() + WRITE_S_MAX)

    async def refuse(self, service: str) -> NoReturn:
        """Refuse a call that came after the drain began: at once, or on release while calls are held.

        Raises EventException (SERVER_DRAINING).
        """
        self._came.set()
        await self._released.wait()
        raise draining_error(service)

    async def hold(self, quiet_s: float) -> None:
        """Hold the calls that are to be refused, and return when none has come for quiet_s seconds.

        Who is held does not come again, so even those who retry without a pause are all here then.
        """
        self._released.clear()
        while True:
            self._came.clear()
            try:
                async with asyncio.timeout(quiet_s):
                    await self._came.wait()
            except TimeoutError:
                return

    def release(self) -> None:
        """Refuse the calls that are held, and hold no more."""
        self._released.set()

    async def wait_begun(self) -> None:
        """Return when the service is shutting down."""
        await self._begun.wait()

    @asynccontextmanager
    async def write_timeout(self, seconds: float | None) -> AsyncIterator[None]:
        """Raise TimeoutError after so many seconds inside, or WRITE_S_MAX after the drain began."""
        seconds = min(seconds or WRITE_S_MAX, WRITE_S_MAX) if self.begun else seconds
        timeout = asyncio.timeout(seconds)
        self._writes.add(timeout)
        try:
            async with timeout:
                yield
        finally:
            self._writes.discard(timeout)

    async def until_begun(self, requests: AsyncIterable[T]) -> AsyncIterator[T]:
        """Yield the requests of a stream until it ends or the drain begins. What was read is yielded.

        The caller then answers what it has taken and ends the call with `draining_error` if `begun`.
        """
        iterator = aiter(requests)
        while not self.begun:
            read = asyncio.timeout(None)
            try:
                async with read:
                    self._reads.add(read)
                    request = await anext(iterator)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if read.expired():
                    return
                raise
            finally:
                self._reads.discard(read)
            yield request
