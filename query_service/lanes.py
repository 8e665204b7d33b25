"""Threads for the work of calls, so many at a time; the rest waits its turn, or is refused.

A call is cut into steps, and steps of all calls of a lane take turns: a long export delays a short query by a
step, not by its whole length. What is quick has a lane of its own.

Invariants: at most `running_max` steps run and `calls_max` calls are admitted; a call that is cancelled has its
work interrupted, and its last step is waited for before the call ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from query_service.metrics import LaneMetrics
from query_service.work import Work
from shared.errors import EventException

T = TypeVar("T")

_END = object()
# An interruption that comes just before a statement begins is lost: it is repeated after so many seconds.
_AGAIN_S = 0.02


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

        def counted() -> T:
            with self._metrics.running.track_inprogress():
                return step()

        submitted = self._threads.submit(counted)
        try:
            return await asyncio.shield(asyncio.wrap_future(submitted))
        except asyncio.CancelledError:
            work.cancel()
            if not submitted.cancel():
                # A thread cannot be left alone with what the call is about to close.
                await _ended(submitted, work)
            raise

    async def steps(self, iterator: Generator[T, None, None], work: Work) -> AsyncIterator[T]:
        """Yield what a generator yields, each in a step, and close it however this ends."""
        ended = False
        try:
            while (found := await self.run(lambda: next(iterator, _END), work)) is not _END:
                yield found  # type: ignore[misc]
            ended = True
        finally:
            if not ended:
                work.cancel()
                await _ended(self._threads.submit(iterator.close), work)


@contextmanager
def timed(work: Work) -> Iterator[None]:
    """Have the work expire when its time is up."""
    left_s = work.left_s
    if left_s is None:
        yield
        return
    loop = asyncio.get_running_loop()

    timers: list[asyncio.TimerHandle] = []

    def expire() -> None:
        work.expire()
        timers[:] = [loop.call_later(_AGAIN_S, expire)]

    timers.append(loop.call_later(left_s, expire))
    try:
        yield
    finally:
        timers[0].cancel()


async def _ended(submitted: Future[Any], work: Work) -> None:
    """Wait for a step of cancelled work, however often the call is cancelled meanwhile."""
    while not submitted.done():
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([asyncio.wrap_future(submitted)], timeout=_AGAIN_S)
