"""Events of a durable subscription on their way: what was read and is not done with yet."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shared.columns.encoded_events import EncodedEvents
from stream_service.slots import Slots

Rows = npt.NDArray[np.intp]


@dataclass(eq=False)
class Parcel:
    """Events that were read together and go to one consumer together. `open` are those not done with."""

    events: EncodedEvents
    slots: Slots
    # Whether they were sent to some consumer, this time or before.
    delivered: bool = False
    # Whether they were sent before, to whom they are sent now or another.
    again: bool = False
    # Whether they are parked, and tried again: then the checkpoint does not wait for them.
    retried: bool = False
    open: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        if len(self.open) != len(self.events):
            self.open = np.ones(len(self.events), np.bool_)

    @property
    def positions(self) -> npt.NDArray[np.uint64]:
        """Positions of its events."""
        return self.events.positions

    @property
    def open_count(self) -> int:
        """Events not done with."""
        return int(np.count_nonzero(self.open))

    @property
    def first_open(self) -> int | None:
        """The first position not done with."""
        return int(self.positions[self.open.argmax()]) if self.open.any() else None

    def pick(self, rows: Rows) -> "Parcel":
        """A parcel of some of its events."""
        events, slots, opened = self.events.pick(rows), self.slots[rows], self.open[rows]
        return Parcel(events, slots, self.delivered, self.again, self.retried, opened)

    def open_part(self) -> "Parcel":
        """A parcel of its open events."""
        return self if self.open.all() else self.pick(np.flatnonzero(self.open))

    def rows_at(self, positions: npt.NDArray[np.uint64]) -> Rows:
        """The rows of those of these positions, which grow, that are in it."""
        at = self.positions.searchsorted(positions)
        within = at < len(self.events)
        rows: Rows = at[within]
        found: Rows = rows[self.positions[rows] == positions[within]]
        return found

    def close(self, rows: Rows) -> None:
        """Be done with some."""
        self.open[rows] = False
