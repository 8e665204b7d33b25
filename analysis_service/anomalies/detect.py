"""All detectors together: over a stretch of history, or following the log live.

    detector = AnomalyDetector(options)
    detector.advance(events)      # as often as there are new ones
    detector.finish()             # at the end of history only
    detector.incidents()

Invariants: an event counts once, however often it is delivered; within `lateness_ns` the order in which events arrive
does not matter; later ones are counted in `late_events` and teach the detectors nothing. Memory is bounded.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from analysis_service.anomalies.behaviour import BehaviourDetector
from analysis_service.anomalies.incident import (
    DEFAULT_SENSITIVITY,
    EVENTS_NAMED_MAX,
    Incident,
    explained,
    ranked,
    strength_needed,
    with_positions,
)
from analysis_service.anomalies.kinds import KindDetector
from analysis_service.anomalies.rates import RateDetector
from analysis_service.anomalies.silence import SilenceDetector
from analysis_service.anomalies.values import ValueDetector
from analysis_service.columns import EventColumns, Integers, event_order

KINDS = ("rate", "value", "new_type", "rare_type", "missing", "unusual_case")
BUCKET_NS = 60_000_000_000
_BUCKETS_MAX = 100_000
_LEARNING_NS_MAX = 86_400_000_000_000
POSITIONS_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Options:
    """What to look for. kinds: some of KINDS. value_fields: payload fields whose numbers are judged.

    start_ns, end_ns: of the stretch, [start, end); end_ns None where the log is followed. lateness_ns: how long to
    wait for events that come out of order; history has none to wait for. begin: told each kind before it is looked for;
    what it raises ends the search.
    """

    start_ns: int
    end_ns: int | None = None
    sensitivity: float = DEFAULT_SENSITIVITY
    kinds: tuple[str, ...] = KINDS
    value_fields: tuple[str, ...] = ("payload.duration_ms",)
    case_key: str = "correlation_id"
    lateness_ns: int = 60_000_000_000
    begin: Callable[[str], None] = lambda _: None

    @property
    def bucket_ns(self) -> int:
        """Width of the buckets that rates are counted in: a minute, more over a very long stretch."""
        length = 0 if self.end_ns is None else self.end_ns - self.start_ns
        return max(1, -(-length // (_BUCKETS_MAX * BUCKET_NS))) * BUCKET_NS

    @property
    def learning_until_ns(self) -> int:
        """Until then new types are not told: the first day, or half of a shorter stretch."""
        half = _LEARNING_NS_MAX if self.end_ns is None else (self.end_ns - self.start_ns) // 2
        return self.start_ns + min(half, _LEARNING_NS_MAX)


class AnomalyDetector:
    """State of all detectors. One task at a time may use it."""

    def __init__(self, options: Options) -> None:
        needed = strength_needed(options.sensitivity)
        self._options = options
        self._waiting: list[EventColumns] = []
        self._seen: Integers = np.zeros(0, np.int64)
        self._watermark_ns = np.iinfo(np.int64).min
        self._rates = RateDetector(needed=needed, bucket_ns=options.bucket_ns, case_key=options.case_key)
        self._silence = SilenceDetector(needed=needed)
        self._values = ValueDetector(needed=needed, fields=options.value_fields)
        self._kinds = KindDetector(needed=needed, learning_until_ns=options.learning_until_ns)
        self._behaviour = BehaviourDetector(needed=needed, key=options.case_key)
        self.late_events = 0

    def advance(self, events: EventColumns) -> None:
        """Take events in whatever order; those that are settled are judged."""
        events = self._without_repeated(events)
        if not len(events):
            return
        late = events.times < self._watermark_ns
        self.late_events += int(late.sum())
        self._waiting.append(events.take(~late) if late.any() else events)
        self._settle(int(events.times.max()) - self._options.lateness_ns)

    def pass_time(self, now_ns: int) -> None:
        """It is this late by the clock: what is older than the lateness has settled, though nothing newer came."""
        settled_ns = now_ns - self._options.lateness_ns
        self._settle(settled_ns)
        self._rates.close_until(settled_ns)
        self._silence.close_until(settled_ns)

    def finish(self) -> None:
        """Nothing comes any more: judge what still waits, up to the end of the stretch."""
        self._settle(np.iinfo(np.int64).max)
        if self._options.end_ns is not None:
            self._silence.close_until(self._options.end_ns)
            self._rates.close_until(self._options.end_ns)
        self._values.finish()
        self._behaviour.finish()

    def incidents(self) -> list[Incident]:
        """Incidents so far, the strongest first."""
        detectors = (self._rates, self._values, self._kinds, self._silence, self._behaviour)
        found = (incident for detector in detectors for incident in detector.incidents())
        return ranked(explained(incident for incident in found if incident.kind in self._options.kinds))

    def _without_repeated(self, events: EventColumns) -> EventColumns:
        """The events whose position was not seen yet, each once."""
        _, first = np.unique(events.positions, return_index=True)
        if len(self._seen):
            place = np.searchsorted(self._seen, events.positions[first]).clip(0, len(self._seen) - 1)
            first = first[self._seen[place] != events.positions[first]]
        remembered = np.concatenate((self._seen, events.positions[first]))
        # Positions that are sorted already are sorted quickly, and nearly all are newer than those seen before.
        self._seen = np.sort(remembered, kind="stable")[-POSITIONS_REMEMBERED:]
        return events.take(first)

    def _settle(self, until_ns: int) -> None:
        """Judge what happened before a time, in order."""
        self._watermark_ns = max(self._watermark_ns, until_ns)
        waiting = [each for each in self._waiting if len(each)]
        if not waiting:
            return
        together = waiting[0] if len(waiting) == 1 else EventColumns(pa.concat_tables([each.table for each in waiting]))
        order = event_order(together)
        settled = int(np.searchsorted(together.times[order], until_ns))
        self._waiting = [together.take(order[settled:])]
        self._judge(together.take(order[:settled]))

    def _judge(self, events: EventColumns) -> None:
        if not len(events):
            return
        searches: dict[str, Callable[[], None]] = {
            "rate": lambda: self._rates.advance(events),
            "value": lambda: self._values.advance(events),
            "new_type": lambda: self._kinds.advance(events),
            "missing": lambda: self._silence.advance(events),
            "unusual_case": lambda: self._behaviour.advance(events, self._watermark_ns),
        }
        # One search finds new types and rare ones.
        wanted = {"new_type" if kind == "rare_type" else kind for kind in self._options.kinds}
        for kind, search in searches.items():
            if kind in wanted:
                self._options.begin(kind)
                search()


def detect(events: EventColumns, options: Options) -> list[Incident]:
    """Incidents of a stretch of history, with events that contributed, the strongest first."""
    end_ns = np.iinfo(np.int64).max if options.end_ns is None else options.end_ns
    events = events.take((events.times >= options.start_ns) & (events.times < end_ns))
    detector = AnomalyDetector(options)
    detector.advance(events)
    detector.finish()
    return [_with_events(each, events) for each in detector.incidents()]


def _with_events(incident: Incident, events: EventColumns) -> Incident:
    if incident.positions:
        return incident
    inside = (events.times >= incident.start_ns) & (events.times < incident.end_ns)
    if incident.types:
        inside &= np.isin(events.labels("type").codes, _codes(events, incident.types))
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(events.times[rows], kind="stable")][:EVENTS_NAMED_MAX]
    return with_positions(incident, events.positions[rows].tolist())


def _codes(events: EventColumns, types: Iterable[str]) -> list[int]:
    wanted = set(types)
    return [code for code, text in enumerate(events.labels("type").values) if text in wanted]
