"""EventBus: what is emitted is logged, and reaches the handlers, whatever they do."""

import asyncio
import threading

import pytest

from shared.client import EventBus, EventLogger, LoggerOptions, OverflowPolicy
from shared.client.correlation import current_correlation_id
from shared.config import EventConfig, IngestConfig, LoggingConfig
from shared.errors import BufferFull, EventStorageException, EventValidationException
from tests.support.fake_ingest import FakeIngest, serving


@pytest.fixture
def ingest():
    return FakeIngest()


@pytest.fixture
def logger(ingest):
    with serving(ingest) as address:
        config = EventConfig(logging=LoggingConfig(flush_interval=0.0), ingest=IngestConfig(listen=address))
        with EventLogger(config) as logger:
            yield logger
            ingest.gate.set()


@pytest.fixture
def bus(logger):
    with EventBus(logger, source="tests", queue_events_max=8, threads_max=2) as bus:
        yield bus


def settle(bus, logger):
    """Wait until handlers and logger have done everything."""
    assert bus.drain(10.0)
    logger.flush(10.0)


def test_emitted_event_is_logged_and_handled(ingest, logger, bus):
    """emit() logs the event and calls the handlers whose pattern matches its type."""
    seen = []
    bus.on("pipeline.*", lambda event: seen.append(("pipeline.*", event.type, dict(event.data))))
    bus.on("*", lambda event: seen.append(("*", event.type, dict(event.data))))
    bus.on("hook.?", lambda event: seen.append(("hook.?", event.type, dict(event.data))))
    bus.emit("pipeline.started", {"items": 3})
    settle(bus, logger)
    assert sorted(seen) == [("*", "pipeline.started", {"items": 3}), ("pipeline.*", "pipeline.started", {"items": 3})]
    assert ingest.types() == ["pipeline.started"]
    assert ingest.events[0].source == "tests"


def test_failing_handler_disturbs_nobody(ingest, logger, bus, caplog):
    """What one handler raises reaches neither the emitter, the log, the other handlers nor its own next event."""
    seen = []

    @bus.on("*")
    def broken(event):
        seen.append(("broken", event.type))
        raise SystemExit

    @bus.on("*")
    async def broken_too(event):
        seen.append(("broken_too", event.type))
        raise RuntimeError

    @bus.on("*")
    def well(event):
        seen.append(("well", event.type))

    bus.emit("a", {})
    bus.emit("b", {})
    settle(bus, logger)
    assert sorted(seen) == [(name, kind) for name in ("broken", "broken_too", "well") for kind in ("a", "b")]
    statistics = bus.statistics().handlers
    assert (statistics.handled, statistics.failed) == (2, 4)
    assert ingest.types() == ["a", "b"]
    assert "failed at an event of type 'a'" in caplog.text


def test_each_handler_gets_its_events_in_order(logger, bus):
    """Order holds for plain functions and coroutine functions, from the first to the last event."""
    plain, asynchronous = [], []

    async def record(event):
        await asyncio.sleep(0)
        asynchronous.append(event.data["n"])

    bus.on("n", lambda event: plain.append(event.data["n"]))
    bus.on("n", record)
    for number in range(200):
        bus.emit("n", {"n": number})
        if number % 4 == 3:
            assert bus.drain(10.0)  # or the bounded queues would drop some
    settle(bus, logger)
    assert plain == asynchronous == list(range(200))


def test_slow_handler_misses_the_oldest_events_and_delays_nobody(ingest, logger, bus):
    """A handler that hangs has a bounded queue; emitter, log and other handlers go on."""
    release, started = threading.Event(), threading.Event()
    slow, quick = [], []

    def hang(event):
        started.set()
        release.wait()
        slow.append(event.data["n"])

    bus.on("n", hang)
    bus.emit("n", {"n": 0})
    assert started.wait(10.0)
    quick_subscription = bus.on("n", lambda event: quick.append(event.data["n"]))
    for number in range(1, 21):
        bus.emit("n", {"n": number})
        assert quick_subscription.wait_idle(10.0)
    assert quick == list(range(1, 21))
    assert bus.statistics().handlers.dropped == 12
    release.set()
    settle(bus, logger)
    assert slow == [0, *range(13, 21)]
    assert len(ingest.types()) == 21


def test_handler_may_emit(ingest, logger, bus):
    """An event emitted by a handler is logged and handled like any other."""
    seen = []
    bus.on("first", lambda event: bus.emit("second", {"because": event.type}))
    bus.on("second", lambda event: seen.append(event.data["because"]))
    bus.emit("first", {})
    assert bus.drain(10.0)
    settle(bus, logger)
    assert seen == ["first"]
    assert ingest.types() == ["first", "second"]


def test_handler_that_emits_its_own_type_does_not_stop_the_bus(logger, ingest):
    """An endless chain of events neither deadlocks nor grows; closing ends it."""
    reached = threading.Event()
    count = []
    with EventBus(logger, queue_events_max=2) as bus:

        def again(event):
            count.append(1)
            if len(count) >= 50:
                reached.set()
                return
            bus.emit("again", {})
            bus.emit("again", {})

        bus.on("again", again)
        bus.emit("again", {})
        assert reached.wait(10.0)
        assert bus.drain(10.0)
        assert bus.statistics().handlers.dropped > 0


def test_handlers_inherit_the_emitters_correlation(ingest, logger, bus):
    """What a handler logs belongs to the chain of the event that it handles."""
    seen = []

    async def record(event):
        seen.append(("async", event.correlation_id, current_correlation_id()))

    def log(event):
        seen.append(("sync", event.correlation_id, current_correlation_id()))
        logger.log("from.handler", {})

    bus.on("a", log)
    bus.on("a", record)
    with logger.with_correlation("chain-1"):
        bus.emit("a", {})
    settle(bus, logger)
    assert sorted(seen) == [("async", "chain-1", "chain-1"), ("sync", "chain-1", "chain-1")]
    assert {event.type: event.correlation_id for event in ingest.events} == {"a": "chain-1", "from.handler": "chain-1"}


def test_off_ends_delivery(logger, bus):
    """off() takes a subscription or all those of a handler, and says how many."""
    seen = []
    subscription = bus.on("a", seen.append)
    bus.on("b", seen.append)
    bus.emit("a", {})
    settle(bus, logger)
    assert bus.off(subscription) == 1
    assert bus.off(subscription) == 0
    bus.emit("a", {})
    bus.emit("b", {})
    settle(bus, logger)
    assert [event.type for event in seen] == ["a", "b"]
    assert bus.off(seen.append) == 1
    bus.emit("b", {})
    settle(bus, logger)
    assert len(seen) == 2
    assert bus.statistics().handlers.handled == 2


def test_subscription_may_be_taken_off_in_a_handler(logger, bus):
    """A handler that wants one event only can say so."""
    seen = []

    def once(event):
        seen.append(event.type)
        bus.off(once)

    bus.on("*", once)
    bus.emit("a", {})
    assert bus.drain(10.0)
    bus.emit("b", {})
    settle(bus, logger)
    assert seen == ["a"]


def test_handlers_cannot_change_each_others_data(logger, bus):
    """The data is read-only, and what the emitter does to its dict afterwards is not seen."""
    seen = []

    def change(event):
        event.data["n"] = 2

    bus.on("a", change)
    release = threading.Event()

    def record(event):
        release.wait()
        seen.append(event.data["n"])

    bus.on("a", record)
    data = {"n": 1}
    bus.emit("a", data)
    data["n"] = 3
    release.set()
    settle(bus, logger)
    assert seen == [1]
    assert bus.statistics().handlers.failed == 1


def test_object_and_plain_function_that_return_coroutines_are_awaited(logger, bus):
    """Whatever is awaitable is awaited."""
    seen = []

    class Handler:
        async def __call__(self, event):
            seen.append("object")

    async def inner():
        seen.append("function")

    bus.on("a", Handler())
    bus.on("a", lambda _event: inner())
    bus.emit("a", {})
    settle(bus, logger)
    assert sorted(seen) == ["function", "object"]


def test_asynchronous_handler_runs_in_the_loop_where_it_was_registered(logger, bus):
    """A handler may use what belongs to its loop."""

    async def main():
        seen = asyncio.Queue()

        async def record(event):
            await seen.put((event.type, asyncio.get_running_loop() is loop))

        loop = asyncio.get_running_loop()
        subscription = bus.on("a", record)
        bus.emit("a", {})
        async with asyncio.timeout(10):
            result = await seen.get()
        bus.off(subscription)
        return result

    assert asyncio.run(main()) == ("a", True)
    settle(bus, logger)


def test_handler_of_a_loop_that_ended_is_given_up(logger, bus, caplog):
    """A handler whose loop is closed fails, and the bus goes on."""

    async def record(event):
        pass

    async def register():
        bus.on("a", record)

    asyncio.run(register())
    bus.emit("a", {})
    settle(bus, logger)
    assert bus.statistics().handlers.failed == 1
    assert "closed event loop" in caplog.text


def test_what_cannot_be_logged_is_not_handled(ingest, logger, bus):
    """An event that the logger refuses raises in emit(), and no handler sees it."""
    seen = []
    bus.on("*", seen.append)
    with pytest.raises(EventValidationException):
        bus.emit("a", {"x": {1, 2}})
    settle(bus, logger)
    assert seen == []


def test_full_buffer_of_the_logger_reaches_the_emitter(ingest):
    """The logger's overflow policy applies to emit()."""
    ingest.gate.clear()
    with serving(ingest) as address:
        config = EventConfig(
            logging=LoggingConfig(buffer_size=1, flush_interval=0.0), ingest=IngestConfig(listen=address)
        )
        options = LoggerOptions(overflow_policy=OverflowPolicy.RAISE)
        with EventLogger(config, options) as logger, EventBus(logger) as bus:
            bus.emit("a", {})
            assert ingest.received.acquire(timeout=10)
            bus.emit("b", {})
            with pytest.raises(BufferFull):
                bus.emit("c", {})
            ingest.gate.set()


def test_closed_bus_refuses_events_and_handlers(logger):
    """After close() emit() and on() raise; closing again does nothing."""
    bus = EventBus(logger)
    bus.on("a", lambda event: None)
    bus.emit("a", {})
    bus.close()
    bus.close()
    with pytest.raises(EventStorageException, match="closed"):
        bus.emit("a", {})
    with pytest.raises(EventStorageException, match="closed"):
        bus.on("a", lambda event: None)
    assert bus.statistics().handlers.handled == 1


def test_close_leaves_no_threads(logger):
    """Every thread that the bus started ends with it."""
    before = set(threading.enumerate())
    bus = EventBus(logger)

    async def record(event):
        pass

    bus.on("a", lambda event: None)
    bus.on("a", record)
    bus.emit("a", {})
    bus.close()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if "handler" in name}
