"""Reading through the query service: what was acknowledged is there at once, pages are a stable snapshot."""

import threading
from time import monotonic

import grpc
import pytest
from eventlog.v1 import event_pb2, ingest_service_pb2, query_service_pb2
from google.protobuf import timestamp_pb2

from tests.support.cluster import (
    CALL_S_MAX,
    Cluster,
    check_positions,
    failure_of,
    get_event,
    pages,
    read_all,
    read_range,
    refused,
    running,
    wait_until,
)
from tests.support.hostile import MIB, payload, string_of
from tests.support.producers import Ledger, Load, Sent, check_ledger

pytestmark = pytest.mark.cluster

List = query_service_pb2.ListEventsRequest
Get = query_service_pb2.GetEventRequest
Selection = query_service_pb2.EventSelection
START_S = 1_700_000_000


@pytest.fixture(scope="module")
def cluster(module_cluster):
    with module_cluster() as cluster:
        yield cluster


def log(cluster, events):
    """Log events in one batch; returns the first position."""
    request = ingest_service_pb2.LogBatchRequest(events=events)
    return cluster.appends.LogBatch(request, timeout=CALL_S_MAX).first_position


def at(seconds, nanos=0):
    return timestamp_pb2.Timestamp(seconds=START_S + seconds, nanos=nanos)


def test_acknowledged_event_is_read_at_once(cluster):
    """GetEvent and ListEvents right after the acknowledgement find the event, with and without min_position."""
    for number in range(200):
        event = event_pb2.NewEvent(type="read.own", payload_json=f'{{"n":{number}}}')
        answer = cluster.appends.Log(ingest_service_pb2.LogRequest(event=event), timeout=CALL_S_MAX)
        expected = {} if number % 2 else {"min_position": answer.position}
        found = get_event(cluster, answer.position, **expected)
        assert (found.payload_json, found.id, found.recorded_at) == (
            event.payload_json,
            answer.event_id,
            answer.recorded_at,
        )
        by_id = cluster.reads.GetEvent(Get(id=answer.event_id, **expected), timeout=CALL_S_MAX).event
        assert by_id == found
        page = cluster.reads.ListEvents(List(selection=Selection(from_position=answer.position, **expected)))
        assert page.events[0] == found


def test_min_position_waits_until_it_is_committed(cluster):
    """A read that wants a position to come waits for it; where it does not come, the caller is told in time."""
    last = cluster.flush()
    started_s = monotonic()
    with refused("POSITION_NOT_REACHED") as refusal:
        cluster.reads.ListEvents(List(selection=Selection(min_position=last + 1)), timeout=1.0)
    assert monotonic() - started_s < 1.0
    assert refusal.error.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert int(refusal.error.metadata["committed_position"]) == last
    assert refusal.error.retry_delay_s
    call = cluster.reads.GetEvent.future(Get(position=last + 3, min_position=last + 3), timeout=CALL_S_MAX)
    for row in range(3):
        assert not call.done()
        log(cluster, [event_pb2.NewEvent(type="awaited", payload_json=f'{{"row":{row}}}')])
    assert call.result().event.payload_json == '{"row":2}'


def test_pages_are_a_stable_snapshot_while_the_log_grows(make_cluster):
    """Pages of a query made before more was logged, rotated and sealed show what was there, each event once."""
    ledger = Ledger()
    with make_cluster(storage={"rotation": {"max_events": 8_000}}) as cluster:
        load = Load(cluster.appends, ledger, "growing")
        snapshots = []
        with load.on(load.batches(0, in_flight=1, sizes=(1, 40)), load.singles(0)):
            for size in (97, 10_000):
                wait_until(lambda: cluster.status().sealed_segments > len(snapshots), "another segment is sealed")
                request = List(selection=Selection(from_position=3), page_size=size)
                answers = [page for page, _ in zip(pages(cluster, request), range(150), strict=False)]
                snapshots.append(answers[0].snapshot_position)
                assert {page.snapshot_position for page in answers} == {snapshots[-1]}
                assert all(len(page.events) <= size for page in answers)
                events = [event for page in answers for event in page.events]
                check_positions(events, 3)
                if not answers[-1].next_page_token:
                    assert events[-1].position == snapshots[-1]
        assert snapshots == sorted(snapshots)
        assert cluster.flush() > snapshots[-1]
        cluster.wait_until_sealed()
        check_ledger(ledger, read_all(cluster))


def test_ranges_of_positions_and_times_select_exactly(cluster):
    """from is inclusive, until exclusive, both times half-open to the nanosecond, in any combination."""
    events = [
        event_pb2.NewEvent(type="timed", payload_json=f'{{"n":{number}}}', timestamp=at(number * 7 % 50, number % 3))
        for number in range(120)
    ]
    first = log(cluster, events)
    for rotate in (False, True):
        if rotate:
            cluster.rotate()
            cluster.wait_until_sealed()
        for low, high, start, end in (
            (0, 120, None, None),
            (1, 119, None, None),
            (50, 50, None, None),
            (30, 20, None, None),
            (0, 120, at(10), at(20)),
            (0, 120, at(10, 1), at(10, 2)),
            (17, 90, at(0, 2), None),
            (17, 90, None, at(49, 1)),
            (0, 120, at(20), at(20)),
            (0, 120, at(30), at(10)),
        ):
            wanted = [
                event.payload_json
                for number, event in enumerate(events)
                if low <= number < high
                and (start is None or key(event.timestamp) >= key(start))
                and (end is None or key(event.timestamp) < key(end))
            ]
            filters = event_pb2.EventFilters(time_range=event_pb2.TimeRange(start=start, end=end))
            selection = Selection(filters=filters, from_position=first + low, until_position=first + high)
            for size in (7, 1_000):
                answers = pages(cluster, List(selection=selection, page_size=size))
                assert [event.payload_json for page in answers for event in page.events] == wanted


def key(time):
    return time.seconds, time.nanos


def test_page_token_belongs_to_its_query(cluster):
    """A token is refused with another query, when damaged, and when made up; the page size may change."""
    first = log(cluster, [event_pb2.NewEvent(type="paged")] * 30)
    request = List(selection=Selection(from_position=first), page_size=10)
    token = cluster.reads.ListEvents(request, timeout=CALL_S_MAX).next_page_token
    request.page_token = token
    request.page_size = 20
    page = cluster.reads.ListEvents(request, timeout=CALL_S_MAX)
    assert [event.position for event in page.events] == list(range(first + 10, first + 30))
    for changed in (
        List(selection=Selection(from_position=first + 1), page_token=token),
        List(selection=Selection(from_position=first, until_position=first + 30), page_token=token),
        List(page_token=token),
        List(selection=request.selection, payload_form=event_pb2.PAYLOAD_FORM_STRUCT, page_token=token),
        List(selection=request.selection, page_token=token[:-1]),
        List(selection=request.selection, page_token=token[:20] + ("B" if token[20] == "A" else "A") + token[21:]),
        List(selection=request.selection, page_token="\0\n\U0001f600"),
        List(selection=request.selection, page_token="x" * MIB),
    ):
        with refused("INVALID_PAGE_TOKEN") as refusal:
            cluster.reads.ListEvents(changed, timeout=CALL_S_MAX)
        assert refusal.error.code == grpc.StatusCode.INVALID_ARGUMENT


def test_impossible_reads_are_refused_by_field(cluster):
    """Positions beyond any log, times beyond any clock, ids of nothing: a reason each, and never a fault."""
    position = log(cluster, [event_pb2.NewEvent(type="there")])
    event_id = get_event(cluster, position).id
    huge = 2**64 - 1
    with refused("INVALID_FIELD"):
        cluster.reads.ListEvents(List(page_size=-1), timeout=CALL_S_MAX)
    for selection in (
        Selection(from_position=huge),
        Selection(from_position=position + 1),
        Selection(from_position=huge, until_position=huge),
        Selection(from_position=position + 1, until_position=1),
    ):
        page = cluster.reads.ListEvents(List(selection=selection, page_size=2**31 - 1), timeout=CALL_S_MAX)
        assert (len(page.events), page.next_page_token) == (0, "")
    assert len(read_range(cluster, position, huge)) == 1
    for seconds, nanos in ((2**63 - 1, 0), (-(2**63), 0), (0, -1), (0, 10**9), (9_223_372_037, 0)):
        time = timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)
        for time_range in (event_pb2.TimeRange(start=time), event_pb2.TimeRange(end=time)):
            filters = event_pb2.EventFilters(time_range=time_range)
            error = failure_of(
                lambda filters=filters: cluster.reads.ListEvents(
                    List(selection=Selection(filters=filters)), timeout=CALL_S_MAX
                )
            )
            assert error is not None, f"{seconds} s {nanos} ns was taken"
            assert error.reason == "INVALID_FIELD"
    for request, reasons in (
        (Get(), {"INVALID_FIELD"}),
        (Get(position=1, id=event_id), {"INVALID_FIELD"}),
        (Get(position=position + 1), {"EVENT_NOT_FOUND"}),
        (Get(position=huge), {"EVENT_NOT_FOUND"}),
        (Get(id="evt_ZZZZZZZZ" + event_id[12:]), {"EVENT_NOT_FOUND", "INVALID_FIELD"}),
        (Get(id=event_id[:-1]), {"INVALID_FIELD"}),
        (Get(id=event_id.lower()), {"INVALID_FIELD", "EVENT_NOT_FOUND"}),
        (Get(id="x" * MIB), {"INVALID_FIELD"}),
        (Get(id="\0\n"), {"INVALID_FIELD"}),
        (Get(position=position, min_position=huge), {"POSITION_NOT_REACHED"}),
    ):
        error = failure_of(lambda request=request: cluster.reads.GetEvent(request, timeout=1.0))
        assert error is not None, f"{request} was answered"
        assert error.reason in reasons, f"{str(request)[:100]}: {error}"


def test_large_events_come_in_pages_that_any_client_takes(cluster):
    """Pages of large events are short enough for a client with gRPC's own limits, and nothing is left out."""
    texts = [string_of(MIB - number) for number in range(12)]
    first = log(cluster, [payload(text) for text in texts])
    with grpc.insecure_channel(cluster.query.address) as channel:
        reads = channel.unary_unary(
            "/eventlog.v1.QueryService/ListEvents",
            request_serializer=List.SerializeToString,
            response_deserializer=query_service_pb2.ListEventsResponse.FromString,
        )
        found, request = [], List(selection=Selection(from_position=first, until_position=first + 12))
        while True:
            page = reads(request, timeout=CALL_S_MAX)
            found += [event.payload_json for event in page.events]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
    assert found == texts


def test_many_readers_at_once_are_answered_or_told_to_wait(cluster):
    """A hundred reads at a time: each is right, or refused with a time after which to come again."""
    first = log(cluster, [event_pb2.NewEvent(type="crowd", payload_json=f'{{"n":{n}}}') for n in range(5_000)])
    request = List(selection=Selection(from_position=first, until_position=first + 5_000), page_size=5_000)
    calls = [cluster.reads.ListEvents.future(request, timeout=CALL_S_MAX) for _ in range(100)]
    answered = 0
    for call in calls:
        error = failure_of(call.result)
        if error is None:
            assert [event.position for event in call.result().events] == list(range(first, first + 5_000))
            answered += 1
        else:
            assert error.reason == "TOO_MANY_REQUESTS"
            assert error.retry_delay_s
    assert answered >= 4


def test_query_waits_for_a_log_and_follows_it(tmp_path):
    """Query starts before there is a log, says so, and reads it once ingest has made it, without a restart."""
    cluster = Cluster(tmp_path)
    try:
        cluster.query.start()
        error = failure_of(lambda: get_event(cluster, 1))
        assert (error.reason, error.code) == ("LOG_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE)
        assert error.retry_delay_s
        cluster.ingest.start()
        assert read_all(cluster) == []
        for end in (cluster.ingest.kill, cluster.ingest.terminate):
            sent = Sent(f"after {end.__name__}", 10)
            position = cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX).first_position
            end()
            # Reading needs no writer.
            assert get_event(cluster, position + 9).payload_json == sent.payload(9)
            cluster.ingest.start()
            assert get_event(cluster, position).payload_json == sent.payload(0)
    finally:
        cluster.close()


def test_readers_follow_while_segments_are_rotated_and_sealed(make_cluster):
    """Positions read again and again come back the same, whatever file holds them at the moment."""
    with make_cluster() as cluster:
        sent = [Sent(f"turn {number}", 50) for number in range(3)]
        stop = threading.Event()
        reads = []

        def read():
            while not stop.wait(0.02):
                events = read_range(cluster, 1)
                check_positions(events, 1)
                texts = [event.payload_json for event in events]
                expected = [each.payload(row) for each in sent for row in range(50)]
                assert texts == expected[: len(texts)]
                reads.append(len(texts))

        with running(read, read):
            try:
                for each in sent:
                    cluster.appends.LogBatch(each.batch(), timeout=CALL_S_MAX)
                    assert cluster.rotate().rotated
                cluster.wait_until_sealed()
            finally:
                stop.set()
        assert len(reads) > 5
        assert len(read_all(cluster)) == 150
