"""Where calls are admitted and their work is done: threads, time and cancellation, for all RPCs.

Invariants: at most RUNNING_MAX analyses compute at a time and WAITING_MAX more wait; work whose caller has gone is
told so and stops at its next question to the budget; what a call reads and computes ends before its deadline.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from analysis_service.budget import Budget
from analysis_service.coverage import Coverage, Progress
from analysis_service.metrics import DeskMetrics
from shared.clock import Clock
from shared.errors import EventException

RUNNING_MAX = 2
WAITING_MAX = 30
TIME_S_DEFAULT, TIME_S_MAX = 60.0, 3600.0
# Of the time that a caller leaves: so much for one read, so much for all work before the answer.
_READING_SHARE, _WORKING_SHARE = 0.6, 0.9

T = TypeVar("T")


@dataclass(slots=True)
class Job:
    """One call under way. coverage: what its answer rests on."""

    budget: Budget
    desk: "Desk"
    began_s: float
    reading_s_max: float = TIME_S_DEFAULT
    progress: Progress = field(default_factory=Progress)
    coverage: Coverage = field(default_factory=Coverage)

    @property
    def reading_s(self) -> float:
        """How long the next read may take, in seconds."""
        left_s = self.budget.left_s
        return self.reading_s_max if left_s is None else min(self.reading_s_max, left_s)

    def reading_left_s(self, share: float = 1.0) -> float:
        """How long all reads from the beginning may still take, or a share of them."""
        return max(0.0, self.reading_s_max * share - self.elapsed_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call began."""
        return self.desk.now_s() - self.began_s

    async def compute(self, work: Callable[[], T], stage: str = "") -> T:
        """Do work in a thread. stage: what it is, where that is to be told."""
        if stage:
            self.progress.tell(stage, 0.0)
        return await self.desk.run(work, self.budget)


class Desk:
    """Belongs to one event loop."""

    def __init__(self, clock: Clock, metrics: DeskMetrics) -> None:
        self.now_s = clock.monotonic_s
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(RUNNING_MAX, thread_name_prefix="analysis")
        self._jobs = 0

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    @asynccontextmanager
    async def job(self, time_remaining_s: float | None) -> AsyncIterator[Job]:
        """Admit a call. Raises EventException (TOO_MANY_REQUESTS)."""
        if self._jobs >= RUNNING_MAX + WAITING_MAX:
            raise EventException(f"{self._jobs} analyses run and wait already: retry later", reason="TOO_MANY_REQUESTS")
        seconds = min(TIME_S_DEFAULT if time_remaining_s is None else time_remaining_s, TIME_S_MAX)
        progress = Progress()
        budget = Budget(self.now_s, seconds * _WORKING_SHARE, progress.tell)
        self._jobs += 1
        try:
            with self._metrics.calls.track_inprogress():
                yield Job(budget, self, self.now_s(), seconds * _READING_SHARE, progress, Coverage(tell=progress.tell))
        finally:
            self._jobs -= 1
            budget.cancel()

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Job]:
        """Admit a call that goes on until it is cancelled; it is not among those that wait for their turn."""
        budget = Budget()
        try:
            yield Job(budget, self, self.now_s())
        finally:
            budget.cancel()

    async def run(self, work: Callable[[], T], budget: Budget) -> T:
        """Do work in a thread; if the call is cancelled meanwhile, the budget says so to the work."""

        def counted() -> T:
            with self._metrics.running.track_inprogress():
                return work()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, counted)
        except asyncio.CancelledError:
            budget.cancel()
            raise
