"""A stretch of recorded events: so long that it can be played again while somebody watches, and never dull.

Pure. Knows nothing of where the events came from but the names of their sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from eventlog.v1 import event_pb2

from deploy.demo.batches import Batches

_NANOS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """Events of one source, in the order in which they happened; at least one."""

    name: str
    events: list[event_pb2.NewEvent]

    @property
    def seconds(self) -> float:
        """Time from the first event to the last."""
        return (_time_ns(self.events[-1]) - _time_ns(self.events[0])) / _NANOS_PER_SECOND


def liveliest_stretch(sources: Sequence[Batches], *, seconds: int, events_max: int) -> Stretch:
    """The stretch of so many seconds with events in most of them, and no more than events_max in all.

    Where each stretch has more, it is cut off. The sources have at least one event with a timestamp.
    """
    best, best_score = Stretch("", []), (False, 0)
    for source in sources:
        events = sorted(_timed_events(source), key=_time_ns)
        if not events:
            continue
        start, stop, score = _liveliest(np.array([*map(_time_ns, events)]), seconds, events_max)
        if score > best_score:
            best, best_score = Stretch(source.name, events[start:stop]), score
    assert best.events, "no source has an event that says when it happened"
    return best


def _liveliest(times_ns: npt.NDArray[np.int64], seconds: int, events_max: int) -> tuple[int, int, tuple[bool, int]]:
    """The rows [start, stop) of the best stretch; whether it is whole, and how many seconds of it have events."""
    stops = times_ns.searchsorted(times_ns + seconds * _NANOS_PER_SECOND)
    whole = stops - np.arange(len(times_ns)) <= events_max
    stops = np.minimum(stops, np.arange(len(times_ns)) + events_max)
    nth_second = np.cumsum(np.diff(times_ns // _NANOS_PER_SECOND, prepend=-1) != 0)
    lively = nth_second[stops - 1] - nth_second + 1
    start = int(np.where(whole, lively + seconds + 1, lively).argmax())
    return start, int(stops[start]), (bool(whole[start]), int(lively[start]))


def _timed_events(source: Batches) -> list[event_pb2.NewEvent]:
    return [event for request in source.requests for event in request.events if event.HasField("timestamp")]


def _time_ns(event: event_pb2.NewEvent) -> int:
    return event.timestamp.seconds * _NANOS_PER_SECOND + event.timestamp.nanos
