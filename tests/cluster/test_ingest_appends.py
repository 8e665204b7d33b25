"""What the calls that log promise: order, atomicity, idempotency, conditions, and what an acknowledgement says."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import grpc
import pytest
from eventlog.v1 import event_pb2, ingest_service_pb2

from shared.rpc.remote_error import from_rpc_error
from tests.support.cluster import (
    CALL_S_MAX,
    check_positions,
    failure_of,
    get_event,
    read_all,
    read_range,
    refused,
    wait_until,
)
from tests.support.producers import Sent, retry

pytestmark = pytest.mark.cluster

BAD = event_pb2.NewEvent(type="not a type")
CONCURRENT = 20


@pytest.fixture(scope="module")
def cluster(module_cluster):
    with module_cluster() as cluster:
        yield cluster


def stream_request(sent):
    return ingest_service_pb2.LogStreamRequest(events=sent.events(), request_id=sent.name)


def run_stream(cluster, requests):
    """Send requests through a stream: the answers, and how it ended."""
    answers = []
    call = cluster.appends.LogStream(iter(requests), timeout=CALL_S_MAX)
    try:
        answers.extend(call)
    except grpc.RpcError as error:
        return answers, from_rpc_error(error)
    return answers, None


def together(call, arguments):
    """Make calls at the same time: what each returned, or how it failed."""

    def outcome(argument):
        try:
            return call(argument)
        except grpc.RpcError as error:
            return from_rpc_error(error)

    with ThreadPoolExecutor(len(arguments)) as threads:
        return list(threads.map(outcome, arguments))


def test_stream_answers_in_order_without_waiting(cluster):
    """Batches are sent ahead of the answers, which have the batches' order, counts and positions."""
    first = cluster.flush() + 1
    sent = [Sent(f"stream {first} {number}", number % 7 + 1) for number in range(200)]
    answers, error = run_stream(cluster, [stream_request(each) for each in sent])
    assert error is None
    expected = first
    for each, answer in zip(sent, answers, strict=True):
        assert (answer.first_position, answer.count) == (expected, each.count)
        assert answer.durability == ingest_service_pb2.DURABILITY_DURABLE
        expected += each.count
    texts = [event.payload_json for event in read_range(cluster, first)]
    assert texts == [each.payload(row) for each in sent for row in range(each.count)]
    assert get_event(cluster, answers[3].first_position).id == answers[3].first_event_id
    last = answers[3].first_position + answers[3].count - 1
    assert get_event(cluster, last).id == answers[3].last_event_id


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (ingest_service_pb2.LogStreamRequest(events=[BAD]), "INVALID_EVENT"),
        (ingest_service_pb2.LogStreamRequest(), "INVALID_FIELD"),
        (ingest_service_pb2.LogStreamRequest(events=[event_pb2.NewEvent(type="a")] * 10_001), "BATCH_TOO_LARGE"),
        (
            ingest_service_pb2.LogStreamRequest(events=[event_pb2.NewEvent(type="a")], expected_last_position=0),
            "EXPECTED_POSITION_MISMATCH",
        ),
    ],
)
def test_bad_batch_ends_the_stream_after_the_answers_before_it(cluster, bad, reason):
    """What came before is answered and logged, the bad batch is named, nothing after it is logged."""
    first = cluster.flush() + 1
    good = [Sent(f"around {reason} {first} {number}", 3) for number in range(100)]
    requests = [stream_request(each) for each in good]
    requests.insert(50, bad)
    answers, error = run_stream(cluster, requests)
    assert [answer.first_position for answer in answers] == [first + 3 * number for number in range(50)]
    assert error is not None
    assert error.reason == reason
    assert cluster.flush() == first + 149
    # The producer opens a new stream with what was not answered.
    answers, error = run_stream(cluster, [stream_request(each) for each in good[50:]])
    assert error is None
    assert [(answer.first_position, answer.duplicate) for answer in answers] == [
        (first + 3 * number, False) for number in range(50, 100)
    ]


def test_streams_side_by_side_each_keep_their_order(cluster):
    """Several streams and a bad one among them: each one's batches are in its order, and the others do not suffer."""
    first = cluster.flush() + 1

    def run(number):
        requests = [stream_request(Sent(f"side {first} {number}-{index}", 2)) for index in range(60)]
        if number == 0:
            requests[30] = ingest_service_pb2.LogStreamRequest(events=[BAD])
        return run_stream(cluster, requests)

    outcomes = together(run, range(5))
    assert [len(answers) for answers, _ in outcomes] == [30, 60, 60, 60, 60]
    assert [error is None for _, error in outcomes] == [False, True, True, True, True]
    for answers, _ in outcomes:
        positions = [answer.first_position for answer in answers]
        assert positions == sorted(positions)
    check_positions(read_range(cluster, first), first)
    assert cluster.flush() == first + 2 * 270 - 1


def test_flush_makes_buffered_events_readable(cluster):
    """BUFFERED is answered as such; what Flush returns covers it, and it is there for readers."""
    for number in range(20):
        sent = Sent(f"flushed {cluster.flush()} {number}", 5, durable=False)
        answer = cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX)
        assert answer.durability == ingest_service_pb2.DURABILITY_BUFFERED
        last = answer.first_position + answer.count - 1
        assert cluster.flush() >= last
        assert get_event(cluster, last).payload_json == sent.payload(4)


def test_one_of_many_wins_with_the_same_expectation(make_cluster):
    """Of many requests with the same expected_last_position exactly one is logged, each time, from an empty log on."""
    with make_cluster() as cluster:
        last = 0
        for turn in range(15):
            requests = [
                ingest_service_pb2.LogBatchRequest(
                    events=Sent(f"{turn}-{number}", number + 1).events(), expected_last_position=last
                )
                for number in range(CONCURRENT)
            ]
            outcomes = together(lambda request: cluster.appends.LogBatch(request, timeout=CALL_S_MAX), requests)
            [winner] = [each for each in outcomes if isinstance(each, ingest_service_pb2.LogBatchResponse)]
            assert winner.first_position == last + 1
            last += winner.count
            for error in outcomes:
                if error is not winner:
                    assert (error.reason, error.code) == ("EXPECTED_POSITION_MISMATCH", grpc.StatusCode.ABORTED)
                    assert int(error.metadata["last_position"]) == last
        assert len(read_all(cluster)) == last


def test_same_request_many_times_at_once_is_logged_once(cluster):
    """One of them logs; the others are told that they are duplicates, and where the first one is."""
    for turn in range(10):
        before = cluster.flush()
        sent = Sent(f"at once {before} {turn}", 4)
        answers = together(
            lambda request: cluster.appends.LogBatch(request, timeout=CALL_S_MAX), [sent.batch()] * CONCURRENT
        )
        assert {answer.first_position for answer in answers} == {before + 1}
        assert {answer.durability for answer in answers} == {ingest_service_pb2.DURABILITY_DURABLE}
        assert sorted(answer.duplicate for answer in answers) == [False] + [True] * (CONCURRENT - 1)
        assert len({answer.recorded_at.ToNanoseconds() for answer in answers}) == 1
        assert cluster.flush() == before + 4


def test_request_id_means_one_batch(cluster):
    """The id of a logged batch with another number of events is refused; the id of a refused batch is free."""
    before = cluster.flush()
    name = f"reused {before}"
    cluster.appends.LogBatch(Sent(name, 3).batch(), timeout=CALL_S_MAX)
    with refused("REQUEST_ID_REUSED") as refusal:
        cluster.appends.LogBatch(Sent(name, 4).batch(), timeout=CALL_S_MAX)
    assert refusal.error.code == grpc.StatusCode.ALREADY_EXISTS
    single = ingest_service_pb2.LogRequest(event=Sent(name, 1).events()[0], request_id=name)
    assert failure_of(lambda: cluster.appends.Log(single, timeout=CALL_S_MAX)).reason == "REQUEST_ID_REUSED"
    bad = ingest_service_pb2.LogBatchRequest(events=[BAD], request_id=f"{name} bad")
    with refused("INVALID_EVENT"):
        cluster.appends.LogBatch(bad, timeout=CALL_S_MAX)
    answer = cluster.appends.LogBatch(Sent(f"{name} bad", 2).batch(), timeout=CALL_S_MAX)
    assert (answer.duplicate, answer.first_position) == (False, before + 4)


def test_expectation_of_a_repeated_request_does_not_matter(cluster):
    """A retry whose first attempt was logged is answered with it, though the last position is another one by now."""
    before = cluster.flush()
    sent = Sent(f"conditional {before}", 2)
    request = sent.batch()
    request.expected_last_position = before
    answers = [cluster.appends.LogBatch(request, timeout=CALL_S_MAX) for _ in range(2)]
    assert [(answer.first_position, answer.duplicate) for answer in answers] == [
        (before + 1, False),
        (before + 1, True),
    ]


def test_request_ids_are_remembered_across_restart_rotation_and_sealing(make_cluster):
    """However the log changed meanwhile, and however ingest ended, a repeated request is recognised."""
    with make_cluster() as cluster:
        requests = [Sent(f"remembered {number}", number + 1) for number in range(8)]
        first = [cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX) for sent in requests]

        def check():
            for sent, answer in zip(requests, first, strict=True):
                again = cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX)
                assert again.duplicate
                again.duplicate = False
                assert again == answer
            assert cluster.flush() == 36

        check()
        cluster.ingest.kill()
        cluster.ingest.start()
        check()
        # Nothing was appended, so there is nothing to rotate.
        cluster.appends.LogBatch(Sent("one more", 1).batch(), timeout=CALL_S_MAX)
        first.append(cluster.appends.LogBatch(Sent("one more", 1).batch(), timeout=CALL_S_MAX))
        assert first.pop().duplicate
        cluster.rotate()
        cluster.wait_until_sealed()
        for end in (cluster.ingest.kill, cluster.ingest.terminate):
            end()
            cluster.ingest.start()
            answers = [cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX) for sent in requests]
            assert [(answer.first_position, answer.duplicate) for answer in answers] == [
                (answer.first_position, True) for answer in first
            ]
        assert len(read_all(cluster)) == 37


def test_request_ids_are_forgotten_after_the_horizon(make_cluster):
    """Beyond the configured horizon, which GetLogStatus tells, a repeated request is a new one."""
    with make_cluster(ingest={"request_id_horizon": "1s"}) as cluster:
        assert cluster.status().request_id_horizon.ToNanoseconds() == 10**9
        sent = Sent("short memory", 1)
        assert not cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX).duplicate
        assert cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX).duplicate

        def is_new():
            # What is logged meanwhile makes it forget; repeats alone do not.
            cluster.appends.LogBatch(Sent(f"other {monotonic()}", 1).batch(), timeout=CALL_S_MAX)
            return not cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX).duplicate

        wait_until(is_new, "it is forgotten")
        found = [event.payload_json for event in read_all(cluster)]
        assert found.count(sent.payload(0)) == 2


def test_producers_that_vanish_leave_whole_batches(cluster):
    """Cancelled calls and streams that are broken off: each batch is there whole or not at all, and a retry fits."""
    first = cluster.flush() + 1
    sent = [Sent(f"vanished {first} {number}", 50) for number in range(60)]
    for number, each in enumerate(sent[:40]):
        call = cluster.appends.LogBatch.future(each.batch(), timeout=CALL_S_MAX)
        if number % 2:
            call.cancel()
    stream = cluster.appends.LogStream(iter([stream_request(each) for each in sent[40:]]), timeout=CALL_S_MAX)
    next(stream)
    stream.cancel()
    ledger = {each.name: each for each in sent}

    class Book:
        acknowledge = staticmethod(lambda sent, answer: setattr(sent, "position", answer.first_position))

    retry(cluster.appends, Book, sent)
    events = read_range(cluster, first)
    check_positions(events, first)
    assert len(events) == 50 * len(ledger)
    for each in sent:
        rows = events[each.position - first :][:50]
        assert [row.payload_json for row in rows] == [each.payload(row) for row in range(50)]
