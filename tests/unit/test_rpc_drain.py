"""Reading the requests of a stream until the service drains."""

import asyncio

import pytest

from shared.errors import EventException
from shared.rpc.drain import Drain


async def requests_of(queue: asyncio.Queue):
    """Yield what is put into the queue, until None."""
    while (request := await queue.get()) is not None:
        yield request


async def test_requests_pass_until_the_stream_ends():
    """Without a drain nothing is added and nothing is lost."""
    queue: asyncio.Queue = asyncio.Queue()
    for request in (1, 2, 3, None):
        queue.put_nowait(request)
    assert [request async for request in Drain().until_begun(requests_of(queue))] == [1, 2, 3]


async def test_drain_ends_a_waiting_read():
    """A reader that waits for a request is let go when the drain begins; what came before was yielded."""
    drain = Drain()
    queue: asyncio.Queue = asyncio.Queue()
    queue.put_nowait(1)
    read = []

    async def reader() -> None:
        async for request in drain.until_begun(requests_of(queue)):
            read.append(request)  # noqa: PERF401 — seen while it still reads

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(reader())
        while not drain._reads or not read:  # noqa: ASYNC110 — there is no event for "now reads"
            await asyncio.sleep(0)
        drain.begin()
        drain.begin()
    assert read == [1]
    assert task.cancelling() == 0
    assert drain.begun


async def test_drain_does_not_disturb_a_reader_at_work():
    """A reader that works on a request when the drain begins finishes it, and reads no more."""
    drain = Drain()
    queue: asyncio.Queue = asyncio.Queue()
    for request in (1, 2, None):
        queue.put_nowait(request)
    done = []
    async for request in drain.until_begun(requests_of(queue)):
        drain.begin()
        await asyncio.sleep(0)
        done.append(request)
    assert done == [1]


async def test_errors_of_the_stream_pass():
    """A TimeoutError or another error of the stream itself is not taken for a drain."""

    async def failing(error: Exception):
        yield 1
        raise error

    for error in (TimeoutError("read"), ValueError("bad")):
        with pytest.raises(type(error), match=str(error)):
            async for _ in Drain().until_begun(failing(error)):
                pass


async def test_cancellation_is_not_swallowed():
    """A reader that is cancelled ends cancelled, with or without a drain."""
    drain = Drain()

    async def reader() -> None:
        async for _ in drain.until_begun(requests_of(asyncio.Queue())):
            pass

    task = asyncio.create_task(reader())
    while not drain._reads:  # noqa: ASYNC110 — there is no event for "now reads"
        await asyncio.sleep(0)
    task.cancel()
    drain.begin()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not drain._reads


async def test_calls_are_refused_at_once_or_when_they_are_released():
    """Before the hold a call is refused as it comes; during it calls wait for the release."""
    drain = Drain()
    drain.begin()
    with pytest.raises(EventException, match="the service is shutting down"):
        await drain.refuse("the service")
    held = []

    async def come() -> None:
        held.append(1)
        with pytest.raises(EventException) as caught:
            await drain.refuse("the service")
        assert caught.value.reason == "SERVER_DRAINING"
        held.remove(1)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        holding = group.create_task(drain.hold(0.01))
        await asyncio.sleep(0)
        for _ in range(3):
            group.create_task(come())
        await holding
        assert len(held) == 3
        drain.release()
    assert held == []
