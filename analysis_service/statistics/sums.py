"""What statistics ask for: sums of events by group, which the query service makes of them.

The rows that answer have the fields by which they are grouped, as texts, `time` and `value` where they are grouped by
them, and `count`; with times also `first` and `last`; with a value field that is not grouped by `value_count`,
`value_mean`, `value_squares`, `value_min` and `value_max`. Rows of the same group add up.
"""

from dataclasses import dataclass

import numpy as np

from analysis_service.columns import EventColumns, Floats, Integers


@dataclass(frozen=True, slots=True)
class Sums:
    """What to sum; see AggregateRequest. time_bucket_s: 0 not to group by time."""

    fields: tuple[str, ...]
    time_bucket_s: int = 0
    value_field: str = ""
    by_value: bool = False
    value_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Moments of the numbers of some rows that have any, an array each."""

    counts: Integers
    means: Floats
    squares: Floats
    minima: Floats
    maxima: Floats

    @classmethod
    def of(cls, sums: EventColumns) -> "Measured":
        """Those of all rows; where a row has no number, its count is 0."""
        doubles = (sums.numbers(f"value_{name}") for name in ("mean", "squares", "min", "max"))
        return cls(sums.whole("value_count"), *doubles)

    def take(self, rows: Integers | slice) -> "Measured":
        """Those of some rows, without rows that have no number."""
        here = np.arange(len(self.counts))[rows]
        here = here[self.counts[here] > 0]
        return Measured(self.counts[here], self.means[here], self.squares[here], self.minima[here], self.maxima[here])

    @property
    def count(self) -> int:
        """How many numbers."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Their mean. There must be one."""
        return float(np.average(self.means, weights=self.counts))
