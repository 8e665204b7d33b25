"""Starts and seeks where retention has removed segments, or one class of a segment: every answer is defined."""

import datetime as dt

import pytest
from eventlog.v1 import event_pb2, stream_service_pb2

from tests.support.clocked_ingest import MODULE, SettableClock
from tests.support.cluster import CALL_S_MAX, get_event, read_range
from tests.support.stream_reader import acknowledge, log, subscribe

pytestmark = pytest.mark.cluster

Start = stream_service_pb2.StreamStart

# Segments of ten events. The first is removed; of the third only the errors are left, at every fifth position.
SEGMENT = 10
KEPT = [*range(11, 21), 25, 30, *range(31, 41)]
LAST = 40
# All but errors may be removed at this age.
AGE_S = 100 * 86_400


@pytest.fixture(scope="module")
def trimmed(module_cluster, tmp_path_factory):
    """A cluster whose log has gaps, the recorded times of all its events, and a subscription that stands in the first.

    Nothing that the tests do changes the log.
    """
    clock = SettableClock(tmp_path_factory.mktemp("clock") / "clock")
    clock.jump(-AGE_S)
    settings = {"ingest_module": MODULE, "environ": clock.environ, "streaming": {"heartbeat_interval": "300ms"}}
    with module_cluster(with_stream=True, **settings) as cluster:
        with subscribe(cluster, subscription="early", earliest=True) as reader:
            for first in range(1, LAST, SEGMENT):
                for position in range(first, first + SEGMENT):
                    log(cluster, event_type="error" if position % 5 == 0 else "test.happened")
                cluster.rotate()
            reader.wait_for(LAST)
            acknowledge(cluster, "early", up_to_position=5)
        times = {event.position: event.recorded_at.ToNanoseconds() for event in read_range(cluster, 1)}
        cluster.wait_until_sealed()
        remove(cluster, 1, "*")
        remove(cluster, 21, "default")
        # Live blocks would give what the log does not have any more.
        cluster.stream.terminate()
        cluster.stream.start()
        yield cluster, times


def remove(cluster, first, retention_class):
    """Remove files of the segment that begins with a position, as retention does."""
    found = list((cluster.log / "segments").glob(f"{first:020d}-*.{retention_class}.parquet"))
    assert found
    for path in found:
        path.unlink()
        path.with_suffix(".idx").unlink(missing_ok=True)
        path.with_suffix(".par").unlink(missing_ok=True)


def at(time_ns):
    """A start at a time."""
    start = Start()
    start.time.FromNanoseconds(time_ns)
    return start


def far(year):
    """A start at a time far from now."""
    start = Start()
    start.time.FromDatetime(dt.datetime(year, 1, 1, tzinfo=dt.UTC))
    return start


def starts(times):
    """Each kind of start, and the first event that it gives; None where that is still to come."""
    return {
        "earliest": (Start(earliest=True), 11),
        "removed position": (Start(position=3), 11),
        "position inside of a gap": (Start(position=22), 25),
        "first position": (Start(position=1), 11),
        "before the first event": (far(2001), 11),
        "time of a removed event": (at(times[3]), 11),
        "time inside of a gap": (at(times[26]), 30),
        "time of a kept event": (at(times[31]), 31),
        "behind the last event": (at(times[LAST] + 1), None),
        "in the future": (far(2200), None),
        "beyond the end": (Start(position=LAST + 1000), None),
        "now": (Start(), None),
    }


def test_subscribing(trimmed):
    """A subscription gives what is kept from its start on, says what it misses, and goes live."""
    cluster, times = trimmed
    for what, (start, first) in starts(times).items():
        with subscribe(cluster, start=start) as reader:
            reader.wait(lambda reader=reader: reader.of("caught_up"), f"caught up from {what}")
            expected = [] if first is None else KEPT[KEPT.index(first) :]
            assert reader.positions == expected, what
            assert reader.of("caught_up")[0].position == LAST, what
            dropped = [(each.first_position, each.last_position, each.reason) for each in reader.of("dropped")]
            removed = start.position if 0 < start.position < KEPT[0] else 0
            assert dropped == ([(removed, KEPT[0] - 1, "TRIMMED")] if removed else []), what


def test_seeking(trimmed):
    """A durable subscription that is moved goes on with the same event as one that begins there."""
    cluster, times = trimmed
    subscribe(cluster, subscription="seeker").close()
    for what, (start, first) in starts(times).items():
        request = stream_service_pb2.SeekSubscriptionRequest(subscription="seeker", start=start)
        next_position = cluster.streams.SeekSubscription(request, timeout=CALL_S_MAX).next_position
        assert next_position <= (first or LAST + 1), what
        with subscribe(cluster, subscription="seeker") as reader:
            reader.wait(lambda reader=reader: reader.of("caught_up"), f"caught up from {what}")
            assert reader.positions == ([] if first is None else KEPT[KEPT.index(first) :]), what


def test_a_checkpoint_below_what_is_kept_moves_on(trimmed):
    """A subscription whose next events were removed is told so, and goes on with what is kept."""
    cluster, _ = trimmed
    with subscribe(cluster, subscription="early") as reader:
        reader.wait(lambda: reader.of("caught_up"), "it has caught up")
        assert reader.positions == KEPT
        (dropped,) = reader.of("dropped")
        assert (dropped.first_position, dropped.last_position, dropped.reason) == (6, 10, "TRIMMED")
        assert acknowledge(cluster, "early", up_to_position=LAST).checkpoint_position == LAST


def test_filters_hold_around_gaps(trimmed):
    """What matches is found on both sides of a gap; a query agrees with the stream."""
    cluster, _ = trimmed
    filters = event_pb2.EventFilters(type_patterns=["error"])
    with subscribe(cluster, earliest=True, filters=filters) as reader:
        reader.wait(lambda: reader.of("caught_up"), "it has caught up")
        assert reader.positions == [15, 20, 25, 30, 35, 40]
    assert get_event(cluster, 25).type == "error"
