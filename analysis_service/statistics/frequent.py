"""Which groups are the most frequent, by their hashes, in bounded memory.

Invariant: exact for up to HASHES_MAX different groups, in whatever order and pieces they come; beyond, the rarest so
far are forgotten now and then.
"""

import numpy as np

from analysis_service.columns import Integers
from analysis_service.hashes import Hashes
from analysis_service.statistics.sketch import weighted_counts

HASHES_MAX = 2_000_000


class FrequentGroups:
    """Counts groups."""

    def __init__(self) -> None:
        self._hashes: list[Hashes] = []
        self._counts: list[Integers] = []

    def add(self, hashes: Hashes, counts: Integers) -> None:
        """Take groups, each so often; each may come again."""
        self._hashes.append(hashes)
        self._counts.append(counts)
        if sum(map(len, self._hashes)) > 2 * HASHES_MAX:
            self._count_together(HASHES_MAX)

    def most(self, number: int) -> Hashes | None:
        """The hashes of so many groups, the most frequent ones, ties by hash; None where there are no more."""
        if not self._hashes:
            return None
        self._count_together(number + 1)
        hashes, counts = self._hashes[0], self._counts[0]
        return None if len(hashes) <= number else hashes[np.lexsort((hashes, -counts))[:number]]

    def _count_together(self, at_most: int) -> None:
        """Have each group once, and only so many."""
        hashes, which = np.unique(np.concatenate(self._hashes), return_inverse=True)
        counts = weighted_counts(which, np.concatenate(self._counts))
        if len(hashes) > at_most:
            kept = np.lexsort((hashes, -counts))[:at_most]
            hashes, counts = hashes[kept], counts[kept]
        self._hashes, self._counts = [hashes], [counts]
