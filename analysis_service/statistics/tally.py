"""Which values a field has, how many different ones, and which are frequent, in bounded memory.

Distinct values are counted by their hashes (64 bits), exactly up to EXACT_DISTINCT_MAX, then estimated
(HyperLogLog, 2^14 registers: standard error 0.8 %). Frequent values are counted exactly up to VALUES_KEPT_MAX
different ones; beyond, rare values are forgotten, and a count may be too low by `undercount_max`.
"""

from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from analysis_service.columns import MISSING, Integers, Labels

EXACT_DISTINCT_MAX = 65_536
VALUES_KEPT_MAX = 10_000

_REGISTER_BITS = 14
_REGISTERS = 1 << _REGISTER_BITS


class DistinctCounter:
    """Counts different texts."""

    def __init__(self, *, exact_max: int = EXACT_DISTINCT_MAX) -> None:
        self._exact_max = exact_max
        self._hashes: set[int] = set()
        self._registers: npt.NDArray[np.uint8] | None = None

    @property
    def exact(self) -> bool:
        """Whether the count is exact."""
        return self._registers is None

    @property
    def count(self) -> int:
        """Number of different texts so far."""
        if self._registers is None:
            return len(self._hashes)
        harmonic = float(np.sum(np.exp2(-self._registers.astype(np.float64))))
        return round(0.7213 / (1 + 1.079 / _REGISTERS) * _REGISTERS**2 / harmonic)

    def add(self, texts: Iterable[str]) -> None:
        """Count texts; each may come again."""
        hashes = {int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) for text in texts}
        if self._registers is None:
            self._hashes |= hashes
            if len(self._hashes) <= self._exact_max:
                return
            self._registers = np.zeros(_REGISTERS, np.uint8)
            hashes, self._hashes = self._hashes, set()
        _register(self._registers, np.fromiter(hashes, np.uint64, len(hashes)))


class Tally:
    """Counts the values of one field."""

    def __init__(self, *, values_kept_max: int = VALUES_KEPT_MAX, exact_distinct_max: int = EXACT_DISTINCT_MAX) -> None:
        self._values_kept_max = values_kept_max
        self._counts: Counter[str] = Counter()
        self.distinct = DistinctCounter(exact_max=exact_distinct_max)
        self.undercount_max = 0

    def add(self, labels: Labels, rows: Integers | slice = slice(None)) -> None:
        """Count the values of some rows; events without the field count nowhere."""
        codes = labels.codes[rows]
        counts = np.bincount(codes[codes != MISSING], minlength=len(labels.values))
        found = {labels.values[code]: int(counts[code]) for code in np.flatnonzero(counts)}
        self.distinct.add(found)
        self._counts.update(found)
        if len(self._counts) > 2 * self._values_kept_max:
            self._forget_rare()

    def top(self, number: int) -> list[tuple[str, int]]:
        """The most frequent values with their counts, most frequent first, ties by value."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:number]

    def _forget_rare(self) -> None:
        ordered = self._counts.most_common()
        self.undercount_max += ordered[self._values_kept_max][1]
        self._counts = Counter(dict(ordered[: self._values_kept_max]))


def _register(registers: npt.NDArray[np.uint8], hashes: npt.NDArray[np.uint64]) -> None:
    index = (hashes >> np.uint64(64 - _REGISTER_BITS)).astype(np.int64)
    # The bit behind the hash bounds the run of zeros.
    rest = (hashes << np.uint64(_REGISTER_BITS)) | np.uint64(1 << (_REGISTER_BITS - 1))
    rank = 65 - np.frexp(rest.astype(np.float64))[1]
    np.maximum.at(registers, index, rank.astype(np.uint8))
