"""Which values a field has, how many different ones, and which are frequent, in bounded memory.

Distinct values are counted by their hashes (64 bits), exactly up to EXACT_DISTINCT_MAX at least, then estimated
(HyperLogLog, 2^14 registers: standard error 0.8 %). Frequent values are counted exactly up to VALUES_KEPT_MAX
different ones of VALUE_BYTES_MAX together; beyond, rare values are forgotten, and a count may be too low by
`undercount_max`. Where there are many tallies each keeps fewer, so that all together are bounded.
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis_service.columns import Integers
from analysis_service.hashes import Hashes, hashes_of
from analysis_service.statistics.sketch import weighted_counts
from shared.columns.arrow import StringArray
from shared.columns.arrow import compute as pc
from shared.columns.bytes_view import value_lengths

EXACT_DISTINCT_MAX = 65_536
VALUES_KEPT_MAX = 10_000
VALUE_BYTES_MAX = 2 * 1024 * 1024
# Of all tallies of an answer together, but for the fewest that each one keeps.
_ALL_DISTINCT, _ALL_VALUES, _ALL_BYTES = 8_000_000, 1_000_000, 128 * 1024 * 1024
_DISTINCT_MIN, _VALUES_MIN, _BYTES_MIN = 1_000, 100, 16 * 1024

_REGISTER_BITS = 14
_REGISTERS = 1 << _REGISTER_BITS


class DistinctCounter:
    """Counts different texts."""

    def __init__(self, *, exact_max: int = EXACT_DISTINCT_MAX) -> None:
        self._exact_max = exact_max
        self._hashes: Hashes = np.zeros(0, np.uint64)
        # Of texts that came since the hashes were last made distinct.
        self._more: list[Hashes] = []
        self._registers: npt.NDArray[np.uint8] | None = None

    @property
    def exact(self) -> bool:
        """Whether the count is exact."""
        return self._registers is None

    @property
    def count(self) -> int:
        """Number of different texts so far."""
        if self._registers is None:
            self._make_distinct()
            return len(self._hashes)
        harmonic = float(np.sum(np.exp2(-self._registers.astype(np.float64))))
        return round(0.7213 / (1 + 1.079 / _REGISTERS) * _REGISTERS**2 / harmonic)

    def add(self, texts: StringArray) -> None:
        """Count texts, none of them null; each may come again."""
        hashes = hashes_of(texts)
        if self._registers is not None:
            _register(self._registers, hashes)
            return
        self._more.append(hashes)
        if sum(map(len, self._more)) > self._exact_max:
            self._make_distinct()
        if len(self._hashes) > self._exact_max:
            self._registers = np.zeros(_REGISTERS, np.uint8)
            _register(self._registers, self._hashes)
            self._hashes = np.zeros(0, np.uint64)

    def _make_distinct(self) -> None:
        if self._more:
            self._hashes = np.unique(np.concatenate([self._hashes, *self._more]))
            self._more = []


class Tally:
    """Counts the values of one field."""

    def __init__(
        self,
        *,
        values_kept_max: int = VALUES_KEPT_MAX,
        bytes_max: int = VALUE_BYTES_MAX,
        exact_distinct_max: int = EXACT_DISTINCT_MAX,
    ) -> None:
        self._values_kept_max = values_kept_max
        self._bytes_max = bytes_max
        self._texts: list[StringArray] = []
        self._counts: list[Integers] = []
        self.distinct = DistinctCounter(exact_max=exact_distinct_max)
        self.undercount_max = 0

    @classmethod
    def one_of(cls, tallies: int) -> Self:
        """One of so many tallies of an answer."""
        return cls(
            values_kept_max=max(_VALUES_MIN, min(VALUES_KEPT_MAX, _ALL_VALUES // tallies)),
            bytes_max=max(_BYTES_MIN, min(VALUE_BYTES_MAX, _ALL_BYTES // tallies)),
            exact_distinct_max=max(_DISTINCT_MIN, min(EXACT_DISTINCT_MAX, _ALL_DISTINCT // tallies)),
        )

    def add(self, texts: StringArray, counts: Integers) -> None:
        """Count values, each so often; nulls count nowhere."""
        there = texts.is_valid().to_numpy(zero_copy_only=False)
        if not there.any():
            return
        texts, counts = texts.filter(pa.array(there)), counts[there]
        self.distinct.add(texts)
        self._texts.append(texts)
        self._counts.append(counts)
        if sum(map(len, self._counts)) > 2 * self._values_kept_max or self._bytes > 2 * self._bytes_max:
            self._count_together()

    def top(self, number: int) -> list[tuple[str, int]]:
        """The most frequent values with their counts, most frequent first, ties by value."""
        if not self._texts:
            return []
        self._count_together()
        table = pa.table({"text": self._texts[0], "count": self._counts[0]})
        order = pc.select_k_unstable(table, number, [("count", "descending"), ("text", "ascending")])
        chosen = table.take(order)
        return [(row["text"], row["count"]) for row in chosen.to_pylist()]

    def _count_together(self) -> None:
        """Have each value once, and forget the rare ones where there are too many."""
        encoded: Any = pa.concat_arrays(self._texts).dictionary_encode()
        codes: Integers = encoded.indices.cast(pa.int64()).to_numpy()
        texts, counts = encoded.dictionary, weighted_counts(codes, np.concatenate(self._counts))
        self._texts, self._counts = [texts], [counts]
        if len(counts) > 2 * self._values_kept_max or self._bytes > 2 * self._bytes_max:
            order = np.argsort(-counts, kind="stable")
            fitting = np.searchsorted(np.cumsum(value_lengths(texts)[order]), self._bytes_max, side="right")
            number = min(int(fitting), self._values_kept_max, len(order) - 1)
            self.undercount_max += int(counts[order[number]])
            kept = order[:number]
            self._texts, self._counts = [texts.take(pa.array(kept))], [counts[kept]]

    @property
    def _bytes(self) -> int:
        return sum(texts.nbytes for texts in self._texts)


def _register(registers: npt.NDArray[np.uint8], hashes: Hashes) -> None:
    index = (hashes >> np.uint64(64 - _REGISTER_BITS)).astype(np.int64)
    # The bit behind the hash bounds the run of zeros.
    rest = (hashes << np.uint64(_REGISTER_BITS)) | np.uint64(1 << (_REGISTER_BITS - 1))
    rank = 65 - np.frexp(rest.astype(np.float64))[1]
    np.maximum.at(registers, index, rank.astype(np.uint8))
