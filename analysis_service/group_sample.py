"""Keeps the events of whole groups, in bounded memory: of all groups while there is room, then of ever fewer.

Whenever there are too many events, those of half of the groups are forgotten, and of what comes later too.

Invariants: a group is kept whole or not at all; which groups are kept depends on their keys alone, not on the order in
which events come; at most events_max events are kept, unless a single group has more. An event without a key is a
group by itself.
"""

import numpy as np

from analysis_service.columns import EventColumns, Mask
from analysis_service.hashes import group_hashes

_HALVINGS_MAX = 31


class GroupSample:
    """Collects events. key: the field that groups share; the events must have been scanned with it."""

    def __init__(self, key: str, *, events_max: int) -> None:
        self._key = key
        self._events_max = events_max
        self._halvings = 0
        self.kept: list[EventColumns] = []
        self.events = 0

    @property
    def one_in(self) -> int:
        """Of so many groups one is kept: 1, 2, 4, ..."""
        return 1 << self._halvings

    def add(self, events: EventColumns) -> None:
        """Take events of any groups."""
        self._keep(events if not self._halvings else events.take(self._chosen(events)))
        while self.events > self._events_max and self._halvings < _HALVINGS_MAX:
            self._halvings += 1
            before, self.kept, self.events = self.kept, [], 0
            for each in before:
                self._keep(each.take(self._chosen(each)))

    def _keep(self, events: EventColumns) -> None:
        if len(events):
            self.kept.append(events)
            self.events += len(events)

    def _chosen(self, events: EventColumns) -> Mask:
        """Which events belong to groups that are kept."""
        chosen: Mask = (group_hashes(events, self._key) & np.uint64(self.one_in - 1)) == 0
        return chosen
