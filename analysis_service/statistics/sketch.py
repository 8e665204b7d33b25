"""Percentiles of numbers, exact while there are few, then from a sketch of bounded size.

Rank definition: percentile p of n values is the smallest value that at least p % of them do not exceed, that is
the value of rank ceil(p / 100 * n) of the sorted values, counted from 1 (nearest rank).

The sketch counts values in buckets whose borders grow by a factor (as DDSketch does), so a percentile from it
differs from the exact one by at most RELATIVE_ERROR of its value, and the same values give the same counts in
whatever order and pieces they come. So do the middles of the same buckets, which the
query service gives in place of values. Values closer to zero than VALUE_MIN count as
zero; those beyond VALUE_MAX as VALUE_MAX.
"""

from collections.abc import Iterable

import numpy as np

from analysis_service.columns import Floats, Integers

RELATIVE_ERROR = 0.005
VALUE_MIN = 1e-9
VALUE_MAX = 1e19

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = np.log(_GAMMA)
_INDEX_MIN = int(np.ceil(np.log(VALUE_MIN) / _LOG_GAMMA))
_INDEX_MAX = int(np.ceil(np.log(VALUE_MAX) / _LOG_GAMMA))


def nearest_rank(percentile: float, count: int) -> int:
    """Rank of a percentile (above 0, at most 100) among `count` values, from 1."""
    # Rounded, because 99.9 / 100 * 1000 is a little more than 999.
    return min(count, max(1, int(np.ceil(round(percentile / 100 * count, 9)))))


def weighted_counts(numbers: Integers, counts: Integers) -> Integers:
    """How often each number from 0 on occurs, where each of the numbers given occurs so often."""
    # Doubles, in which bincount adds, are exact up to 2^53.
    return np.bincount(numbers, weights=counts).astype(np.int64)


class LogSketch:
    """Counts of values by logarithmic buckets; at most some 6,500 of either sign."""

    def __init__(self) -> None:
        self.positive = _Buckets()
        self.negative = _Buckets()
        self.zeros = 0

    @property
    def count(self) -> int:
        """Number of values."""
        return self.positive.count + self.negative.count + self.zeros

    def add(self, values: Floats, counts: Integers) -> None:
        """Count values, each so often; none may be NaN."""
        positive, negative = values >= VALUE_MIN, values <= -VALUE_MIN
        self.positive.add(values[positive], counts[positive])
        self.negative.add(-values[negative], counts[negative])
        self.zeros += int(counts[~(positive | negative)].sum())

    def percentile(self, percentile: float) -> float:
        """A percentile, within RELATIVE_ERROR. There must be values."""
        rank = nearest_rank(percentile, self.count)
        if rank <= self.negative.count:
            return -self.negative.value(self.negative.count - rank + 1)
        rank -= self.negative.count + self.zeros
        return 0.0 if rank <= 0 else self.positive.value(rank)


class Distribution:
    """Numbers, of which percentiles are asked: kept as they are, or counted in a sketch if they need not be exact."""

    def __init__(self, *, exact: bool = True) -> None:
        self.kept: list[tuple[Floats, Integers]] = []
        self.sketch: LogSketch | None = None if exact else LogSketch()
        self.count = 0

    @property
    def exact(self) -> bool:
        """Whether percentiles are exact, or within RELATIVE_ERROR."""
        return self.sketch is None

    def add(self, values: Floats, counts: Integers) -> None:
        """Take values, each so often; none may be NaN."""
        self.count += int(counts.sum())
        if self.sketch is not None:
            self.sketch.add(values, counts)
        elif len(values):
            self.kept.append((values, counts))

    def percentiles(self, wanted: Iterable[float]) -> dict[float, float]:
        """Each percentile asked for; empty where there is no value."""
        if not self.count:
            return {}
        if self.sketch is not None:
            return {percentile: self.sketch.percentile(percentile) for percentile in wanted}
        values, counts = (np.concatenate(each) for each in zip(*self.kept, strict=True))
        order = np.argsort(values)
        ranks = np.cumsum(counts[order])
        return {
            percentile: float(values[order[np.searchsorted(ranks, nearest_rank(percentile, self.count))]])
            for percentile in wanted
        }


class _Buckets:
    """Counts of positive values. Bucket i holds the values above gamma^(i-1), up to gamma^i."""

    def __init__(self) -> None:
        self.first = 0
        self.counts: Integers = np.zeros(0, np.int64)

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    def add(self, values: Floats, counts: Integers) -> None:
        if len(values):
            indices = np.ceil(np.log(values) / _LOG_GAMMA).clip(_INDEX_MIN, _INDEX_MAX).astype(np.int64)
            first = int(indices.min())
            self._add_counts(first, weighted_counts(indices - first, counts))

    def value(self, rank: int) -> float:
        index = self.first + int(np.searchsorted(np.cumsum(self.counts), rank))
        # The middle of the bucket in the sense that either border is as far away, relatively.
        return float(2 * np.exp(index * _LOG_GAMMA) / (_GAMMA + 1))

    def _add_counts(self, first: int, counts: Integers) -> None:
        if not len(self.counts):
            self.first, self.counts = first, counts.copy()
            return
        start = min(first, self.first)
        stop = max(first + len(counts), self.first + len(self.counts))
        grown = np.zeros(stop - start, np.int64)
        grown[self.first - start : self.first - start + len(self.counts)] = self.counts
        grown[first - start : first - start + len(counts)] += counts
        self.first, self.counts = start, grown
