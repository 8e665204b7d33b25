"""Ephemeral subscriptions over gRPC, with the real processes: starts, filters, slow consumers, shutdown."""

import datetime as dt

import pytest
from eventlog.v1 import event_pb2, stream_service_pb2

from tests.support.cluster import metrics, wait_until
from tests.support.stream_reader import log, status_of, subscribe

pytestmark = pytest.mark.cluster

DROP_OLDEST = stream_service_pb2.OVERFLOW_POLICY_DROP_OLDEST
CATCH_UP = stream_service_pb2.OVERFLOW_POLICY_CATCH_UP
DISCONNECT = stream_service_pb2.OVERFLOW_POLICY_DISCONNECT
# Together more than the network and gRPC hold for a subscriber that does not read.
MANY, LARGE = 2_000, "x" * 1_000


@pytest.fixture(scope="module")
def shared(module_cluster):
    """A cluster for tests that only add to the log."""
    with module_cluster(with_stream=True, streaming={"heartbeat_interval": "300ms"}) as cluster:
        yield cluster


@pytest.fixture
def impatient(make_cluster):
    """A cluster that takes a subscriber for too slow after two seconds."""
    streaming = {"slow_consumer_timeout": "2s", "heartbeat_interval": "1s", "grace": "5s"}
    with make_cluster(with_stream=True, streaming=streaming) as cluster:
        yield cluster


def test_live_events_come_as_they_are_logged(shared):
    """A subscription from now on gets what is logged after it, whole, and nothing from before."""
    before = log(shared, 3)
    with subscribe(shared) as reader:
        last = log(shared, 2, source="here", correlation_id="chain")
        reader.wait_for(last)
        assert reader.positions == [before + 1, before + 2]
        event = reader.events[0]
        assert (event.source, event.correlation_id, event.payload_json) == ("here", "chain", '{"n":0}')
        assert event.id.startswith("evt_")
    assert reader.of("confirmed")[0].start_position == before + 1
    assert reader.of("confirmed")[0].heartbeat_interval.ToMilliseconds() == 300


def test_history_comes_first_then_live(shared):
    """A subscription from the earliest event gets everything once, in order, and is told where history ends."""
    log(shared, 100)
    with subscribe(shared, earliest=True) as reader:
        reader.wait(lambda: reader.of("caught_up"), "it has caught up")
        last = log(shared, 10)
        reader.wait_for(last)
        assert reader.positions == list(range(1, last + 1))


def test_start_at_a_position_and_resume(shared):
    """Resuming at the resume position of the last message loses nothing and repeats nothing."""
    first = log(shared) + 1
    last = log(shared, 30)
    with subscribe(shared, start=stream_service_pb2.StreamStart(position=first)) as reader:
        reader.wait_for(last)
        resume = reader.of("events")[-1].resume_position
    last = log(shared, 5)
    with subscribe(shared, start=stream_service_pb2.StreamStart(position=resume)) as again:
        again.wait_for(last)
        assert reader.positions + again.positions == list(range(first, last + 1))


def test_filter_holds_in_history_and_live(shared):
    """The same filter, structured and as an expression, decides in history and live."""
    first = log(shared) + 1
    filters = event_pb2.EventFilters(type_patterns=["wanted.*"], expression="payload.n >= 1")
    log(shared, 3, event_type="wanted.before")
    with subscribe(shared, start=stream_service_pb2.StreamStart(position=first), filters=filters) as reader:
        reader.wait(lambda: reader.of("caught_up"), "it has caught up")
        log(shared, 3, event_type="unwanted")
        last = log(shared, 3, event_type="wanted.after")
        reader.wait_for(last)
        assert [(event.type, event.payload_json) for event in reader.events] == [
            ("wanted.before", '{"n":1}'),
            ("wanted.before", '{"n":2}'),
            ("wanted.after", '{"n":1}'),
            ("wanted.after", '{"n":2}'),
        ]


def test_heartbeats_come_when_nothing_matches(shared):
    """A subscription whose filter matches nothing hears where it is, and could resume there."""
    filters = event_pb2.EventFilters(type_patterns=["nothing"])
    with subscribe(shared, filters=filters) as reader:
        last = log(shared, 3)
        reader.wait(lambda: [b for b in reader.of("heartbeat") if b.resume_position == last + 1], "it has passed")
        beat = reader.of("heartbeat")[-1]
        assert (beat.head_position, beat.lag_events) == (last, 0)
        assert beat.server_time.seconds > 0
        assert reader.positions == []


def test_payload_as_structure(shared):
    """Payloads come as structures where that is asked for, from history and live."""
    form = event_pb2.PAYLOAD_FORM_STRUCT
    position = log(shared)
    start = stream_service_pb2.StreamStart(position=position)
    with subscribe(shared, start=start, payload_form=form) as reader:
        reader.wait(lambda: reader.of("caught_up"), "it has caught up")
        reader.wait_for(log(shared))
        assert [event.payload["n"] for event in reader.events] == [0, 0]


def test_wrong_requests_name_the_field(shared):
    """What is wrong with a request is said, with the field, before anything is streamed."""
    two = stream_service_pb2.StreamStart(position=1, earliest=True)
    for fields, reason in (
        ({"start": two}, "INVALID_FIELD"),
        ({"filters": event_pb2.EventFilters(expression="type = ")}, "INVALID_FILTER"),
        ({"buffer_size": 2**31}, "INVALID_FIELD"),
        ({"consumer": "x" * 200}, "INVALID_FIELD"),
        ({"subscription": "durable", "overflow_policy": DROP_OLDEST}, "INVALID_FIELD"),
        ({"start": stream_service_pb2.StreamStart(checkpoint="unknown")}, "SUBSCRIPTION_NOT_FOUND"),
    ):
        with subscribe(shared, **fields) as reader:
            assert reader.wait_ended().reason == reason


def test_ephemeral_subscriptions_are_listed(shared):
    """A connected subscription is listed under its name, with its state, and has metrics."""
    with subscribe(shared, consumer="dashboard", buffer_size=7) as reader:
        reader.wait(lambda: reader.of("caught_up"), "it is live")
        reader.wait_for(log(shared))
        status = status_of(shared, "dashboard")
        assert (status.durable, status.state, status.buffer_size) == (False, "live", 7)
        name = "eventlog_stream_delivered_events_total{subscription=dashboard}"
        assert metrics(shared.stream)[name] == len(reader.positions)
        wait_until(
            lambda: "eventlog_stream_lag_events{subscription=dashboard}" in metrics(shared.stream), "lag is shown"
        )


def test_starts_on_an_empty_log(make_cluster):
    """Every way to begin works on an empty log, and what comes first is position 1."""
    past = stream_service_pb2.StreamStart()
    past.time.FromDatetime(dt.datetime(2001, 1, 1, tzinfo=dt.UTC))
    future = stream_service_pb2.StreamStart()
    future.time.FromDatetime(dt.datetime(2200, 1, 1, tzinfo=dt.UTC))
    starts = [None, past, future, stream_service_pb2.StreamStart(earliest=True)]
    with make_cluster(with_stream=True) as cluster:
        readers = [subscribe(cluster, start=start) for start in starts]
        far = subscribe(cluster, start=stream_service_pb2.StreamStart(position=1000))
        assert far.of("confirmed")[0].clamped_position == 1000
        readers.append(far)
        last = log(cluster, 3)
        for reader in readers:
            with reader:
                reader.wait_for(last)
                assert reader.positions == [1, 2, 3]


def test_starts_by_time(shared):
    """By time: before the first event it is the first, in between the next one, behind the last the end."""
    first = log(shared)
    last = log(shared, 2)
    with subscribe(shared, start=stream_service_pb2.StreamStart(position=first)) as reader:
        reader.wait_for(last)
    recorded = {event.position: event.recorded_at for event in reader.events}
    assert recorded[first + 1] == recorded[first + 2]
    expected = {"before": 1, "at": first + 1, "behind": last + 1}
    for when, position in expected.items():
        start = stream_service_pb2.StreamStart()
        if when == "before":
            start.time.FromDatetime(dt.datetime(2001, 1, 1, tzinfo=dt.UTC))
        else:
            start.time.CopyFrom(recorded[first + 1])
            start.time.nanos += 1 if when == "behind" else 0
        with subscribe(shared, start=start) as found:
            assert found.of("confirmed")[0].start_position == position, when


@pytest.mark.parametrize("policy", [DROP_OLDEST, CATCH_UP, DISCONNECT])
def test_a_stalled_subscriber_gets_what_its_policy_promises(impatient, policy):
    """One that reads nothing is disconnected; the other loses nothing, and it can resume without a hole."""
    with subscribe(impatient, buffer_size=50_000) as other:
        stalled = subscribe(impatient, reads=False, overflow_policy=policy)
        wait_until(lambda: metrics(impatient.stream)["eventlog_stream_subscribers"] == 2, "both are connected")
        for _ in range(10):
            last = log(impatient, MANY, source=LARGE[:200], correlation_id=LARGE[:200])
        other.wait_for(last)
        assert other.positions == list(range(1, last + 1))
        ended = "eventlog_stream_ended_subscriptions_total{reason=SLOW_CONSUMER}"
        wait_until(lambda: metrics(impatient.stream).get(ended) == 1, "the stalled one is disconnected")
        stalled.go_on()
        error = stalled.wait_ended()
        stalled.close()
    assert error.reason == "SLOW_CONSUMER"
    resume = int(error.metadata["resume_position"])
    told = set(stalled.positions)
    for dropped in stalled.of("dropped"):
        told |= set(range(dropped.first_position, dropped.last_position + 1))
        assert dropped.count == dropped.last_position - dropped.first_position + 1
    assert told == set(range(1, resume))
    if policy != DROP_OLDEST:
        assert not stalled.of("dropped")
    if policy == DISCONNECT:
        assert stalled.of("closing") or resume < last


def test_more_subscribers_than_allowed_are_refused(make_cluster):
    """Beyond max_subscribers a subscription is refused with a reason; when one leaves there is room again."""
    with make_cluster(with_stream=True, streaming={"max_subscribers": 2}) as cluster:
        first, second = subscribe(cluster), subscribe(cluster)
        with subscribe(cluster) as third:
            assert third.wait_ended().reason == "TOO_MANY_SUBSCRIBERS"
        first.close()
        wait_until(lambda: metrics(cluster.stream)["eventlog_stream_subscribers"] == 1, "one has left")
        with subscribe(cluster) as third:
            assert third.of("confirmed")
        second.close()


def test_shutdown_ends_every_stream_with_a_resume_position(impatient):
    """With 100 streams open, SIGTERM tells each why it ends and where to resume; one that is stalled delays nothing."""
    last = log(impatient, 5)
    with subscribe(impatient, reads=False, earliest=True, overflow_policy=CATCH_UP) as stalled:
        readers = [subscribe(impatient, earliest=True, subscription="group" if n % 10 == 0 else "") for n in range(99)]
        for _ in range(10):
            last = log(impatient, MANY, source=LARGE[:200], correlation_id=LARGE[:200])
        readers[1].wait_for(last)
        assert impatient.stream.terminate() == 0
        for reader in readers:
            error = reader.wait_ended()
            assert error.reason == "SERVER_DRAINING"
            closing = reader.of("closing")[-1]
            assert closing.reason == "SERVER_DRAINING"
            assert int(error.metadata["resume_position"]) == closing.resume_position
            reader.close()
        # It cannot be told: what was to tell it lies behind what it did not read.
        stalled.go_on()
        assert stalled.wait_ended().reason in {"SERVER_DRAINING", "DEPENDENCY_UNAVAILABLE"}
        assert stalled.positions == list(range(1, len(stalled.positions) + 1))


def test_without_publishing_events_come_all_the_same(make_cluster):
    """Where ingest publishes to nobody, the stream service asks the query service, and loses nothing."""
    with make_cluster(with_stream=True, ingest={"publish_to": ""}) as cluster:
        log(cluster, 3)
        with subscribe(cluster, earliest=True) as reader:
            reader.wait_for(3)
            last = log(cluster, 3)
            reader.wait_for(last)
            assert reader.positions == [1, 2, 3, 4, 5, 6]


def test_idle_memory(make_cluster):
    """A stream service that has nothing to do takes at most 150 MB."""
    with make_cluster(with_stream=True) as cluster:
        assert cluster.stream.rss_mb() <= 150
