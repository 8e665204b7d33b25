"""How many cases are active in each bucket: those that have an event in it.

One case has many events, so events come in clusters; cases come by themselves. An event without a case is one by
itself.

Invariant: a case counts once a bucket, however its events are cut into pieces; only the cases of the last bucket are
kept. Events must come in the order of time.
"""

import numpy as np

from analysis_service.columns import EventColumns, Integers
from analysis_service.hashes import Hashes, group_hashes


class ActiveCases:
    """The cases of a key, such as the correlation id."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._bucket: int | None = None
        self._cases: Hashes = np.zeros(0, np.uint64)

    def advance(self, events: EventColumns, buckets: Integers) -> Integers:
        """Take events and the bucket of each; return the bucket of each case that was not active in it before."""
        cases = group_hashes(events, self._key)
        order = np.lexsort((cases, buckets))
        buckets, cases = buckets[order], cases[order]
        first = np.concatenate(([True], (np.diff(buckets) != 0) | (cases[1:] != cases[:-1])))
        buckets, cases = buckets[first], cases[first]
        known = (buckets == self._bucket) & np.isin(cases, self._cases)
        last = int(buckets[-1])
        newest = cases[buckets == last]
        self._cases = np.union1d(self._cases, newest) if last == self._bucket else newest
        self._bucket = last
        new: Integers = buckets[~known]
        return new
