"""`new_type` and `rare_type`: event types that never occurred before, or hardly ever do.

New: after a time of learning, the probability that the next event has a type not seen yet is estimated from how many
types occurred only once so far (Good and Turing): the smaller, the stranger a new type is. Rare: types of which there
are few events in all, among many of others. Events of strange types close together are one incident.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from analysis_service.anomalies.incident import EVENTS_NAMED_MAX, Incident
from analysis_service.columns import EventColumns
from analysis_service.expressions import all_of, between, one_of
from analysis_service.words import number_in_words

LEARNING_EVENTS = 1_000
TYPES_MAX = 10_000
# Of all events, the share that types must stay below to be rare, and how many events they may have.
RARE_SHARE, RARE_EVENTS_MAX = 1e-4, 10
# Decimal digits of improbability that the default sensitivity reports.
_DIGITS_NEEDED = 4.4
_TOGETHER_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class _Strange:
    time_ns: int
    position: int
    type: str
    source: str | None
    strength: float
    new: bool


class KindDetector:
    """Watches types. Events must come in the order of time.

    learning_until_ns: types that occur first before it are not new. A rare type is told at the end only, when it is
    known to have stayed rare.
    """

    def __init__(self, *, needed: float, learning_until_ns: int) -> None:
        self._needed = needed
        self._learning_until_ns = learning_until_ns
        self._counts: Counter[str] = Counter()
        self._few: dict[str, list[_Strange]] = {}
        self._new: list[_Strange] = []
        self._events = 0

    def advance(self, events: EventColumns) -> None:
        """Take events, none before those taken already."""
        labels, sources = events.labels("type"), events.labels("source")
        before = Counter(self._counts)
        counts = np.bincount(labels.codes, minlength=len(labels.values))
        order = np.argsort(labels.codes, kind="stable")
        borders = np.concatenate(([0], np.cumsum(counts)))
        for code in np.flatnonzero(counts).tolist():
            kind = labels.values[code]
            rows = order[borders[code] : borders[code + 1]][: RARE_EVENTS_MAX + 1].tolist()
            if before[kind] <= RARE_EVENTS_MAX and len(self._counts) < TYPES_MAX:
                found = self._few.setdefault(kind, [])
                for row in rows:
                    source = sources.text(int(sources.codes[row]))
                    new = self._is_new(kind, found, events, row)
                    strength = self._surprise(self._events + row) if new else 0.0
                    time, position = int(events.times[row]), int(events.positions[row])
                    found.append(_Strange(time, position, kind, source, strength, new=new))
                    self._new += found[-1:] if new else []
            self._counts[kind] += int(counts[code])
            if self._counts[kind] > RARE_EVENTS_MAX:
                self._few.pop(kind, None)
        self._events += len(events)

    def incidents(self) -> list[Incident]:
        """New types so far, and types that are rare as of now."""
        strange = [each for each in self._new if each.strength >= self._needed]
        told = {each.type for each in strange}
        for kind, found in self._few.items():
            share = self._counts[kind] / max(1, self._events)
            times = np.array([each.time_ns for each in found])
            occasions = 1 + int((np.diff(times) > _TOGETHER_NS).sum())
            # Events at the same time are one occasion, and what comes again and again is rare but not strange.
            strength = float(-np.log10(occasions**2 / max(1, self._events)) / _DIGITS_NEEDED)
            if kind not in told and share < RARE_SHARE and strength >= self._needed:
                strange += [replace(each, strength=strength) for each in found]
        strange.sort(key=lambda each: each.time_ns)
        groups: list[list[_Strange]] = []
        for each in strange:
            if groups and each.time_ns - groups[-1][-1].time_ns <= _TOGETHER_NS:
                groups[-1].append(each)
            else:
                groups.append([each])
        return [self._incident(group) for group in groups]

    def _is_new(self, kind: str, found: list[_Strange], events: EventColumns, row: int) -> bool:
        first = not found and not self._counts[kind]
        return first and self._events + row >= LEARNING_EVENTS and int(events.times[row]) >= self._learning_until_ns

    def _surprise(self, events_before: int) -> float:
        singles = sum(1 for count in self._counts.values() if count == 1)
        return float(-np.log10((singles + 0.5) / (events_before + 1)) / _DIGITS_NEEDED)

    def _incident(self, group: list[_Strange]) -> Incident:
        group = sorted(group, key=lambda each: (-each.strength, each.time_ns))
        types = tuple(dict.fromkeys(each.type for each in group))
        new = any(each.new for each in group)
        start, end = min(each.time_ns for each in group), max(each.time_ns for each in group) + 1
        seen = ", ".join(f"{kind} ({number_in_words(self._counts[kind])} in all)" for kind in types[:5])
        more = f" and {len(types) - 5} other types" if len(types) > 5 else ""
        verb = "hardly ever occur" if len(types) > 1 else "never occurred before" if new else "is rare"
        # Strange types that come together are stranger than one, but not by their number.
        strength = group[0].strength * (1 + 0.1 * np.log2(len(types)))
        return Incident(
            "new_type" if new else "rare_type",
            float(strength),
            types,
            tuple(dict.fromkeys(each.source for each in group if each.source is not None)),
            start,
            end,
            ongoing=False,
            expected_low=0.0,
            expected_high=0.0,
            actual=float(len(group)),
            explanation=f"{seen}{more} {verb} among {number_in_words(self._events)} events",
            expression=all_of(one_of("type", types), between(start, end)),
            positions=tuple(each.position for each in group[:EVENTS_NAMED_MAX]),
        )
