"""Clocks that are set back an hour and forward a year while the service runs."""

from itertools import pairwise

import pytest
from eventlog.v1 import event_pb2, ingest_service_pb2, log_admin_service_pb2

from shared.events.ids import format_event_id
from tests.support.clocked_ingest import MODULE, SettableClock
from tests.support.cluster import CALL_S_MAX, read_all, wait_until
from tests.support.producers import Ledger, Load, check_ledger

pytestmark = pytest.mark.cluster

HOUR_S = 3600
YEAR_S = 365 * 86_400
ACTIVE = log_admin_service_pb2.SEGMENT_STATE_ACTIVE


@pytest.fixture
def clock(tmp_path):
    """The clock of the ingest service."""
    return SettableClock(tmp_path / "clock")


def log(cluster, request_id: str = "") -> ingest_service_pb2.LogResponse:
    """Log one event."""
    event = event_pb2.NewEvent(type="clock.tick")
    return cluster.appends.Log(ingest_service_pb2.LogRequest(event=event, request_id=request_id), timeout=CALL_S_MAX)


def recorded_ns(event) -> int:
    return event.recorded_at.ToNanoseconds()


def test_jumps_under_load_keep_order_ids_and_times(make_cluster, clock):
    """Whatever the clock does, also across restarts: all is there once, ids follow positions, no time decreases."""
    ledger = Ledger()
    storage = {"rotation": {"max_events": 5_000}}
    with make_cluster(ingest_module=MODULE, environ=clock.environ, storage=storage) as cluster:
        for number, jump_s in enumerate((-HOUR_S, YEAR_S, -YEAR_S, HOUR_S)):
            load = Load(cluster.appends, ledger, f"round{number}")
            with load.on(load.batches(0), load.singles(0), load.stream(0)):
                before = len(ledger.acknowledged)
                wait_until(lambda: len(ledger.acknowledged) > before + 20, "acknowledgements")  # noqa: B023
                clock.jump(jump_s)
                before = len(ledger.acknowledged)
                wait_until(lambda: len(ledger.acknowledged) > before + 20, "acknowledgements")  # noqa: B023
            if number % 2 == 0:
                assert cluster.ingest.terminate() == 0
                cluster.ingest.start()
        assert ledger.unanswered == []
        cluster.rotate()
        cluster.wait_until_sealed()
        # Reading checks that positions have no gap and recorded times do not decrease.
        events = read_all(cluster)
        check_ledger(ledger, events)
        log_id = cluster.status().log_id
        assert [event.id for event in events] == [format_event_id(log_id, event.position) for event in events]
        assert all(event.timestamp == event.recorded_at for event in events)
        assert recorded_ns(events[-1]) - recorded_ns(events[0]) > (YEAR_S - 2 * HOUR_S) * 1e9
        segments = cluster.segments()
        assert len(segments) > 1
        for segment, following in pairwise(segments):
            assert segment.last_position + 1 == following.first_position
            assert segment.last_recorded_at.ToNanoseconds() <= following.first_recorded_at.ToNanoseconds()
        assert list(cluster.verify().damage) == []


def test_jumps_forget_no_request_id(make_cluster, clock):
    """A repeated request is recognised after a restart under a clock that is wrong, and after each jump."""
    with make_cluster(ingest_module=MODULE, environ=clock.environ) as cluster:
        first = log(cluster, "request")

        def check_repeat():
            again = log(cluster, "request")
            assert (again.duplicate, again.position) == (True, first.position)
            assert again.recorded_at == first.recorded_at

        for jump_s in (YEAR_S, -2 * YEAR_S, YEAR_S):
            clock.jump(jump_s)
            assert cluster.ingest.terminate() == 0
            cluster.ingest.start()
            check_repeat()
        for jump_s in (-HOUR_S, YEAR_S, -2 * YEAR_S):
            clock.jump(jump_s)
            log(cluster)
            check_repeat()
        told = cluster.ingest.records("the clock is behind the newest event, whose time is given on")
        assert [record["level"] for record in told] == ["warning", "warning"]


def test_age_of_a_segment_is_the_time_that_passes(make_cluster, clock):
    """A year forward does not rotate a young segment; behind an hour, an old one is rotated all the same."""
    storage = {"rotation": {"max_age": "1s"}}
    with make_cluster(ingest_module=MODULE, environ=clock.environ, storage=storage) as cluster:
        log(cluster)
        clock.jump(-HOUR_S)
        log(cluster)
        wait_until(lambda: cluster.segments()[0].state != ACTIVE, "the segment is rotated by its age")
    with make_cluster(
        "young", ingest_module=MODULE, environ=clock.environ, storage={"rotation": {"max_age": "1h"}}
    ) as cluster:
        for jump_s in (YEAR_S, -2 * YEAR_S, YEAR_S):
            log(cluster)
            clock.jump(jump_s)
        log(cluster)
        assert [segment.state for segment in cluster.segments()] == [ACTIVE]
