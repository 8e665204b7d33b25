"""The stretch of events that the demo streams and replays, and the line that shows it."""

import numpy as np
from eventlog.v1 import event_pb2, ingest_service_pb2

from deploy.demo.batches import Batches
from deploy.demo.sparkline import sparkline
from deploy.demo.stretch import liveliest_stretch


def source(name: str, *seconds: float) -> Batches:
    """Events at these times, in one request."""
    request = ingest_service_pb2.LogBatchRequest()
    for second in seconds:
        event = event_pb2.NewEvent(type=f"at {second}")
        event.timestamp.FromNanoseconds(round(second * 1e9))
        request.events.append(event)
    request.events.append(event_pb2.NewEvent(type="never"))
    return Batches(name, [request])


def types_of(events) -> list[str]:
    """The types of events."""
    return [event.type for event in events]


def test_the_liveliest_stretch_has_events_in_most_seconds():
    """Not the most events count, but the seconds that have some; order is that of time."""
    burst = source("burst", *(100 + number / 100 for number in range(20)))
    steady = source("steady", 1.0, 50.0, 12.0, 10.0, 11.0, 13.5)
    stretch = liveliest_stretch([burst, steady], seconds=4, events_max=100)
    assert stretch.name == "steady"
    assert types_of(stretch.events) == ["at 10.0", "at 11.0", "at 12.0", "at 13.5"]
    assert stretch.seconds == 3.5


def test_a_whole_stretch_is_better_than_one_that_is_cut_off():
    """Where there are too many events a quieter stretch is chosen; if there is none, it is cut off."""
    dense = source("dense", *(number / 10 for number in range(100)))
    quiet = source("quiet", 1.0, 2.0)
    assert liveliest_stretch([dense, quiet], seconds=5, events_max=10).name == "quiet"
    assert len(liveliest_stretch([dense], seconds=5, events_max=1).events) == 1


def test_sparkline_shows_where_most_happened():
    """The fullest part is the highest; empty ones are blank; nothing happening is a blank line."""
    line = sparkline(np.array([0.0, 0.0, 0.0, 5.0, 10.0]), until=10.0)
    assert len(line) == 60
    assert (line[0], line[1], line[30], line[-1]) == ("█", " ", "▃", "▃")
    assert sparkline(np.array([]), until=0.0).strip() == ""
