"""Lanes: so many steps at a time, and never a thread left alone with what its call closes."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from query_service.lanes import Lane, timed
from query_service.metrics import QueryMetrics
from query_service.work import Work, WorkCancelled
from shared.clock import SystemClock
from shared.errors import EventException
from shared.telemetry.metrics import Metrics

_PATIENCE_S = 10.0


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    """A lane of one thread and three calls."""
    made = Lane("test", running_max=1, calls_max=3, metrics=QueryMetrics(Metrics("test")).lane("test"))
    yield made
    made.close()


class _Statement:
    """Runs until it is interrupted; the first interruptions may come too early, and be lost."""

    def __init__(self, *, lost: int = 0) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()
        self._interrupted = threading.Event()
        self._lost = lost

    def interrupt(self) -> None:
        self._lost -= 1
        if self._lost < 0:
            self._interrupted.set()

    def run(self, work: Work) -> None:
        with work.running(self):
            self.began.set()
            assert self._interrupted.wait(_PATIENCE_S)
            self.ended.set()
            raise RuntimeError("interrupted")


async def _begun(statement: _Statement) -> None:
    assert await asyncio.to_thread(statement.began.wait, _PATIENCE_S)


@pytest.mark.parametrize("lost", [0, 3])
async def test_cancelling_interrupts_the_step_and_waits_for_it(lane: Lane, lost: int) -> None:
    """Also where an interruption comes before the statement has begun, and where the call is cancelled twice."""
    work, statement = Work(SystemClock()), _Statement(lost=lost)
    call = asyncio.create_task(lane.run(lambda: statement.run(work), work))
    await _begun(statement)
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert statement.ended.is_set()


async def test_a_cancelled_step_that_waits_never_begins(lane: Lane) -> None:
    """It does not wait for its turn to be told that nobody wants it."""
    busy, waiting = Work(SystemClock()), Work(SystemClock())
    statement = _Statement()
    running = asyncio.create_task(lane.run(lambda: statement.run(busy), busy))
    await _begun(statement)
    begun: list[bool] = []
    call = asyncio.create_task(lane.run(lambda: begun.append(True), waiting))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not statement.ended.is_set()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert begun == []


async def test_a_generator_is_closed_in_a_thread_however_it_ends(lane: Lane) -> None:
    """At its end, where the reader leaves, and where the call is cancelled: never while it runs."""
    for leaves_after in (1, 2, 99):
        closed: list[str] = []

        def numbers(closed: list[str] = closed) -> Iterator[int]:
            try:
                yield from range(3)
            finally:
                closed.append(threading.current_thread().name)

        work = Work(SystemClock())
        steps = lane.steps(numbers(), work)
        async with contextlib.aclosing(steps):  # type: ignore[type-var]
            async for number in steps:
                if number + 1 == leaves_after:
                    break
        assert len(closed) == 1
        assert closed[0].startswith("test")


async def test_steps_of_calls_take_turns(lane: Lane) -> None:
    """A long call delays a short one by a step, not by its whole length."""
    work, turns = Work(SystemClock()), list[str]()

    async def read(name: str, steps: int) -> None:
        async for _ in lane.steps((turns.append(name) for _ in range(steps)), work):
            pass

    await asyncio.gather(read("long", 50), read("short", 3))
    assert turns.index("short") < 3
    assert len(turns) - turns[::-1].index("short") < 12


async def test_too_many_calls_are_refused(lane: Lane) -> None:
    """With a reason; and there is room again once one has ended."""
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(lane.admitted())
        with pytest.raises(EventException) as refusal, lane.admitted():
            pass
        assert refusal.value.reason == "TOO_MANY_REQUESTS"
    with lane.admitted():
        pass


async def test_time_that_is_up_interrupts_until_it_is_heard(lane: Lane) -> None:
    """An interruption that is lost is repeated."""
    work, statement = Work(SystemClock(), 0.01), _Statement(lost=2)
    work.has_progress = True
    with timed(work), contextlib.suppress(Exception):
        await lane.run(lambda: statement.run(work), work)
    assert statement.ended.is_set()


async def test_a_failing_step_fails_its_call(lane: Lane) -> None:
    """Cancelled or not, what a step raises comes out."""

    def fail() -> None:
        raise WorkCancelled

    with pytest.raises(WorkCancelled):
        await lane.run(fail, Work(SystemClock()))
