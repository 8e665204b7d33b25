"""The words of the storage engine: positions, offsets, and what an append answers."""

from dataclasses import dataclass
from typing import NewType

# Place of an event in the whole log: starts at 1, gap-free, given at commit. 0 means none.
Position = NewType("Position", int)

# Place of a byte in one file. Never leaves shared.log.
Offset = NewType("Offset", int)

# Nanoseconds since the epoch, UTC.
Nanoseconds = NewType("Nanoseconds", int)


@dataclass(frozen=True, slots=True)
class PositionRange:
    """Consecutive positions, both ends included. Empty where last == first - 1."""

    first: Position
    last: Position

    @property
    def count(self) -> int:
        """Number of positions."""
        return self.last - self.first + 1

    def overlaps(self, other: "PositionRange") -> bool:
        """Whether any position is in both."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Damage:
    """Committed positions that cannot be read, the file that holds them, and what is wrong with it."""

    positions: PositionRange
    file: str
    problem: str
