"""The client before real services: what was acknowledged is in the log, once, in order, whatever happens between."""

import asyncio
import datetime as dt
import json
import os
import random
import signal
import socket
import threading

import grpc
import pytest
from eventlog.v1 import query_service_pb2, query_service_pb2_grpc

from shared.client import AsyncEventLogger, BackOff, Durability, EventBus, EventLogger, LoggerOptions
from shared.clock import SystemClock
from shared.config import EventConfig, IngestConfig, LoggingConfig
from shared.errors import EventValidationException
from shared.events import Event, EventMetadata, ExactEvent, parse_event_id
from tests.support.lossy_proxy import LossyProxy
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.cluster


class Cluster:
    """An ingest service on a port that it keeps when it restarts, and a query service."""

    def __init__(self, directory):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        storage = {"base_path": str(directory / "events"), "min_free_bytes": 0}
        addresses = {"listen": f"127.0.0.1:{port}"}
        self.ingest = ServiceProcess(
            "ingest_service", directory / "ingest", settings={"storage": storage, "ingest": addresses}
        )
        self.query = ServiceProcess("query_service", directory / "query", settings={"storage": storage})
        self.config = EventConfig(
            ingest=IngestConfig(listen=f"127.0.0.1:{port}"), logging=LoggingConfig(flush_interval=0.01)
        )

    def events(self):
        """Everything in the log, by position."""
        found, token = [], ""
        with grpc.insecure_channel(self.query.address) as channel:
            stub = query_service_pb2_grpc.QueryServiceStub(channel)
            while True:
                request = query_service_pb2.ListEventsRequest(page_size=10_000, page_token=token)
                answer = stub.ListEvents(request, timeout=30)
                found += answer.events
                token = answer.next_page_token
                if not token:
                    return found


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory):
    """One for the tests that do not disturb it."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    with cluster.ingest, cluster.query:
        yield cluster


@pytest.fixture
def cluster(tmp_path):
    """One of its own for a test that kills and stops."""
    cluster = Cluster(tmp_path)
    with cluster.ingest, cluster.query:
        yield cluster


@pytest.fixture
def logger(shared_cluster):
    with EventLogger(shared_cluster.config) as logger:
        yield logger


@pytest.fixture
def logged(shared_cluster):
    """Events added to the shared log since the test began."""
    before = len(shared_cluster.events())
    return lambda: shared_cluster.events()[before:]


def test_event_comes_back_as_it_was_logged(shared_cluster, logged):
    """Every field that the caller gave, and what the logger's options add, is in the log."""
    options = LoggerOptions(host="worker-01", version="1.2.3", session_id="s1", tags=("prod",), source="pipeline")
    happened = dt.datetime(2024, 1, 20, 10, 30, 0, 123456, tzinfo=dt.UTC)
    with EventLogger(shared_cluster.config, options) as logger:
        event_id = logger.log(
            "user.action",
            {"big": 2**70, "at": happened, "text": "grüße"},
            correlation_id="chain",
            timestamp=happened,
            user="u7",
            tags=["eu", "prod"],
        )
        logger.log("plain", {})
    event, plain = logged()
    assert event.id == event_id
    assert (event.type, event.source, event.correlation_id) == ("user.action", "pipeline", "chain")
    assert json.loads(event.payload_json) == {"big": 2**70, "at": "2024-01-20T10:30:00.123456Z", "text": "grüße"}
    assert event.timestamp.ToDatetime(dt.UTC) == happened
    metadata = event.metadata
    assert (metadata.host, metadata.version, metadata.user, metadata.session_id) == ("worker-01", "1.2.3", "u7", "s1")
    assert list(metadata.tags) == ["prod", "eu"]
    assert (plain.source, plain.metadata.session_id, list(plain.metadata.tags)) == ("pipeline", "s1", ["prod"])


def test_timestamp_is_when_the_event_was_logged_not_when_it_was_sent(shared_cluster, logged):
    """An event that waits in the buffer keeps the time of the call."""
    config = EventConfig(ingest=shared_cluster.config.ingest, logging=LoggingConfig(flush_interval=3600.0))
    with EventLogger(config) as logger:
        logger.log_buffered("a", {})
        called_ns = SystemClock().now_ns()
        threading.Event().wait(0.05)
    [event] = logged()
    assert event.timestamp.ToNanoseconds() <= called_ns < event.recorded_at.ToNanoseconds()


def test_threads_log_each_event_once_in_their_order(logger, logged):
    """Waiting and buffered events of many threads: each once, each thread's in its order, ids as in the log."""
    ids = {}

    def produce(name):
        handles = []
        for number in range(100):
            event_type = f"{name}.{number}"
            if number % 10 == 9:
                ids[event_type] = logger.log(event_type, {"n": number})
            else:
                handles.append((event_type, logger.log_buffered(event_type, {"n": number})))
        ids.update((event_type, handle.result()) for event_type, handle in handles)

    threads = [threading.Thread(target=produce, args=(f"thread{index}",)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = logged()
    assert {event.type: event.id for event in events} == ids
    assert len(events) == 1600
    for index in range(16):
        mine = [event.type for event in events if event.type.startswith(f"thread{index}.")]
        assert mine == [f"thread{index}.{number}" for number in range(100)]


def test_batch_gets_consecutive_positions(logger, logged):
    """log_batch is one unit: its ids follow each other also while other threads log."""
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            logger.log("noise", {})

    noise = [threading.Thread(target=disturb) for _ in range(4)]
    for thread in noise:
        thread.start()
    batches = [logger.log_batch([Event(type=f"b{number}", payload={"n": number})] * 50) for number in range(10)]
    stop.set()
    for thread in noise:
        thread.join()
    for ids in batches:
        positions = [parse_event_id(event_id)[1] for event_id in ids]
        assert positions == list(range(positions[0], positions[0] + 50))
    assert sum(event.type.startswith("b") for event in logged()) == 500


def test_batch_keeps_what_each_event_says(logger, logged):
    """An event's own fields win over the context's; exact events keep their JSON text."""
    own = Event(
        type="own",
        source="s",
        correlation_id="mine",
        timestamp=dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        metadata=EventMetadata(host="h", tags=["t"]),
    )
    exact = ExactEvent(type="exact", payload_json='{"a": 1.0, "b":1e2}', timestamp_ns=1_600_000_000_123_456_789)
    with logger.with_correlation("context") as context:
        context.log_batch([own, exact])
    first, second = logged()
    assert (first.source, first.correlation_id, first.metadata.host) == ("s", "mine", "h")
    assert first.timestamp.ToDatetime(dt.UTC).year == 2020
    assert (second.correlation_id, second.payload_json) == ("context", '{"a": 1.0, "b":1e2}')
    assert second.timestamp.ToNanoseconds() == 1_600_000_000_123_456_789


def test_correlation_reaches_nested_code_but_not_threads(logger, logged):
    """Nested calls inherit the id; a thread does not, unless it is given the contextual logger."""

    def nested():
        logger.log("nested", {})
        with logger.with_correlation("inner"):
            logger.log("innermost", {})

    with logger.with_correlation("session_abc") as context:
        nested()
        threads = [
            threading.Thread(target=logger.log, args=("thread.alone", {})),
            threading.Thread(target=context.log, args=("thread.given", {})),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    logger.with_correlation("direct").log("without.with", {})
    logger.log("outside", {})
    assert {event.type: event.correlation_id for event in logged()} == {
        "nested": "session_abc",
        "innermost": "inner",
        "thread.alone": "",
        "thread.given": "session_abc",
        "without.with": "direct",
        "outside": "",
    }


def test_structured_events_are_checked(logger, logged):
    """Standard and registered schemas hold for log_structured; what is wrong is named and not logged."""
    logger.log_structured("pipeline.stage.completed", {"stage": "extraction", "duration_ms": 12.5})
    with pytest.raises(EventValidationException) as caught:
        logger.log_structured("pipeline.stage.completed", {"stage": "extraction", "duration_ms": "long"})
    assert [violation.field for violation in caught.value.violations] == ["payload.duration_ms"]
    with pytest.raises(EventValidationException, match="no schema"):
        logger.log_structured("page.read", {"page": 1})
    logger.register_schema("page.read", dict[str, int])
    logger.log_structured("page.read", {"page": 1})
    assert [event.type for event in logged()] == ["pipeline.stage.completed", "page.read"]


def test_errors_are_logged_with_their_traceback(logger, logged):
    """log_error puts type, message, frames and causes into the payload."""
    try:
        try:
            int("x")
        except ValueError as error:
            raise RuntimeError("cannot load") from error
    except RuntimeError as error:
        logger.log_error(error, source="loader", context={"document": 7})
    logger.log_error("disk nearly full", event_type="error.disk")
    first, second = logged()
    payload = json.loads(first.payload_json)
    assert (first.type, first.source) == ("error.exception", "loader")
    assert (payload["error_type"], payload["message"]) == ("builtins.RuntimeError", "cannot load")
    assert payload["frames"][-1]["function"] == "test_errors_are_logged_with_their_traceback"
    assert payload["causes"][0]["error_type"] == "builtins.ValueError"
    assert payload["context"] == {"document": 7}
    assert (second.type, json.loads(second.payload_json)) == ("error.disk", {"message": "disk nearly full"})


def test_event_that_the_service_refuses_fails_alone(logger, logged):
    """A payload too deep for the service fails its caller; events that shared its request are logged."""
    deep: dict[str, object] = {}
    for _ in range(120):
        deep = {"a": deep}
    before = logger.log_buffered("before", {})
    bad = logger.log_buffered("bad", deep)
    after = logger.log_buffered("after", {})
    with pytest.raises(EventValidationException) as caught:
        bad.result(30)
    assert caught.value.violations[0].field.startswith("payload")
    assert before.result(30) < after.result(30)
    assert [event.type for event in logged()] == ["before", "after"]


def test_buffered_durability_is_made_durable_by_flush(shared_cluster, logged):
    """BUFFERED events are acknowledged from memory and are in the log after flush()."""
    with EventLogger(shared_cluster.config, LoggerOptions(durability=Durability.BUFFERED)) as logger:
        for number in range(100):
            logger.log(f"event.{number}", {})
        logger.flush(30)
        assert [event.type for event in logged()] == [f"event.{number}" for number in range(100)]


async def test_asyncio_tasks_log_each_event_once_in_their_order(shared_cluster, logged):
    """The asyncio form keeps the same promises."""
    async with AsyncEventLogger(shared_cluster.config) as logger:

        async def produce(name):
            async with logger.with_correlation(name):
                for number in range(50):
                    if number % 10 == 9:
                        await logger.log(f"{name}.{number}", {})
                    else:
                        await logger.log_buffered(f"{name}.{number}", {})

        await asyncio.gather(*(produce(f"task{index}") for index in range(16)))
    events = logged()
    assert len(events) == 800
    for index in range(16):
        mine = [event.type for event in events if event.correlation_id == f"task{index}"]
        assert mine == [f"task{index}.{number}" for number in range(50)]


def test_bus_logs_what_it_emits(logger, logged):
    """An emitted event is handled and in the log, a handler's failure notwithstanding."""
    seen = []
    with EventBus(logger) as bus:

        @bus.on("pipeline.*")
        def broken(event):
            seen.append(event.type)
            raise RuntimeError

        bus.emit("pipeline.started", {"items": 1})
        assert bus.drain(10)
    logger.flush(30)
    assert seen == ["pipeline.started"]
    assert [event.type for event in logged()] == ["pipeline.started"]


def produce_through(logger, disturb, *, threads=4, events=300):
    """Log from threads while `disturb` does its worst; returns ids by type, all acknowledged."""
    ids = {}

    def produce(name):
        handles = []
        for number in range(events):
            event_type = f"{name}.{number}"
            if number % 5 == 4:
                ids[event_type] = logger.log(event_type, {})
            else:
                handles.append((event_type, logger.log_buffered(event_type, {})))
        ids.update((event_type, handle.result()) for event_type, handle in handles)

    workers = [threading.Thread(target=produce, args=(f"thread{index}",)) for index in range(threads)]
    for worker in workers:
        worker.start()
    disturb(lambda: any(worker.is_alive() for worker in workers))
    for worker in workers:
        worker.join()
    assert len(ids) == threads * events
    return ids


def assert_logged_once_in_order(cluster, ids, *, threads=4, events=300):
    """Every acknowledged event is in the log under its id, once, and each thread's are in its order."""
    found = cluster.events()
    assert [event.position for event in found] == list(range(1, len(found) + 1))
    assert len(found) == len(ids)
    assert {event.type: event.id for event in found} == ids
    for index in range(threads):
        mine = [event.type for event in found if event.type.startswith(f"thread{index}.")]
        assert mine == [f"thread{index}.{number}" for number in range(events)]


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_service_that_dies_and_comes_back_costs_only_time(cluster, end):
    """Ingest is killed, or drained, several times under load: nothing lost, nothing twice, order kept."""
    pause, moments = threading.Event(), random.Random(5)
    options = LoggerOptions(back_off=BackOff(first_s=0.02, max_s=0.2))

    def disturb(busy):
        for _ in range(4):
            pause.wait(moments.uniform(0.05, 0.3))
            if not busy():
                return
            getattr(cluster.ingest, end)()
            cluster.ingest.start()

    with EventLogger(cluster.config, options) as logger:
        ids = produce_through(logger, disturb)
        assert_logged_once_in_order(cluster, ids)
        statistics = logger.statistics()
    assert statistics.failed_events == 0
    assert statistics.retries > 0


def test_service_that_stands_still_costs_only_time(cluster):
    """Ingest is stopped for longer than an attempt takes: the repeated requests log nothing twice."""
    pause = threading.Event()
    options = LoggerOptions(back_off=BackOff(first_s=0.02, max_s=0.2), request_timeout_s=0.3)

    def disturb(busy):
        for _ in range(3):
            pause.wait(0.1)
            if not busy():
                return
            os.kill(cluster.ingest.pid, signal.SIGSTOP)
            pause.wait(1.0)
            os.kill(cluster.ingest.pid, signal.SIGCONT)

    with EventLogger(cluster.config, options) as logger:
        ids = produce_through(logger, disturb)
        assert_logged_once_in_order(cluster, ids)
        assert logger.statistics().retries > 0


def lossy_options(proxy):
    """Through the proxy, patient with it, and quick to try again."""
    back_off = BackOff(first_s=0.01, max_s=0.1)
    return LoggerOptions(address=proxy.address, back_off=back_off, request_timeout_s=0.5, request_events_max=10)


def test_lost_answers_log_nothing_twice(cluster):
    """Answers are lost again and again after the events were logged: each is there once, under the id it was given."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with (
        LossyProxy(cluster.ingest.address, random.Random(seed)) as proxy,
        EventLogger(cluster.config, lossy_options(proxy)) as logger,
    ):
        ids = produce_through(logger, lambda _: None, events=100)
        for turn in range(10):
            batch = [Event(type=f"batch{turn}.{number}", payload={}) for number in range(20)]
            ids.update(zip((event.type for event in batch), logger.log_batch(batch), strict=True))
        statistics = logger.statistics()
    assert_logged_once_in_order(cluster, ids, events=100)
    assert statistics.failed_events == 0
    assert statistics.duplicate_events > 0, "no answer was lost of what was logged"


async def test_lost_answers_log_nothing_twice_from_asyncio(cluster):
    """The asyncio form repeats as safely, and a correlation reaches the tasks through all of it."""
    with LossyProxy(cluster.ingest.address, random.Random()) as proxy:
        async with AsyncEventLogger(cluster.config, lossy_options(proxy)) as logger:

            async def produce(name):
                with logger.with_correlation(name):
                    return [await asyncio.create_task(logger.log(f"{name}.{number}", {})) for number in range(30)]

            produced = await asyncio.gather(*(produce(f"task{index}") for index in range(10)))
            assert logger.statistics().duplicate_events > 0
    found = await asyncio.to_thread(cluster.events)
    assert len(found) == 300
    assert {event.id for event in found} == {event_id for ids in produced for event_id in ids}
    assert all(event.correlation_id == event.type.partition(".")[0] for event in found)
    for index, ids in enumerate(produced):
        assert [event.id for event in found if event.correlation_id == f"task{index}"] == ids
