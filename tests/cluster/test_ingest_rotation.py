"""Rotation and sealing under full load: nothing lost, acknowledgements go on, readers see a consistent log."""

import threading
from collections import Counter

import pytest
from eventlog.v1 import ingest_service_pb2, log_admin_service_pb2, query_service_pb2

from tests.benchmarks.load import LoadPlan, run_load
from tests.benchmarks.requests import prepared_requests, read_requests
from tests.support.cluster import check_positions, metrics, pages, read_range, running, wait_until

pytestmark = pytest.mark.cluster

EVENTS_PER_REQUEST = 500
SEGMENT_EVENTS = 50_000
LOAD_S = 6.0
# With readers and a saturated machine beside it: that nothing stands still, no more.
ACKNOWLEDGEMENT_SATURATED_MS_MAX = 2000
# What rotation and sealing may cost an acknowledgement.
ACKNOWLEDGEMENT_MS_MAX = 250
SMALL_SEGMENT_EVENTS = 10_000
STEADY_S = 4.0
# What rotation does, it does at each of some fifty rotations; what a busy machine does, it does not do every time.
ATTEMPTS = 3
READ_EVENTS = 50_000


def test_rotation_and_sealing_under_load_lose_nothing(make_cluster, tmp_path):
    """Every event of a load that fills many segments comes back, also while they are sealed, and all get sealed."""
    file = prepared_requests(tmp_path, requests=50, events_per_request=EVENTS_PER_REQUEST)
    rotation = {"rotation": {"max_events": SEGMENT_EVENTS}}
    with make_cluster(storage=rotation) as cluster:
        plan = LoadPlan(
            address=cluster.ingest.address,
            method="LogBatch",
            requests_file=str(file),
            in_flight=8,
            seconds=LOAD_S,
            warm_up_s=0.0,
        )
        ended = threading.Event()
        read = Counter()
        with running(lambda: read_until(cluster, ended, read)):
            try:
                load = run_load(plan)
            finally:
                ended.set()
        print(
            f"{load.events_per_s:,.0f} events/s, slowest acknowledgement {load.ack_slowest_ms:.0f} ms, "
            f"{read['rounds']} reads of {read['events']} events meanwhile"
        )
        assert load.ack_slowest_ms < ACKNOWLEDGEMENT_SATURATED_MS_MAX
        assert read["rounds"] > 0
        assert cluster.status().committed_position == load.last_position == load.events
        cluster.wait_until_sealed(timeout_s=120)
        check_segments(cluster, load.events)
        check_content(cluster, file, load.events)


def test_rotation_and_sealing_hold_up_no_acknowledgement(make_cluster, tmp_path):
    """No acknowledgement takes 250 ms longer with rotation and sealing than the same load takes without them.

    The load leaves the machine room: one request after the other. Only where the limit is missed is the same
    load run without rotation, which tells what the machine itself adds.
    """
    file = prepared_requests(tmp_path, requests=50, events_per_request=EVENTS_PER_REQUEST)
    rotation = {"rotation": {"max_events": SMALL_SEGMENT_EVENTS}}
    for attempt in range(ATTEMPTS):
        with make_cluster(f"rotating{attempt}", storage=rotation) as cluster:
            load = run_load(steady_load(cluster, file))
            rotations = len(cluster.segments()) - 1
            sealed = cluster.status().sealed_segments
        assert rotations >= load.events // SMALL_SEGMENT_EVENTS - 1
        assert sealed > 0, "segments were sealed meanwhile"
        print(f"{rotations} rotations, {sealed} sealed, slowest acknowledgement {load.ack_slowest_ms:.0f} ms")
        if load.ack_slowest_ms <= ACKNOWLEDGEMENT_MS_MAX:
            return
        with make_cluster(f"calm{attempt}") as cluster:
            calm = run_load(steady_load(cluster, file))
        print(f"without rotation {calm.ack_slowest_ms:.0f} ms")
        if load.ack_slowest_ms <= calm.ack_slowest_ms + ACKNOWLEDGEMENT_MS_MAX:
            return
    pytest.fail(f"rotation and sealing held up acknowledgements in each of {ATTEMPTS} attempts: see the output")


def steady_load(cluster, file):
    """One request at a time."""
    return LoadPlan(
        address=cluster.ingest.address,
        method="LogBatch",
        requests_file=str(file),
        in_flight=1,
        seconds=STEADY_S,
    )


def read_until(cluster, ended, read):
    """Read the newest events and some old ones, page by page, while the log grows and is sealed."""
    while not ended.is_set():
        committed = cluster.status().committed_position
        for first in (max(committed - READ_EVENTS, 1), max(committed // 2 - READ_EVENTS, 1)):
            selection = query_service_pb2.EventSelection(from_position=first, until_position=first + READ_EVENTS)
            request = query_service_pb2.ListEventsRequest(selection=selection, page_size=10_000)
            answers = list(pages(cluster, request))
            events = [event for page in answers for event in page.events]
            assert len({page.snapshot_position for page in answers}) == 1
            check_positions(events, first)
            assert len(events) == min(READ_EVENTS, answers[0].snapshot_position - first + 1)
            read["rounds"] += 1
            read["events"] += len(events)


def check_segments(cluster, events):
    """All but the active segment are sealed; together they hold every position once."""
    *sealed, active = cluster.segments()
    assert len(sealed) >= events // SEGMENT_EVENTS
    assert {segment.state for segment in sealed} == {log_admin_service_pb2.SEGMENT_STATE_SEALED}
    assert active.state == log_admin_service_pb2.SEGMENT_STATE_ACTIVE
    expected = 1
    for segment in [*sealed, active]:
        assert segment.first_position == expected
        count = sum(file.events for file in segment.files)
        assert count == segment.last_position - segment.first_position + 1 <= SEGMENT_EVENTS
        expected += count
    assert expected - 1 == events
    # A segment is counted when the process that sealed it has ended.
    wait_until(
        lambda: metrics(cluster.ingest)["eventlog_ingest_sealed_segments_total"] == len(sealed), "segments are counted"
    )
    counted = metrics(cluster.ingest)
    assert counted["eventlog_ingest_events_total"] == events
    assert counted["eventlog_ingest_sealing_failures_total"] == 0


def check_content(cluster, file, events):
    """The log is made of whole requests of the load, each as often as it was sent."""
    sent = {}
    for request in read_requests(file):
        batch = [essence(event) for event in ingest_service_pb2.LogBatchRequest.FromString(request).events]
        sent[batch[0]] = batch
    assert len(sent) == 50
    found = Counter()
    for first in range(1, events + 1, READ_EVENTS):
        rows = [essence(event) for event in read_range(cluster, first, first + READ_EVENTS)]
        assert len(rows) == min(READ_EVENTS, events - first + 1)
        for start in range(0, len(rows), EVENTS_PER_REQUEST):
            assert rows[start : start + EVENTS_PER_REQUEST] == sent[rows[start]]
            found[rows[start]] += 1
    times = events // EVENTS_PER_REQUEST / len(sent)
    assert set(found.values()) <= {int(times), int(times) + 1}
    assert len(found) == len(sent)


def essence(event):
    """What is compared of an event, proposed or recorded."""
    return event.payload_json, event.timestamp.seconds, event.timestamp.nanos, event.type, event.correlation_id
