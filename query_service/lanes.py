"""Threads for the work of calls, so many at a time; the rest waits its turn, or is refused.

A call is cut into steps, and steps of all calls of a lane take turns: a long export delays a short query by a
step, not by its whole length. What is quick has a lane of its own.

Invariants: at most `running_max` steps run and `calls_max` calls are admitted; a call that is cancelled has its
work interrupted, and its last step is waited for before the call ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from query_service.metrics import LaneMetrics
from query_service.work import Work
from shared.errors import EventException

T = TypeVar("T")

_END = object()


class Lane:
    """One lane. Belongs to the event loop's thread."""

    def __init__(self, name: str, *, running_max: int, calls_max: int, metrics: LaneMetrics) -> None:
        self._name = name
        self._calls_max = calls_max
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(running_max, thread_name_prefix=name)
        self._calls = 0

    def close(self) -> None:
        """End the threads; steps that have not begun are dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Take part. Raises EventException (TOO_MANY_REQUESTS) where too many do."""
        if self._calls >= self._calls_max:
            raise EventException(
                f"{self._calls} calls like this one run and wait already, the most allowed: retry later",
                reason="TOO_MANY_REQUESTS",
            )
        self._calls += 1
        self._metrics.calls.set(self._calls)
        try:
            yield
        finally:
            self._calls -= 1
            self._metrics.calls.set(self._calls)

    async def run(self, step: Callable[[], T], work: Work) -> T:
        """Run one step in a thread."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, step)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            work.cancel()
            # A thread cannot be left alone with what the call is about to close.
            with contextlib.suppress(Exception):
                await running
            raise

    async def steps(self, iterator: Iterator[T], work: Work) -> AsyncIterator[T]:
        """Yield what a generator yields, each in a step, and close it however this ends."""
        try:
            while True:
                found = await self.run(lambda: next(iterator, _END), work)
                if found is _END:
                    return
                yield found  # type: ignore[misc]
        finally:
            if isinstance(iterator, contextlib.AbstractContextManager) or hasattr(iterator, "close"):
                work.cancel()
                await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, iterator.close))


@contextmanager
def timed(work: Work) -> Iterator[None]:
    """Have the work expire when its time is up."""
    left_s = work.left_s
    if left_s is None:
        yield
        return
    timer = asyncio.get_running_loop().call_later(left_s, work.expire)
    try:
        yield
    finally:
        timer.cancel()
