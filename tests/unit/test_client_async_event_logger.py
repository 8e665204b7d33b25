"""AsyncEventLogger: the same as EventLogger, in asyncio's way of waiting."""

import asyncio
import gc

import grpc
import pytest

from shared.client import AsyncEventLogger, BackOff, Durability, LoggerOptions, OverflowPolicy
from shared.config import EventConfig, IngestConfig, LoggingConfig
from shared.errors import BufferFull, EventStorageException, EventValidationException, StorageUnavailable
from shared.events import Event
from tests.support.fake_ingest import FakeIngest, Fault, serving

QUICK = BackOff(first_s=0.01, max_s=0.05)


@pytest.fixture
def ingest():
    return FakeIngest()


@pytest.fixture
def make_logger(ingest):
    with serving(ingest) as address:

        def make(*, address=address, buffer_size=10_000, flush_interval=1.0, async_writes=True, **options):
            config = EventConfig(
                logging=LoggingConfig(
                    buffer_size=buffer_size, flush_interval=flush_interval, async_writes=async_writes
                ),
                ingest=IngestConfig(listen=address),
            )
            return AsyncEventLogger(config, LoggerOptions(**{"back_off": QUICK, "close_timeout_s": 5.0, **options}))

        yield make


async def wait_until(holds, *, timeout_s=10.0):
    """Wait for a condition; fails after the time."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 — any condition
            await asyncio.sleep(0.002)


async def test_log_returns_the_id_of_an_acknowledged_event(ingest, make_logger):
    """Awaiting log() is awaiting the acknowledgement."""
    async with make_logger(version="2.0", tags=("prod",)) as logger:
        first = await logger.log("user.action", {"action": "login"}, source="auth", user="u1", tags=["eu"])
        second = await logger.log("user.action", {})
    assert first < second
    event = ingest.events[0]
    assert (event.source, event.metadata.user, event.metadata.version) == ("auth", "u1", "2.0")
    assert list(event.metadata.tags) == ["prod", "eu"]


async def test_tasks_share_requests(ingest, make_logger):
    """While one request is under way the events of all tasks gather for the next."""
    async with make_logger() as logger:
        ingest.gate.clear()
        first = asyncio.create_task(logger.log("first", {}))
        await wait_until(lambda: len(ingest.requests) == 1)
        others = [asyncio.create_task(logger.log(f"t{number}", {})) for number in range(20)]
        await wait_until(lambda: logger.statistics().waiting_events == 20)
        ingest.gate.set()
        await asyncio.gather(first, *others)
    assert [len(request.events) for request in ingest.requests] == [1, 20]
    assert ingest.types() == ["first", *(f"t{number}" for number in range(20))]


async def test_retry_after_a_lost_answer_logs_once(ingest, make_logger):
    """The retry of a request that was logged gets the first ids."""
    ingest.script = [Fault(logged=True, error=grpc.StatusCode.UNAVAILABLE), Fault(logged=True)]
    async with make_logger(request_timeout_s=0.2) as logger:
        await logger.log("a", {})
        assert ingest.types() == ["a"]
        assert logger.statistics().duplicate_events == 1


async def test_correlation_is_inherited_by_tasks(ingest, make_logger):
    """Code and tasks inside the scope inherit the id; a nearer one wins; outside there is none."""
    async with make_logger() as logger:

        async def nested():
            await logger.log("nested", {})
            async with logger.with_correlation("inner") as inner:
                await asyncio.gather(inner.log("in.inner", {}), logger.log("in.inner.too", {}))

        with logger.with_correlation("session_abc") as context:
            await context.log("direct", {})
            await asyncio.create_task(nested())
            await logger.log("explicit", {}, correlation_id="mine")
        await logger.log("outside", {})
    found = {event.type: event.correlation_id for event in ingest.events}
    assert found == {
        "direct": "session_abc",
        "nested": "session_abc",
        "in.inner": "inner",
        "in.inner.too": "inner",
        "explicit": "mine",
        "outside": "",
    }


async def test_buffered_events_are_sent_by_flush_and_close(ingest, make_logger):
    """flush() waits for what is buffered, close() too."""
    logger = make_logger(flush_interval=3600.0)
    handle = await logger.log_buffered("a", {})
    assert not handle.done()
    await logger.flush(10.0)
    assert handle.result().startswith("evt_")
    await logger.log_buffered("b", {})
    await logger.close()
    await logger.close()
    assert ingest.types() == ["a", "b"]
    with pytest.raises(EventStorageException, match="closed"):
        await logger.log("c", {})


async def test_full_buffer_blocks_the_task_only(ingest, make_logger):
    """BLOCK: a task waits for space while the loop goes on, and order is kept."""
    async with make_logger(buffer_size=2, flush_interval=0.0) as logger:
        ingest.gate.clear()
        await logger.log_buffered("e0", {})
        await wait_until(lambda: len(ingest.requests) == 1)
        await logger.log_buffered("e1", {})
        await logger.log_buffered("e2", {})
        late = asyncio.create_task(logger.log_buffered("e3", {}))
        done, _ = await asyncio.wait([late], timeout=0.1)
        assert not done
        ingest.gate.set()
        await (await late)
    assert ingest.types() == ["e0", "e1", "e2", "e3"]


async def test_full_buffer_raises_or_drops(ingest, make_logger):
    """RAISE and the dropping policies do as in the threaded form."""
    for policy in (OverflowPolicy.RAISE, OverflowPolicy.DROP_NEWEST, OverflowPolicy.DROP_OLDEST):
        ingest.gate.clear()
        seen = len(ingest.requests)
        async with make_logger(buffer_size=1, flush_interval=0.0, overflow_policy=policy) as logger:
            await logger.log_buffered("under.way", {})
            await wait_until(lambda seen=seen: len(ingest.requests) == seen + 1)
            oldest = await logger.log_buffered("oldest", {})
            if policy is OverflowPolicy.RAISE:
                with pytest.raises(BufferFull):
                    await logger.log_buffered("newest", {})
            else:
                newest = await logger.log_buffered("newest", {})
                lost = newest if policy is OverflowPolicy.DROP_NEWEST else oldest
                with pytest.raises(BufferFull):
                    await lost
                assert logger.statistics().dropped_events == 1
            ingest.gate.set()


async def test_failure_that_nobody_asks_for_is_reported_once(ingest, make_logger, caplog):
    """A buffered event that fails is warned of by the logger, and asyncio does not complain of its future."""
    ingest.refused_types = {"bad"}
    told = []
    async with make_logger(flush_interval=0.0, on_lost=lambda count, error: told.append(error)) as logger:
        await logger.log_buffered("bad", {})
        await wait_until(lambda: told)
    gc.collect()
    assert "1 events were not logged" in caplog.text
    assert "never retrieved" not in caplog.text


async def test_invalid_event_fails_its_own_caller(ingest, make_logger):
    """A batch is refused as a whole; the event that shared its request is logged."""
    ingest.refused_types = {"bad"}
    async with make_logger() as logger:
        other = await logger.log_buffered("other", {})
        with pytest.raises(EventValidationException, match=r"events\[1\]\.type"):
            await logger.log_batch([Event(type="good"), Event(type="bad")])
        assert await other
        assert await logger.log_batch([]) == []
        assert len(await logger.log_batch([Event(type="x"), Event(type="y")])) == 2
    assert ingest.types() == ["other", "x", "y"]


async def test_cancelled_caller_has_not_called_its_event_back(ingest, make_logger):
    """Cancelling a task that waits leaves the event on its way, and the logger well."""
    async with make_logger() as logger:
        ingest.gate.clear()
        task = asyncio.create_task(logger.log("a", {}))
        await wait_until(lambda: len(ingest.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ingest.gate.set()
        await logger.log("b", {})
    assert ingest.types() == ["a", "b"]


async def test_flush_and_close_are_bounded(ingest, make_logger):
    """A service that hangs keeps neither flush() nor close() for ever; the events fail."""
    ingest.gate.clear()
    logger = make_logger()
    handle = await logger.log_buffered("a", {})
    with pytest.raises(StorageUnavailable, match="1 events were not acknowledged"):
        await logger.flush(0.05)
    with pytest.raises(StorageUnavailable, match="1 events not acknowledged"):
        await logger.close(0.05)
    with pytest.raises(StorageUnavailable):
        await handle


async def test_flush_makes_the_service_sync_what_it_only_buffered(ingest, make_logger):
    """With BUFFERED durability flush() asks the service to sync."""
    async with make_logger(durability=Durability.BUFFERED) as logger:
        await logger.log("a", {})
        await logger.flush(10.0)
    assert ingest.flushes == 1


async def test_without_async_writes_nothing_stays_buffered(ingest, make_logger):
    """async_writes off: log_buffered() returns when its event is acknowledged."""
    async with make_logger(async_writes=False, flush_interval=3600.0) as logger:
        assert (await logger.log_buffered("a", {})).done()


async def test_errors_are_logged_with_their_traceback(ingest, make_logger):
    """log_error records the exception; log_structured refuses a payload without its schema's fields."""
    async with make_logger() as logger:
        try:
            int("x")
        except ValueError as error:
            await logger.log_error(error, context={"page": 3})
        with pytest.raises(EventValidationException, match="duration_ms"):
            await logger.log_structured("pipeline.stage.completed", {"stage": "extraction"})
        logger.register_schema("page.read", dict[str, int])
        await logger.log_structured("page.read", {"page": 3})
    assert ingest.types() == ["error.exception", "page.read"]
    assert "ValueError" in ingest.events[0].payload_json


def test_logger_belongs_to_one_loop(ingest, make_logger):
    """Using it in a second loop is an error that says so, not a hang."""
    logger = make_logger()

    async def use():
        await logger.log("a", {})

    async def use_and_close():
        await use()
        await logger.close()

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(use())
        with pytest.raises(EventStorageException, match="another event loop"):
            second.run(use())
        first.run(use_and_close())


def test_loop_that_ends_before_close_fails_what_is_buffered(ingest, make_logger, caplog):
    """Events left in a loop that ends are reported, not forgotten."""
    handles = []

    async def forget():
        handles.append(await make_logger(flush_interval=3600.0).log_buffered("a", {}))
        await asyncio.sleep(0)

    asyncio.run(forget())
    assert isinstance(handles[0].exception(), StorageUnavailable)
    assert "1 events were not logged" in caplog.text
