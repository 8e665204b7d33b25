"""Lanes: calls take turns step by step, are refused when there are too many, and end well when they are given up."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from query_service.lanes import Lane
from query_service.metrics import QueryMetrics
from query_service.work import Work, WorkCancelled
from shared.clock import SystemClock
from shared.errors import EventException
from shared.telemetry.metrics import Metrics


class _Waiting:
    """Something that takes until it is interrupted."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        self._interrupted.set()

    def wait(self) -> None:
        self.began.set()
        assert self._interrupted.wait(30)
        raise ValueError("interrupted")


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    """A lane in which one step runs at a time, of at most two calls."""
    metrics = QueryMetrics(Metrics("query_service")).lane("searches")
    made = Lane("searches", running_max=1, calls_max=2, metrics=metrics)
    yield made
    made.close()


def _work() -> Work:
    return Work(SystemClock())


async def test_calls_take_turns(lane: Lane) -> None:
    """A long one delays a short one by a step."""
    order: list[str] = []

    def steps(name: str, count: int) -> Iterator[int]:
        for number in range(count):
            order.append(name)
            yield number

    async def drain(name: str, count: int) -> list[int]:
        return [number async for number in lane.steps(steps(name, count), _work())]  # type: ignore[arg-type]

    long, short = await asyncio.gather(drain("long", 20), drain("short", 3))
    assert (long, short) == (list(range(20)), [0, 1, 2])
    assert "short" not in order[8:]


async def test_too_many_calls_are_refused(lane: Lane) -> None:
    """With a reason on which clients wait and try again; one that has ended makes room."""
    with lane.admitted():
        with lane.admitted(), pytest.raises(EventException) as caught, lane.admitted():
            pass
        assert caught.value.reason == "TOO_MANY_REQUESTS"
        with lane.admitted():
            pass


async def test_a_call_that_is_given_up_is_interrupted_and_waited_for(lane: Lane) -> None:
    """When its cancellation has arrived, its thread does not touch anything any more."""
    waiting, work = _Waiting(), _work()
    ended = threading.Event()

    def step() -> None:
        try:
            with work.running(waiting):
                waiting.wait()
        except WorkCancelled:
            ended.set()
            raise

    call = asyncio.create_task(lane.run(step, work))
    await asyncio.to_thread(waiting.began.wait, 30)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended.is_set()


async def test_a_call_that_is_given_up_before_its_turn_never_runs(lane: Lane) -> None:
    """Its step is taken out of the queue."""
    first, work = _Waiting(), _work()
    ran: list[int] = []

    def hold() -> None:
        with work.running(first):
            first.wait()

    holding = asyncio.create_task(lane.run(hold, work))
    await asyncio.to_thread(first.began.wait, 30)
    queued = asyncio.create_task(lane.run(lambda: ran.append(1), _work()))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    work.cancel()
    with pytest.raises(WorkCancelled):
        await holding
    assert ran == []


async def test_a_generator_is_closed_when_its_reader_stops(lane: Lane) -> None:
    """So that what it holds is given back."""
    closed: list[bool] = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    steps = lane.steps(numbers(), _work())  # type: ignore[arg-type]
    assert await anext(steps) == 1
    await steps.aclose()  # type: ignore[attr-defined]
    assert closed == [True]
