"""Every question over gRPC: what is answered, what is refused and why, and what happens to the log meanwhile."""

import csv
import io
import json
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from eventlog.v1 import event_pb2, ingest_service_pb2
from eventlog.v1 import query_service_pb2 as pb

from shared.rpc.remote_error import from_rpc_error
from tests.benchmarks.query_log import LOG_ID, build_query_log
from tests.support.cluster import (
    CALL_S_MAX,
    failure_of,
    metrics,
    pages,
    refused,
    running,
    wait_until,
)

pytestmark = pytest.mark.cluster

ORDERS = (1, 2, 3, 4)
BIG_EVENTS = 2_000_000


def filters(expression):
    return event_pb2.EventFilters(expression=expression)


def selection(expression="", **fields):
    return pb.EventSelection(filters=filters(expression), **fields)


def logged(number):
    """The n-th event of the small log: timestamps go up and down, types have three retention classes."""
    event = event_pb2.NewEvent(
        type=("job.done", "error.disk", "audit.read")[number % 3],
        source="tests",
        correlation_id=f"chain-{number % 5}" if number % 2 else "",
        payload_json=json.dumps({"n": number, "text": f"event {number}", "even": number % 2 == 0, "half": number / 2}),
    )
    event.timestamp.FromSeconds(1_700_000_000 + number * 7 % 40)
    return event


@dataclass
class Streamed:
    """What a Query streamed: events, and its summary."""

    events: list
    summary: pb.ReadSummary

    @property
    def positions(self):
        return [event.position for event in self.events]


def stream(cluster, request):
    """One call of Query."""
    *batches, last = cluster.reads.Query(request, timeout=CALL_S_MAX)
    assert last.HasField("summary")
    return Streamed([event for batch in batches for event in batch.events], last.summary)


def whole(cluster, request):
    """A Query, resumed until it is not partial; how many calls it took, and what all of them gave."""
    found, calls = [], 0
    while True:
        answer = stream(cluster, request)
        found += answer.events
        calls += 1
        assert answer.summary.partial == bool(answer.summary.partial_reason) == bool(answer.summary.resume_token)
        if not answer.summary.partial:
            return calls, found
        assert answer.summary.partial_reason == "DEADLINE"
        request.resume_token = answer.summary.resume_token


def exported(cluster, **fields):
    """The bytes of an export, and its last message."""
    answers = list(cluster.reads.Export(pb.ExportRequest(**fields), timeout=CALL_S_MAX))
    return b"".join(answer.data for answer in answers), answers[-1]


def scanned(cluster, **fields):
    """A scan as an Arrow table."""
    answers = list(cluster.reads.Scan(pb.ScanRequest(**fields), timeout=CALL_S_MAX))
    assert answers[-1].HasField("summary")
    data = b"".join(answer.arrow_ipc for answer in answers)
    return pa.ipc.open_stream(data).read_all()


@pytest.fixture(scope="module")
def cluster(module_cluster):
    """A log of 90 events: two sealed segments of three classes each, and a tail; every answer counts as slow."""
    with module_cluster(query={"slow_query": 0.001}) as cluster:
        for first in (0, 30, 60):
            request = ingest_service_pb2.LogBatchRequest(events=[logged(n) for n in range(first, first + 30)])
            cluster.appends.LogBatch(request, timeout=CALL_S_MAX)
            if first < 60:
                assert cluster.rotate().rotated
        cluster.wait_until_sealed()
        yield cluster


@pytest.fixture(scope="module")
def big_log(tmp_path_factory):
    """A log of two million events, half of them sealed."""
    directory = tmp_path_factory.mktemp("big")
    build_query_log(directory, sealed_segments=1, tail_events=BIG_EVENTS - 1_000_000)
    return directory


@pytest.fixture
def big(big_log, make_cluster):
    """A query service over the big log that runs one step at a time and admits two long calls."""
    cluster = make_cluster(log=big_log, query={"running_max": 1, "calls_max": 2})
    cluster.query.start()
    return cluster


@pytest.mark.parametrize("order", ORDERS)
def test_queries_and_pages_come_in_any_order(cluster, order):
    """The same events by Query, by Query with a limit, and by pages; the summary adds up."""
    times = {n + 1: n * 7 % 40 for n in range(90)}
    wanted = [p for p in times if (p - 1) % 3 == 0]
    wanted.sort(key=lambda p: ((times[p] if order > 2 else 0), p), reverse=order in {2, 4})
    asked = selection("type = 'job.done'")
    answer = stream(cluster, pb.QueryRequest(selection=asked, order=order))
    assert answer.positions == wanted
    assert answer.summary.matched_events == 30
    assert (answer.summary.snapshot_position, answer.summary.partial) == (90, False)
    assert stream(cluster, pb.QueryRequest(selection=asked, order=order, limit=7)).positions == wanted[:7]
    huge = pb.QueryRequest(selection=asked, order=order, limit=2**64 - 1)
    assert stream(cluster, huge).positions == wanted
    request = pb.ListEventsRequest(selection=asked, order=order, page_size=4)
    paged = [event for page in pages(cluster, request) for event in page.events]
    assert paged == answer.events


def test_counts_and_explanations_say_what_is_read(cluster):
    """A count is that of the events; the segments that hold no such event are told, and why."""
    asked = selection("type = 'error.disk' AND payload.n >= 60")
    answer = cluster.reads.CountEvents(pb.CountEventsRequest(selection=asked), timeout=CALL_S_MAX)
    assert (answer.count, answer.summary.partial) == (10, False)
    explained = cluster.reads.ExplainFilter(
        pb.ExplainFilterRequest(expression="payload.n > 5", filters=event_pb2.EventFilters(sources=["nobody"])),
        timeout=CALL_S_MAX,
    )
    assert [(each.first_position, each.last_position, each.read) for each in explained.segments] == [
        (1, 30, False),
        (31, 60, False),
        (61, 90, True),
    ]
    assert "source" in explained.segments[0].why
    assert explained.tree.startswith("AND\n")
    assert "?" in explained.sql
    assert "nobody" not in explained.sql
    assert "payload.n > 5" in explained.normalized_expression


def test_sums_by_group_add_up(cluster):
    """By fields, by time and by values, of sealed and unsealed events; what matches is in the summary."""
    request = pb.AggregateRequest(
        selection=selection("payload.n BETWEEN 25 AND 64"),
        group_by=["type", "payload.even:text"],
        time_bucket={"seconds": 10},
        value_field="payload.half",
    )
    expected = Counter((logged(n).type, str(n % 2 == 0).lower(), n * 7 % 40 // 10) for n in range(25, 65))
    counted, halves = Counter(), Counter()
    rows, summary = summed(cluster, request)
    for row in rows:
        key = row["type"], row["payload.even:text"], int(row["time"].timestamp() - 1_700_000_000) // 10
        counted[key] += row["count"]
        halves[row["type"]] += row["value_mean"] * row["value_count"]
        assert row["time"] <= row["first"] <= row["last"] < row["time"] + timedelta(seconds=10)
    assert counted == expected
    for number, kind in enumerate(("job.done", "error.disk", "audit.read")):
        assert halves[kind] == sum(n / 2 for n in range(25, 65) if n % 3 == number)
    assert (summary.matched_events, summary.partial) == (40, False)
    rows, _ = summed(cluster, pb.AggregateRequest(value_field="payload.half", by_value=True))
    assert sorted(row["value"] for row in rows) == [n / 2 for n in range(90)]
    with refused("INVALID_FIELD"):
        summed(cluster, pb.AggregateRequest(group_by=["id"]))


def summed(cluster, request):
    """The rows of an aggregation, and its summary."""
    *answers, last = cluster.reads.Aggregate(request, timeout=CALL_S_MAX)
    data = b"".join(answer.arrow_ipc for answer in answers)
    return pa.ipc.open_stream(data).read_all().to_pylist(), last.summary


def test_scans_are_typed_columns(cluster):
    """Fields, ids, JSON text and typed payload values, ascending and descending; no column at all is all fields."""
    columns = ["id", "position", "payload.n:integer", "payload.half:double", "payload.text:string", "payload.even"]
    columns += ["payload.even:boolean", "payload.text:integer", "metadata.tags", "timestamp"]
    for order in (1, 2):
        table = scanned(cluster, columns=columns, order=order, selection=selection("payload.n BETWEEN 25 AND 64"))
        numbers = list(range(25, 65))[:: 1 if order == 1 else -1]
        assert table.column_names == columns
        assert table.column("position").to_pylist() == [n + 1 for n in numbers]
        assert table.column("payload.n:integer").to_pylist() == numbers
        assert table.column("payload.half:double").to_pylist() == [n / 2 for n in numbers]
        assert table.column("payload.text:string").to_pylist() == [f"event {n}" for n in numbers]
        assert table.column("payload.even").to_pylist() == [json.dumps(n % 2 == 0) for n in numbers]
        assert table.column("payload.even:boolean").to_pylist() == [n % 2 == 0 for n in numbers]
        assert table.column("payload.text:integer").null_count == 40
        found = cluster.reads.GetEvent(pb.GetEventRequest(id=table.column("id")[3].as_py()), timeout=CALL_S_MAX)
        assert found.event.position == numbers[3] + 1
    assert {"id", "payload", "metadata.user"} < set(scanned(cluster).column_names)
    assert scanned(cluster, selection=selection("payload.n = 1000")).num_rows == 0
    too_many = [f"payload.c{n}" for n in range(65)]
    for wrong in (["nothing"], ["payload.n:decimal"], ["type:string"], ["id", "id"], too_many):
        with refused("INVALID_FIELD"):
            list(cluster.reads.Scan(pb.ScanRequest(columns=wrong), timeout=CALL_S_MAX))
    with refused("INVALID_FIELD"):
        list(cluster.reads.Scan(pb.ScanRequest(order=3), timeout=CALL_S_MAX))


@pytest.mark.parametrize("zstd", [False, True])
def test_exports_are_files(cluster, zstd):
    """JSON lines, CSV and Parquet, each whole, compressed or not."""
    asked = selection("type != 'audit.read'")

    def read(name):
        data, last = exported(cluster, selection=asked, format=name, zstd=zstd)
        assert (last.exported_events, last.summary.matched_events, last.summary.partial) == (60, 60, False)
        return zstandard.ZstdDecompressor().decompressobj().decompress(data) if zstd else data

    documents = [json.loads(line) for line in read("json").splitlines()]
    numbers = [n for n in range(90) if n % 3 != 2]
    assert [document["payload"]["n"] for document in documents] == numbers
    rows = list(csv.DictReader(io.StringIO(read("csv").decode(), newline="")))
    assert [row["id"] for row in rows] == [document["id"] for document in documents]
    assert [int(row["payload.n"]) for row in rows] == numbers
    table = pq.read_table(io.BytesIO(read("parquet")))
    assert table.column("position").to_pylist() == [n + 1 for n in numbers]
    with refused("INVALID_FIELD"):
        exported(cluster, format="xml")


def test_tokens_belong_to_their_question(cluster):
    """Tampered, of another method, with another filter, order or form: INVALID_PAGE_TOKEN; other budgets are fine."""
    token = cluster.reads.ListEvents(
        pb.ListEventsRequest(selection=selection("payload.n > 1"), page_size=5, order=2), timeout=CALL_S_MAX
    ).next_page_token
    other = "A" if token[40] != "A" else "B"
    for changed in (
        pb.ListEventsRequest(selection=selection("payload.n > 2"), order=2, page_token=token),
        pb.ListEventsRequest(selection=selection("payload.n > 1"), order=1, page_token=token),
        pb.ListEventsRequest(selection=selection("payload.n > 1"), page_token=token[:40] + other + token[41:], order=2),
    ):
        with refused("INVALID_PAGE_TOKEN"):
            cluster.reads.ListEvents(changed, timeout=CALL_S_MAX)
    # In these two the same bytes would mean something else.
    with refused("INVALID_PAGE_TOKEN"):
        request = pb.QueryRequest(selection=selection("payload.n > 1"), payload_form=2, resume_token=token)
        list(cluster.reads.Query(request, timeout=CALL_S_MAX))
    with refused("INVALID_PAGE_TOKEN"):
        request = pb.CountEventsRequest(selection=selection("payload.n > 1"), resume_token=token)
        cluster.reads.CountEvents(request, timeout=CALL_S_MAX)
    patient = pb.ListEventsRequest(selection=selection("payload.n > 1"), order=2, page_size=10, page_token=token)
    patient.selection.time_budget.FromSeconds(5)
    page = cluster.reads.ListEvents(patient, timeout=CALL_S_MAX)
    assert [event.position for event in page.events] == list(range(85, 75, -1))


def test_hostile_filters_are_refused_with_their_reasons(cluster):
    """Every limit by its own; what tries to get into the SQL finds nothing to get into."""
    wide = " OR ".join(["position = 1"] * 257)
    for expression, reason in (
        (f"type = '{'x' * 8192}'", "FILTER_TOO_LONG"),
        (f"{'(' * 65}type = 'a'{')' * 65}", "FILTER_TOO_DEEP"),
        (wide, "FILTER_TOO_MANY_COMPARISONS"),
        (f"payload.n IN ({', '.join(map(str, range(1001)))})", "FILTER_LIST_TOO_LONG"),
        (f"type MATCHES '{'x' * 1001}'", "FILTER_PATTERN_TOO_LONG"),
        ("type MATCHES '((\\pL{9}){9}){9}'", "FILTER_REGEX_TOO_LARGE"),
        (f"payload.{'.'.join('a' * 17)} = 1", "FILTER_PATH_TOO_LONG"),
        ("payload.a = 1e10000", "FILTER_NUMBER_OUT_OF_RANGE"),
        ("type = 'a' AND", "INVALID_FILTER"),
        ("1; DROP TABLE events", "INVALID_FILTER"),
        ("typ = 'a'", "INVALID_FILTER"),
    ):
        with refused(reason) as refusal:
            cluster.reads.CountEvents(pb.CountEventsRequest(selection=selection(expression)), timeout=CALL_S_MAX)
        assert refusal.error.code == grpc.StatusCode.INVALID_ARGUMENT
    for expression, count in (
        ("payload.text = ''' OR 1=1 --'", 0),
        ("payload.\"n' OR '1'='1\" = 1", 0),
        ('payload."]) OR TRUE; --" IS NULL', 90),
        ("type LIKE '%'", 0),
        ("payload MATCHES '(a+)+$'", 0),
        (f"{'(' * 64}payload.n = 1{')' * 64}", 1),
        (" OR ".join(["payload.n = 1"] * 256), 1),
        ("source = '$f0' OR source = '?'", 0),
    ):
        answer = cluster.reads.CountEvents(pb.CountEventsRequest(selection=selection(expression)), timeout=CALL_S_MAX)
        assert answer.count == count, expression


def test_every_call_can_be_followed(cluster):
    """Its request id comes back, metrics count it, and a slow one is logged with its filter."""
    request = pb.CountEventsRequest(selection=selection("payload.text CONTAINS 'event 7'"))
    before = metrics(cluster.query)
    _, call = cluster.reads.CountEvents.with_call(request, metadata=(("x-request-id", "followed-1"),))
    assert dict(call.initial_metadata())["x-request-id"] == "followed-1"
    wait_until(
        lambda: any("event 7" in each["expression"] for each in cluster.query.records("slow answer")), "it is logged"
    )
    after = metrics(cluster.query)

    def grown(name):
        (found,) = [key for key in after if key.endswith(name)]
        return after[found] - before.get(found, 0)

    assert grown("query_duration_seconds_count{kind=count}") == 1
    assert grown("query_scanned_events_total{kind=count}") == 90
    assert grown("query_scanned_bytes_total{kind=count}") >= 90 * len("{}")
    assert grown("query_matched_events_total{kind=count}") == 11
    (cache,) = [value for key, value in after.items() if key.endswith("query_cache_weight{cache=tail}")]
    assert cache > 0


def test_answers_do_not_move_while_the_log_does(make_cluster):
    """Pages and streams asked while events are logged, segments rotated and sealed show what was there at first."""
    with make_cluster(storage={"rotation": {"max_events": 400}}) as cluster:
        stop = threading.Event()

        def log():
            number = 0
            while not stop.wait(0.03):
                events = [logged(n) for n in range(number, number + 50)]
                cluster.appends.LogBatch(ingest_service_pb2.LogBatchRequest(events=events), timeout=CALL_S_MAX)
                number += 50

        def check(order):
            asked = selection("payload.n >= 0")
            page_list = list(pages(cluster, pb.ListEventsRequest(selection=asked, order=order, page_size=197)))
            snapshot = page_list[0].snapshot_position
            paged = [event.position for page in page_list for event in page.events]
            streamed = stream(cluster, pb.QueryRequest(selection=selection(until_position=snapshot + 1), order=order))
            assert len(paged) == snapshot
            assert paged == streamed.positions

        with running(log):
            try:
                for order in ORDERS:
                    sealed = cluster.status().sealed_segments
                    check(order)
                    wait_until(lambda sealed=sealed: cluster.status().sealed_segments > sealed, "another is sealed")
            finally:
                stop.set()


def segment_files(log, first):
    """The sealed files of a segment."""
    return sorted((log / "segments").glob(f"{first:020d}-*"))


def test_removed_segments_are_missed_by_nobody(make_cluster):
    """Segments that retention removes while answers are given are left out; nothing fails for want of a file."""
    with make_cluster() as cluster:
        for first in (0, 2_000, 4_000, 6_000):
            events = [logged(n) for n in range(first, first + 2_000)]
            cluster.appends.LogBatch(ingest_service_pb2.LogBatchRequest(events=events), timeout=CALL_S_MAX)
            cluster.rotate()
        cluster.wait_until_sealed()
        request = pb.ListEventsRequest(page_size=500)
        page = cluster.reads.ListEvents(request, timeout=CALL_S_MAX)
        down = pb.ListEventsRequest(page_size=3_000, order=2)
        down.page_token = cluster.reads.ListEvents(down, timeout=CALL_S_MAX).next_page_token
        by_time = pb.ListEventsRequest(page_size=10, order=3)
        by_time.page_token = cluster.reads.ListEvents(by_time, timeout=CALL_S_MAX).next_page_token
        for first in (1, 2_001):
            for path in segment_files(cluster.log, first):
                path.unlink()
        request.page_token = page.next_page_token
        for asked, positions in ((request, range(4_001, 4_501)), (down, range(5_000, 4_000, -1))):
            found = cluster.reads.ListEvents(asked, timeout=CALL_S_MAX).events
            assert [event.position for event in found] == list(positions)
        assert len(cluster.reads.ListEvents(by_time, timeout=CALL_S_MAX).events) == 10
        assert cluster.reads.CountEvents(pb.CountEventsRequest(), timeout=CALL_S_MAX).count == 4_000
        with refused("POSITION_TRIMMED"):
            cluster.reads.CountEvents(pb.CountEventsRequest(selection=selection(from_position=5)), timeout=CALL_S_MAX)


def read_around(cluster, order):
    """Positions read by somebody who leaves out what is damaged, and those that were told to be damaged."""
    found, told, bounds = [], [], {}
    while True:
        request = pb.QueryRequest(selection=selection(**bounds), order=order)
        try:
            answer = stream(cluster, request)
        except grpc.RpcError as failure:
            error = from_rpc_error(failure)
            assert (error.reason, error.code) == ("LOG_CORRUPTED", grpc.StatusCode.DATA_LOSS)
            first, last = (int(error.metadata[f"{end}_position"]) for end in ("first", "last"))
            told += range(first, last + 1)
            bounds = {"from_position": last + 1} if order == 1 else {"until_position": first}
            continue
        found += answer.positions
        if not answer.summary.partial:
            return found, told
        assert answer.summary.partial_reason == "DAMAGE"
        bounds = {"from_position": found[-1] + 1} if order == 1 else {"until_position": found[-1]}


def test_damage_beyond_repair_hides_nothing_else(make_cluster):
    """Around a destroyed file everything is read; who comes to it is told the positions."""
    with make_cluster() as cluster:
        for first in (0, 30, 60):
            events = [logged(n) for n in range(first, first + 30)]
            cluster.appends.LogBatch(ingest_service_pb2.LogBatchRequest(events=events), timeout=CALL_S_MAX)
            cluster.rotate()
        cluster.wait_until_sealed()
        (path,) = [each for each in segment_files(cluster.log, 31) if each.name.endswith(".error.parquet")]
        data = bytearray(path.read_bytes())
        data[pq.read_metadata(path).row_group(0).column(0).data_page_offset] ^= 1
        path.write_bytes(data)
        path.with_suffix(".par").unlink()
        damaged = [position for position in range(31, 61) if position % 3 == 2]
        for order in (1, 2):
            found, told = read_around(cluster, order)
            assert found == [p for p in range(1, 91) if p not in damaged][:: 1 if order == 1 else -1]
            assert sorted(told) == damaged
        counted = cluster.reads.CountEvents(pb.CountEventsRequest(), timeout=CALL_S_MAX)
        assert (counted.count, counted.summary.partial_reason) == (31, "DAMAGE")
        request = pb.CountEventsRequest(resume_token=counted.summary.resume_token)
        with refused("LOG_CORRUPTED") as refusal:
            cluster.reads.CountEvents(request, timeout=CALL_S_MAX)
        assert int(refusal.error.metadata["first_position"]) == damaged[0]
        with refused("LOG_CORRUPTED"):
            stream(cluster, pb.QueryRequest(order=3))
        with refused("LOG_CORRUPTED"):
            cluster.reads.GetEvent(pb.GetEventRequest(position=damaged[3]), timeout=CALL_S_MAX)
        assert cluster.reads.GetEvent(pb.GetEventRequest(position=damaged[3] + 1), timeout=CALL_S_MAX).event


def test_answers_come_in_time_and_the_rest_comes_later(big):
    """With 50 ms for a search through two million events: partial, soon; its tokens joined give the whole answer."""
    heavy = "payload MATCHES '(?i)budget #(77|1?88)[0-9]+\"' AND payload.duration_ms > 4000"
    full = stream(big, pb.QueryRequest(selection=selection(heavy)))
    assert not full.summary.partial
    took = []
    for _ in range(8):
        request = pb.QueryRequest(selection=selection(heavy))
        request.selection.time_budget.FromMilliseconds(50)
        began = monotonic()
        answer = stream(big, request)
        took.append(monotonic() - began)
        assert (answer.summary.partial, answer.summary.partial_reason) == (True, "DEADLINE")
    assert min(took) < 0.150
    calls, joined = whole(big, request)
    assert calls > 2
    assert joined == full.events
    count, token = 0, None
    while token != "":
        asked = pb.CountEventsRequest(selection=selection(heavy), resume_token=token or "")
        asked.selection.time_budget.FromMilliseconds(50)
        counted = big.reads.CountEvents(asked, timeout=CALL_S_MAX)
        count, token = count + counted.count, counted.summary.resume_token
    assert count == len(full.events)


def test_slow_readers_delay_nobody_and_too_many_are_refused(big):
    """Two exports that nobody reads fill the lane; look-ups go on, and once they are cancelled so does the rest."""
    exports = [big.reads.Export(pb.ExportRequest(format="json")) for _ in range(2)]
    for export in exports:
        assert next(export)
    count = pb.CountEventsRequest(selection=selection("metadata.host = 'worker-03'"))
    with refused("TOO_MANY_REQUESTS") as refusal:
        big.reads.CountEvents(count, timeout=CALL_S_MAX)
    assert refusal.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.error.retry_delay_s
    page = big.reads.ListEvents(pb.ListEventsRequest(order=2, page_size=3), timeout=CALL_S_MAX)
    assert [event.position for event in page.events] == [BIG_EVENTS, BIG_EVENTS - 1, BIG_EVENTS - 2]
    exports[0].cancel()
    # The other one still waits for its reader, and has the only thread no longer than a step.
    wait_until(lambda: failure_of(lambda: big.reads.CountEvents(count, timeout=CALL_S_MAX)) is None, "there is room")
    exports[1].cancel()
    wait_until(lambda: calls_of(big) == 0, "the export has ended")


def calls_of(cluster):
    (found,) = [value for key, value in metrics(cluster.query).items() if key.endswith("query_calls{lane=searches}")]
    return found


def test_a_cancelled_search_stops_at_once(big):
    """Its thread is free long before the search would have ended."""
    heavy = pb.CountEventsRequest(selection=selection("payload MATCHES '(?i)(x|y|z)+[^a-z]*(a|b|c)+q$'"))
    for _ in range(3):
        call = big.reads.CountEvents.future(heavy, timeout=CALL_S_MAX)
        wait_until(lambda: calls_of(big) == 1, "it runs")
        call.cancel()
        wait_until(lambda: calls_of(big) == 0, "it has ended")


def test_the_log_id_is_that_of_the_events(big):
    """Ids of answers name the log they come from."""
    event = big.reads.GetEvent(pb.GetEventRequest(position=7), timeout=CALL_S_MAX).event
    assert event.id.startswith(f"evt_{LOG_ID}")
    assert isinstance(big.log, Path)
