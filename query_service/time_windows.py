"""How far to read on in the order of timestamps, so that a step looks at so many events, about. Pure.

Segments and their parts overlap in time, by a little or wholly: producers' clocks are what they are. So what is
known of each part, its first and last timestamp and its number of events, gives an estimate of the events in any
stretch of time. It decides how much a step does, never what an answer is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FIRST_NS, LAST_NS = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Part:
    """Events with timestamps from first_ns to last_ns, both included, and how many there are."""

    first_ns: int
    last_ns: int
    rows: int

    def overlaps(self, first_ns: int, last_ns: int) -> bool:
        """Whether it may have a timestamp from first_ns to last_ns, both included."""
        return self.first_ns <= last_ns and self.last_ns >= first_ns


class TimeWindows:
    """The parts of a log, spread over time."""

    def __init__(self, parts: Sequence[Part], *, descending: bool) -> None:
        self._descending = descending
        # Downwards is upwards with the signs changed.
        ends = [(-part.last_ns, -part.first_ns) if descending else (part.first_ns, part.last_ns) for part in parts]
        self._first = np.array([first for first, _ in ends], np.float64)
        self._length = np.array([last - first + 1 for first, last in ends], np.float64)
        self._rows = np.array([part.rows for part in parts], np.float64)
        self._end = max((last for _, last in ends), default=FIRST_NS)

    def rows_between(self, start_ns: int, end_ns: int) -> int:
        """Estimate how many events have timestamps from start_ns to end_ns, both included, in either order."""
        first, last = min(start_ns, end_ns), max(start_ns, end_ns)
        if self._descending:
            first, last = -last, -first
        return int(self._rows_before(last + 1) - self._rows_before(first))

    def end_of(self, start_ns: int, rows: int) -> int | None:
        """Return the last timestamp of a step from start_ns on, of about `rows` events; None: it reaches the end."""
        start = -start_ns if self._descending else start_ns
        before = self._rows_before(start)
        low, high = start, self._end
        if low >= high or self._rows_before(high + 1) - before <= rows:
            return None
        while low < high:
            middle = (low + high + 1) // 2
            if self._rows_before(middle + 1) - before <= rows:
                low = middle
            else:
                high = middle - 1
        return -low if self._descending else low

    def _rows_before(self, time_ns: int) -> float:
        """Estimate how many events have smaller timestamps, as if those of a part were spread evenly."""
        shares = np.clip((float(time_ns) - self._first) / self._length, 0.0, 1.0)
        return float(np.dot(shares, self._rows))
