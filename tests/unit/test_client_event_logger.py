"""EventLogger before a service that fails in ways in which the real one cannot be made to fail."""

import contextlib
import datetime as dt
import logging
import subprocess
import sys
import textwrap
import threading
import time

import grpc
import pytest

from shared.client import BackOff, Durability, EventLogger, LoggerOptions, OverflowPolicy
from shared.config import EventConfig, IngestConfig, LoggingConfig
from shared.errors import (
    BufferFull,
    EventConfigException,
    EventStorageException,
    EventValidationException,
    StorageUnavailable,
)
from shared.events import Event, ExactEvent
from tests.support.fake_ingest import FakeIngest, Fault, serving, wait_until

QUICK = BackOff(first_s=0.01, max_s=0.05)
DRAINING = EventStorageException("draining", reason="SERVER_DRAINING")


@pytest.fixture
def ingest():
    return FakeIngest()


@pytest.fixture
def make_logger(ingest):
    """Makes loggers that are closed at the end, whatever state they are in."""
    loggers = []
    with serving(ingest) as address:

        def make(*, address=address, buffer_size=10_000, flush_interval=1.0, async_writes=True, **options):
            config = EventConfig(
                logging=LoggingConfig(
                    buffer_size=buffer_size, flush_interval=flush_interval, async_writes=async_writes
                ),
                ingest=IngestConfig(listen=address),
            )
            logger = EventLogger(config, LoggerOptions(**{"back_off": QUICK, "close_timeout_s": 2.0, **options}))
            loggers.append(logger)
            return logger

        yield make
        ingest.script.clear()
        ingest.gate.set()
        for logger in loggers:
            with contextlib.suppress(StorageUnavailable):
                logger.close(2.0)


def test_retry_after_a_lost_answer_logs_once(ingest, make_logger):
    """The service logged the event, its answer was lost: the retry gets the first id, the event is there once."""
    ingest.script = [Fault(logged=True, error=grpc.StatusCode.UNAVAILABLE) for _ in range(3)]
    logger = make_logger()
    first = logger.log("a", {})
    second = logger.log("b", {})
    assert ingest.types() == ["a", "b"]
    assert first < second
    assert {request.request_id for request in ingest.requests[:4]} == {ingest.requests[0].request_id}
    statistics = logger.statistics()
    assert (statistics.duplicate_events, statistics.retries, statistics.logged_events) == (1, 3, 2)


def test_retry_after_a_call_that_hangs(ingest, make_logger):
    """An attempt that is not answered ends after request_timeout_s and is repeated."""
    ingest.script = [Fault(), Fault(logged=True)]
    logger = make_logger(request_timeout_s=0.2)
    logger.log("a", {})
    assert ingest.types() == ["a"]
    assert logger.statistics().retries == 2


@pytest.mark.parametrize(
    "error",
    [
        DRAINING,
        BufferFull("full"),
        StorageUnavailable("disk"),
        BufferFull("queue", reason="APPEND_QUEUE_FULL"),
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
    ids=str,
)
def test_passing_error_is_retried(ingest, make_logger, error):
    """Whatever may pass is tried again, and the caller notices only a delay."""
    if not isinstance(error, grpc.StatusCode):
        error.retry_delay_s = 0.01
    ingest.script = [Fault(error=error)]
    logger = make_logger()
    assert logger.log("a", {}).startswith("evt_")
    assert ingest.types() == ["a"]


def test_retry_waits_as_the_service_asks(ingest, make_logger):
    """RetryInfo sets the pause between two attempts."""
    asked = BufferFull("full")
    asked.retry_delay_s = 0.4
    ingest.script = [Fault(error=asked)]
    started = time.monotonic()
    make_logger().log("a", {})
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED]
)
def test_final_error_fails_at_once(ingest, make_logger, code):
    """What no repetition would mend is not repeated, and the logger goes on with the next event."""
    ingest.script = [Fault(error=code)]
    logger = make_logger()
    with pytest.raises(Exception, match="as the script says"):
        logger.log("a", {})
    assert len(ingest.requests) == 1
    assert logger.log("b", {})
    assert logger.statistics().failed_events == 1


def test_giving_up_fails_the_waiting_caller(make_logger):
    """Without a service log() raises StorageUnavailable after give_up_after_s, and says how to tell what happened."""
    logger = make_logger(address="127.0.0.1:1", give_up_after_s=0.3)
    with pytest.raises(StorageUnavailable, match="gave up after"):
        logger.log("a", {})


def test_events_logged_while_the_service_is_down_arrive_when_it_is_up(ingest, make_logger):
    """A service that comes late, or comes back, gets everything, in order."""
    with serving(FakeIngest()) as address:
        pass  # the port is free now, and stays ours in practice
    logger = make_logger(address=address, flush_interval=0.0)
    handles = [logger.log_buffered(f"event.{number}", {}) for number in range(100)]
    wait_until(lambda: logger.statistics().retries > 0)
    late = FakeIngest()
    with serving(late, address):
        logger.flush(20.0)
        assert all(handle.done() for handle in handles)
        assert late.types() == [f"event.{number}" for number in range(100)]
        logger.close()


def test_order_of_each_thread_is_kept_through_failures(ingest, make_logger):
    """Many threads, and calls that fail before and after logging: each thread's events are there once, in its order."""
    faults = [None, DRAINING, grpc.StatusCode.UNAVAILABLE]
    ingest.script = [
        Fault(logged=number % 2 == 0, error=faults[number % 3] or grpc.StatusCode.UNKNOWN) for number in range(60)
    ]
    for fault in ingest.script:
        if isinstance(fault.error, EventStorageException):
            fault.error.retry_delay_s = 0.001
    logger = make_logger(request_events_max=7, buffer_size=50)

    def produce(name):
        for number in range(100):
            if number % 10 == 9:
                logger.log(f"{name}.{number}", {})
            else:
                logger.log_buffered(f"{name}.{number}", {})

    threads = [threading.Thread(target=produce, args=(f"thread{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.flush(20.0)
    types = ingest.types()
    for index in range(8):
        mine = [each for each in types if each.startswith(f"thread{index}.")]
        assert mine == [f"thread{index}.{number}" for number in range(100)]
    assert logger.statistics().logged_events == 800


def test_invalid_event_fails_alone(ingest, make_logger):
    """One event of a shared request is refused: its caller is told, the events of the others are logged."""
    ingest.refused_types = {"bad"}
    logger = make_logger(flush_interval=60.0)
    before = logger.log_buffered("good.1", {})
    bad = logger.log_buffered("bad", {})
    batch_ids = logger.log_batch([Event(type="good.2"), Event(type="good.3")])
    with pytest.raises(EventValidationException) as caught:
        bad.result(0)
    assert [violation.field for violation in caught.value.violations] == ["type"]
    assert before.result(0) < batch_ids[0] < batch_ids[1]
    assert ingest.types() == ["good.1", "good.2", "good.3"]


def test_batch_with_an_invalid_event_is_not_logged_at_all(ingest, make_logger):
    """A batch is whole or absent, and the violation names the event's index in it."""
    ingest.refused_types = {"bad"}
    logger = make_logger(flush_interval=60.0)
    other = logger.log_buffered("other", {})
    with pytest.raises(EventValidationException) as caught:
        logger.log_batch([Event(type="good"), Event(type="bad")])
    assert [violation.field for violation in caught.value.violations] == ["events[1].type"]
    other.result(5.0)
    assert ingest.types() == ["other"]


def test_service_with_smaller_bounds_gets_smaller_requests(ingest, make_logger):
    """BATCH_TOO_LARGE of a background request divides it; nothing is lost or reordered."""
    ingest.batch_events_max = 10
    logger = make_logger(flush_interval=60.0)
    for number in range(200):
        logger.log_buffered(f"event.{number}", {})
    logger.flush(20.0)
    assert ingest.types() == [f"event.{number}" for number in range(200)]


def test_blocking_call_does_not_wait_for_the_flush_interval(ingest, make_logger):
    """Somebody who waits is served at once, whatever flush_interval says, and takes along what is buffered."""
    logger = make_logger(flush_interval=3600.0)
    logger.log_buffered("buffered", {})
    logger.log("awaited", {})
    assert ingest.types() == ["buffered", "awaited"]
    assert len(ingest.requests) == 1


def test_buffered_event_is_sent_after_the_flush_interval(ingest, make_logger):
    """An event that nobody waits for is sent by itself."""
    logger = make_logger(flush_interval=0.05)
    assert logger.log_buffered("a", {}).result(10.0)
    assert logger.log_buffered("b", {}).result(10.0)


def test_threads_share_requests(ingest, make_logger):
    """While one request is under way the events of all threads gather for the next: group commit."""
    logger = make_logger()
    ingest.gate.clear()
    threads = [threading.Thread(target=logger.log, args=(f"t{number}", {})) for number in range(20)]
    threads[0].start()
    assert ingest.received.acquire(timeout=10)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: logger.statistics().waiting_events == 19)
    ingest.gate.set()
    for thread in threads:
        thread.join()
    assert [len(request.events) for request in ingest.requests] == [1, 19]


def held(ingest, make_logger, policy, **options):
    """A logger with two events under way or waiting, and a buffer for two more that is full."""
    ingest.gate.clear()
    logger = make_logger(buffer_size=2, flush_interval=0.0, overflow_policy=policy, **options)
    handles = [logger.log_buffered("under.way", {})]
    assert ingest.received.acquire(timeout=10)
    handles += [logger.log_buffered(f"waiting.{number}", {}) for number in range(2)]
    return logger, handles


def test_full_buffer_blocks_the_caller_until_there_is_space(ingest, make_logger):
    """BLOCK: the caller waits, and nothing is lost."""
    logger, _ = held(ingest, make_logger, OverflowPolicy.BLOCK)
    done = threading.Event()

    def produce():
        logger.log_buffered("late", {})
        done.set()

    thread = threading.Thread(target=produce)
    thread.start()
    assert not done.wait(0.1)
    ingest.gate.set()
    assert done.wait(10.0)
    thread.join()
    logger.flush(10.0)
    assert ingest.types() == ["under.way", "waiting.0", "waiting.1", "late"]


def test_full_buffer_raises(ingest, make_logger):
    """RAISE: the caller gets BufferFull, and goes on later."""
    logger, _ = held(ingest, make_logger, OverflowPolicy.RAISE)
    with pytest.raises(BufferFull, match="RAISE"):
        logger.log_buffered("too.much", {})
    ingest.gate.set()
    logger.flush(10.0)
    logger.log("later", {})
    assert "too.much" not in ingest.types()


@pytest.mark.parametrize(
    ("policy", "kept", "lost"),
    [
        (OverflowPolicy.DROP_OLDEST, ["waiting.1", "new"], 1),
        (OverflowPolicy.DROP_NEWEST, ["waiting.0", "waiting.1"], 3),
    ],
)
def test_dropped_events_are_counted_warned_of_and_told(ingest, make_logger, caplog, policy, kept, lost):
    """Dropping is never silent: statistics, a warning, on_lost and the event's own future tell it."""
    told = []
    with caplog.at_level(logging.WARNING):
        logger, handles = held(ingest, make_logger, policy, on_lost=lambda count, error: told.append((count, error)))
        handles.append(logger.log_buffered("new", {}))
    with pytest.raises(BufferFull, match=policy.name):
        handles[lost].result(0)
    ingest.gate.set()
    logger.flush(10.0)
    assert ingest.types() == ["under.way", *kept]
    assert logger.statistics().dropped_events == 1
    assert [(count, type(error)) for count, error in told] == [(1, BufferFull)]
    assert "1 events were not logged" in caplog.text


def test_on_lost_that_raises_disturbs_nobody(ingest, make_logger):
    """A faulty callback is logged and forgotten."""

    def broken(count, error):
        raise RuntimeError

    ingest.refused_types = {"bad"}
    logger = make_logger(on_lost=broken, flush_interval=0.0)
    with pytest.raises(EventValidationException):
        logger.log_buffered("bad", {}).result(10.0)
    assert logger.log("good", {})


def test_flush_raises_the_failure_of_what_it_waited_for(ingest, make_logger):
    """An error of a buffered event is not hidden by a flush that succeeds otherwise."""
    ingest.refused_types = {"bad"}
    logger = make_logger(flush_interval=60.0)
    logger.log_buffered("good", {})
    logger.log_buffered("bad", {})
    with pytest.raises(EventValidationException):
        logger.flush(10.0)
    logger.flush(10.0)
    assert ingest.types() == ["good"]


def test_flush_that_runs_out_of_time_says_so_and_loses_nothing(ingest, make_logger):
    """The events are still being sent after the error."""
    ingest.gate.clear()
    logger = make_logger()
    logger.log_buffered("a", {})
    with pytest.raises(StorageUnavailable, match="1 events were not acknowledged"):
        logger.flush(0.05)
    ingest.gate.set()
    logger.flush(10.0)
    assert ingest.types() == ["a"]


def test_flush_makes_the_service_sync_what_it_only_buffered(ingest, make_logger):
    """With BUFFERED durability an acknowledgement promises little: flush() asks the service to sync."""
    logger = make_logger(durability=Durability.BUFFERED)
    logger.log("a", {})
    logger.flush(10.0)
    assert ingest.flushes == 1
    durable = make_logger()
    durable.log("b", {})
    durable.flush(10.0)
    assert ingest.flushes == 1


def test_close_sends_what_is_buffered(ingest, make_logger):
    """Nothing that was handed over is forgotten by a clean end."""
    with make_logger(flush_interval=3600.0) as logger:
        for number in range(10):
            logger.log_buffered(f"event.{number}", {})
    assert len(ingest.types()) == 10
    logger.close()  # again: nothing to do


def test_close_is_bounded_and_tells_what_it_left(ingest, make_logger):
    """A service that hangs does not keep close() from ending; the events fail and are counted."""
    ingest.gate.clear()
    logger = make_logger()
    handle = logger.log_buffered("a", {})
    started = time.monotonic()
    with pytest.raises(StorageUnavailable, match="1 events not acknowledged"):
        logger.close(0.2)
    assert time.monotonic() - started < 5.0
    with pytest.raises(StorageUnavailable, match="may have been logged"):
        handle.result(0)


def test_closed_logger_refuses_events(make_logger):
    """Logging after close() is an error, also for a thread that waits for space while it closes."""
    logger = make_logger()
    logger.log("a", {})
    logger.close()
    for call in (logger.log, logger.log_buffered):
        with pytest.raises(EventStorageException, match="closed"):
            call("b", {})


def test_thread_that_waits_for_space_is_released_by_close(ingest, make_logger):
    """close() does not leave a blocked producer behind."""
    logger, _ = held(ingest, make_logger, OverflowPolicy.BLOCK)
    raised = []

    def produce():
        try:
            logger.log_buffered("late", {})
        except EventStorageException as error:
            raised.append(error)

    thread = threading.Thread(target=produce)
    thread.start()
    with pytest.raises(StorageUnavailable):
        logger.close(0.2)
    thread.join(10.0)
    assert len(raised) == 1


def test_without_async_writes_nothing_stays_buffered(ingest, make_logger):
    """async_writes off: log_buffered() too returns only when its event is acknowledged or has failed."""
    ingest.refused_types = {"bad"}
    logger = make_logger(async_writes=False, flush_interval=3600.0)
    assert logger.log_buffered("a", {}).done()
    assert logger.log_buffered("bad", {}).exception(0) is not None
    assert ingest.types() == ["a"]


def test_waiting_in_the_loggers_own_thread_is_refused(make_logger):
    """A callback of a future runs in the sending thread, where log() would wait for itself."""
    logger = make_logger(flush_interval=0.0)
    caught = []
    done = threading.Event()

    def callback(_future):
        try:
            logger.log("b", {})
        except EventStorageException as error:
            caught.append(error)
        finally:
            logger.log_buffered("c", {})
            done.set()

    logger.log_buffered("a", {}).add_done_callback(callback)
    assert done.wait(10.0)
    assert "log_buffered" in str(caught[0])
    logger.flush(10.0)


def test_answer_that_does_not_fit_the_request_is_an_error(ingest, make_logger, monkeypatch):
    """A proxy that answers nonsense does not make up ids."""
    original = FakeIngest._log

    def wrong(self, request, context):
        answer = original(self, request, context)
        answer.count += 1
        return answer

    monkeypatch.setattr(FakeIngest, "_log", wrong)
    with pytest.raises(EventStorageException, match="acknowledged 2 events"):
        make_logger().log("a", {})


def test_options_that_would_log_twice_are_refused():
    """A request may not be tried for longer than the service remembers its id; other values have ranges too."""
    config = EventConfig(ingest=IngestConfig(request_id_horizon=60.0))
    with pytest.raises(EventConfigException, match="log twice"):
        EventLogger(config)
    for wrong in ({"give_up_after_s": 0.0}, {"request_events_max": 10_001}, {"buffer_bytes_max": 0}):
        with pytest.raises(EventConfigException):
            LoggerOptions(**wrong)


def test_fork_in_the_middle_of_traffic_leaves_parent_and_child_well(ingest):
    """A fork while threads log: no child hangs, and the parent loses nothing."""
    with serving(ingest) as address:
        ended = run_program(
            """
            stop = threading.Event()
            counts = []

            def produce():
                count = 0
                while not stop.is_set():
                    logger.log("parent", {})
                    count += 1
                counts.append(count)

            threads = [threading.Thread(target=produce) for _ in range(4)]
            for thread in threads:
                thread.start()
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        logger.log("child", {})
                        logger.close()
                        code = 0
                    finally:
                        os._exit(code)
                assert os.waitpid(child, 0)[1] == 0
            stop.set()
            for thread in threads:
                thread.join()
            print(sum(counts))
            """,
            address,
        )
    assert ended.returncode == 0, ended.stderr
    assert ingest.types().count("child") == 5
    assert ingest.types().count("parent") == int(ended.stdout)


def test_fork_while_the_first_connection_is_made_leaves_the_child_well(ingest):
    """What the library of connections holds meanwhile is never held in a child, where nobody would give it back."""
    with serving(ingest) as address:
        ended = run_program(
            """
            from shared.client import transport
            connect, held = transport.connect_sync, threading.Lock()

            def slow(address):
                with held:
                    time.sleep(0.3)
                    return connect(address)

            transport.connect_sync = slow
            thread = threading.Thread(target=logger.log, args=("parent", {}))
            thread.start()
            while not held.locked() and thread.is_alive():
                time.sleep(0.001)
            child = os.fork()
            if child == 0:
                logger.log("child", {})
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            thread.join()
            """,
            address,
        )
    assert ended.returncode == 0, ended.stderr
    assert sorted(ingest.types()) == ["child", "parent"]


def test_unknown_keyword_is_refused(make_logger):
    """A misspelt keyword is an error, not a lost value."""
    with pytest.raises(TypeError, match="sesion_id"):
        make_logger().log("a", {}, sesion_id="x")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"event_type": ""}, "type"),
        ({"event_type": "a b"}, "type"),
        ({"event_type": "a" * 201}, "type"),
        ({"event_type": ".a"}, "type"),
        ({"source": "é" * 128}, "source"),
        ({"correlation_id": "x" * 256}, "correlation_id"),
        ({"user": "\ud800"}, "metadata.user"),
        ({"tags": [str(number) for number in range(65)]}, "metadata.tags"),
        ({"tags": "prod"}, "metadata.tags"),
        ({"payload": {"a": "x" * 2**20}}, "payload"),
        ({"payload": {"a": {1, 2}}}, "payload.a"),
    ],
)
def test_event_that_would_be_refused_is_refused_at_once(ingest, make_logger, arguments, field):
    """What the service would certainly refuse fails in the caller, also when nobody waits."""
    logger = make_logger()
    with pytest.raises(EventValidationException) as caught:
        logger.log_buffered(**{"event_type": "a", "payload": {}, **arguments})
    assert [violation.field for violation in caught.value.violations] == [field]
    assert logger.statistics().waiting_events == 0
    assert ingest.requests == []


def test_wrong_event_of_a_batch_is_named_by_its_index(ingest, make_logger):
    """A batch is checked before it is sent, each event by itself."""
    logger = make_logger()
    wrong = (
        (Event(type="b", payload={"x": {1}}), "events[1].payload.x"),
        (Event(type=""), "events[1].type"),
        (ExactEvent(type="b", payload_json='{"x": "\ud800"}'), "events[1].payload"),
        (Event(type="b", timestamp=dt.datetime(9000, 1, 1, tzinfo=dt.UTC)), "events[1].timestamp"),
    )
    for event, field in wrong:
        with pytest.raises(EventValidationException) as caught:
            logger.log_batch([Event(type="a"), event])
        assert [violation.field for violation in caught.value.violations] == [field]
    assert ingest.requests == []


def test_batch_that_is_too_large_says_so(make_logger):
    """More events than one request takes are refused before anything is sent."""
    with pytest.raises(EventValidationException, match="in parts") as caught:
        make_logger().log_batch([Event(type="a")] * 10_001)
    assert caught.value.reason == "BATCH_TOO_LARGE"


def run_program(program, address, *, exit_timeout_s=5.0):
    """Run a program that finds a logger named `logger`; returns the finished process."""
    prelude = f"""
        import os, sys, threading, time
        from shared.client import EventLogger, LoggerOptions
        from shared.config import EventConfig, IngestConfig, LoggingConfig
        config = EventConfig(ingest=IngestConfig(listen={address!r}), logging=LoggingConfig(flush_interval=3600))
        logger = EventLogger(config, LoggerOptions(exit_timeout_s={exit_timeout_s}))
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(program)],
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )


def test_interpreter_exit_sends_what_is_buffered(ingest):
    """A program that ends without close() loses nothing that it logged."""
    with serving(ingest) as address:
        ended = run_program("for n in range(10): logger.log_buffered(f'event.{n}', {})", address)
    assert ended.returncode == 0, ended.stderr
    assert ingest.types() == [f"event.{number}" for number in range(10)]


def test_interpreter_exit_is_bounded(ingest):
    """A service that hangs does not keep a program from ending; what is lost is warned of."""
    ingest.gate.clear()
    with serving(ingest) as address:
        started = time.monotonic()
        ended = run_program("logger.log_buffered('a', {})", address, exit_timeout_s=0.2)
        took_s = time.monotonic() - started
    assert ended.returncode == 0, ended.stderr
    assert "1 events were not logged" in ended.stderr
    assert took_s < 30


def test_child_process_gets_a_logger_of_its_own(ingest):
    """A child logs by itself, whether its parent logged before the fork or not, and forgets its parent's events."""
    with serving(ingest) as address:
        ended = run_program(
            """
            def in_child(function):
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        function()
                        code = 0
                    finally:
                        os._exit(code)
                assert os.waitpid(child, 0)[1] == 0

            def log():
                assert logger.statistics().waiting_events == 0
                logger.log("child", {})
                logger.close()

            in_child(log)
            logger.log("parent", {})
            logger.log_buffered("buffered", {})
            in_child(log)
            """,
            address,
        )
    assert ended.returncode == 0, ended.stderr
    assert ingest.types() == ["child", "parent", "child", "buffered"]
