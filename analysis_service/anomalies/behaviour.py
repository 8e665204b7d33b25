"""`unusual_case`: cases whose mix of event types is unlike all cases before.

The events of a case are counted by type and by pair of types that follow each other; the counts are made a vector of
length 1. Its distance from the nearest case before is compared with what such distances were before. A case is judged
when its events end; cases of one or two events say nothing and are left out.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from analysis_service.anomalies.incident import EVENTS_NAMED_MAX, Incident
from analysis_service.columns import EventColumns
from analysis_service.expressions import equals
from analysis_service.patterns.cases import Cases, group_into_cases
from analysis_service.words import number_in_words

WARM_UP_CASES = 100
KNOWN_MAX = 5_000
INCIDENTS_MAX = 1_000
FEATURES_MAX = 4_096
_EVENTS_MIN = 3
# At the default sensitivity a distance must exceed this one and, by the margin, the greatest so far.
_DISTANCE_MIN = 0.2
_MARGIN = 1.15


@dataclass(slots=True)
class _Known:
    """Vectors of different cases so far; at most KNOWN_MAX, the newest replace the oldest."""

    vectors: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((64, 64), np.float32))
    count: int = 0
    added: int = 0

    def nearest(self, vector: npt.NDArray[np.float32]) -> float:
        self._widen(len(vector))
        if not self.count:
            return 1.0
        closeness = self.vectors[: self.count, : len(vector)] @ vector
        return float(max(0.0, 1.0 - closeness.max()))

    def add(self, vector: npt.NDArray[np.float32]) -> None:
        if self.count == len(self.vectors) and self.count < KNOWN_MAX:
            self.vectors = np.pad(self.vectors, ((0, min(self.count, KNOWN_MAX - self.count)), (0, 0)))
        place = self.added % KNOWN_MAX
        self.vectors[place] = 0
        self.vectors[place, : len(vector)] = vector
        self.added += 1
        self.count = min(self.added, KNOWN_MAX)

    def _widen(self, width: int) -> None:
        if width > self.vectors.shape[1]:
            self.vectors = np.pad(self.vectors, ((0, 0), (0, 2 * width - self.vectors.shape[1])))


class BehaviourDetector:
    """Judges whole cases, in the order in which they began."""

    def __init__(self, *, needed: float, key: str = "correlation_id") -> None:
        self._needed = needed
        self._key = key
        self._features: dict[tuple[str, ...], int] = {}
        self._known = _Known()
        self._cases = 0
        self._greatest = 0.0
        self._incidents: list[Incident] = []

    def advance(self, events: EventColumns) -> None:
        """Take cases; the events of a case must come together in one call."""
        if not events.has(self._key):
            return
        cases = group_into_cases(events, self._key)
        codes = cases.codes.astype(np.int32)
        borders = cases.borders.tolist()
        distinct: dict[bytes, npt.NDArray[np.float32]] = {}
        for case in range(len(cases)):
            start, stop = borders[case], borders[case + 1]
            if stop - start < _EVENTS_MIN:
                continue
            self._cases += 1
            sequence = codes[start:stop].tobytes()
            if sequence not in distinct:
                distinct[sequence] = self._vector(cases.texts(tuple(codes[start:stop].tolist())))
                self._judge(events, cases, case, distinct[sequence])

    def incidents(self) -> list[Incident]:
        """All so far."""
        return list(self._incidents)

    def _vector(self, types: tuple[str, ...]) -> npt.NDArray[np.float32]:
        features = [*((kind,) for kind in types), *pairwise(types)]
        for feature in features[: FEATURES_MAX - len(self._features)]:
            self._features.setdefault(feature, len(self._features))
        numbers = [self._features[feature] for feature in features if feature in self._features]
        # Roots of counts, so that a loop that goes round once more changes little.
        counts = np.sqrt(np.bincount(numbers, minlength=len(self._features))).astype(np.float32)
        vector: npt.NDArray[np.float32] = counts / max(float(np.linalg.norm(counts)), 1e-9)
        return vector

    def _judge(self, events: EventColumns, cases: Cases, case: int, vector: npt.NDArray[np.float32]) -> None:
        distance = self._known.nearest(vector)
        if distance < 1e-6:
            return
        strength = distance / (_MARGIN * max(self._greatest, _DISTANCE_MIN))
        if self._cases > WARM_UP_CASES and strength >= self._needed:
            self._incidents.append(self._incident(events, cases, case, distance, strength))
            del self._incidents[:-INCIDENTS_MAX]
        elif self._cases > WARM_UP_CASES // 2:
            self._greatest = max(self._greatest, distance)
        self._known.add(vector)

    def _incident(self, events: EventColumns, cases: Cases, case: int, distance: float, strength: float) -> Incident:
        start, stop = int(cases.borders[case]), int(cases.borders[case + 1])
        rows = cases.rows[start:stop]
        types = tuple(dict.fromkeys(cases.texts(tuple(cases.codes[start:stop].tolist()))))
        sources = events.labels("source")
        named = dict.fromkeys(sources.text(code) for code in sources.codes[rows].tolist())
        return Incident(
            "unusual_case",
            strength,
            types,
            tuple(source for source in named if source is not None),
            int(cases.times[start]),
            int(cases.times[stop - 1]) + 1,
            ongoing=False,
            expected_low=0.0,
            expected_high=max(self._greatest, _DISTANCE_MIN),
            actual=distance,
            explanation=f"the {stop - start} events of {cases.names[case]} are a mix unlike that of "
            f"{number_in_words(self._cases - 1)} cases before (distance {distance:.2f} from the nearest)",
            expression=equals(self._key, cases.names[case]),
            positions=tuple(events.positions[rows[:EVENTS_NAMED_MAX]].tolist()),
        )
