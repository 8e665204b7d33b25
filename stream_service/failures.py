"""Events that consumers of a durable subscription failed at: how often, and which are parked for it. Pure.

Invariant: an event is parked when it has failed deliveries_max times, and until it is acknowledged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream_service.parcel import Parcel


@dataclass(frozen=True, slots=True)
class Parked:
    """An event that failed too often: how often, what the last failure said, and when."""

    failures: int
    failure: str
    parked_ns: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Positions that a consumer failed at, what it said, and when."""

    positions: Sequence[int]
    text: str
    now_ns: int


class Failures:
    """Counts failures of the events of one subscription."""

    def __init__(self, *, deliveries_max: int) -> None:
        self._deliveries_max = deliveries_max
        # How often events that are not done with have failed.
        self.counts: dict[int, int] = {}
        self.parked: dict[int, Parked] = {}

    def of(self, position: int) -> int:
        """How often an event has failed."""
        parked = self.parked.get(position)
        return parked.failures if parked else self.counts.get(position, 0)

    def count(self, parcels: Sequence[Parcel], failure: Failure) -> list[int]:
        """Count a failure of events that are sent; closes those that are parked by it, and returns their positions."""
        wanted = np.unique(np.array(failure.positions, np.uint64))
        parked = []
        for parcel in parcels:
            rows = parcel.rows_at(wanted)
            for row in rows[parcel.open[rows]].tolist():
                position = int(parcel.positions[row])
                if self._count_one(position, failure):
                    parcel.close(np.array([row]))
                    parked.append(position)
        return parked

    def succeeded(self, positions: Sequence[int]) -> None:
        """Events were acknowledged, parked ones among them."""
        for position in positions:
            self.parked.pop(position, None)

    def forget_passed(self, checkpoint: int) -> None:
        """Let go of the counts of events up to here: they are done with."""
        self.counts = {at: count for at, count in self.counts.items() if at > checkpoint}

    def _count_one(self, position: int, failure: Failure) -> bool:
        """Count a failure; whether the event is parked now."""
        if (before := self.parked.get(position)) is not None:
            self.parked[position] = replace(before, failures=before.failures + 1, failure=failure.text)
            return True
        failures = self.counts.pop(position, 0) + 1
        if failures >= self._deliveries_max:
            self.parked[position] = Parked(failures, failure.text, failure.now_ns)
            return True
        self.counts[position] = failures
        return False
