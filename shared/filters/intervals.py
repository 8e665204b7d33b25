"""Intervals of integers, and which integers a comparison with a number holds for. Pure."""

from dataclasses import dataclass
from decimal import Decimal

from shared.filters.tree import Operator


@dataclass(frozen=True, slots=True)
class Interval:
    """Integers from first to last, both included; None: no bound on that side. Empty if first is above last."""

    first: int | None = None
    last: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no integer is in it."""
        return self.first is not None and self.last is not None and self.first > self.last

    def overlaps(self, first: int, last: int) -> bool:
        """Return whether it has an integer from first to last, both included."""
        starts_too_late = self.first is not None and self.first > last
        ends_too_early = self.last is not None and self.last < first
        return not (self.is_empty or starts_too_late or ends_too_early)

    def __and__(self, other: "Interval") -> "Interval":
        firsts = [each for each in (self.first, other.first) if each is not None]
        lasts = [each for each in (self.last, other.last) if each is not None]
        return Interval(max(firsts, default=None), min(lasts, default=None))

    def __or__(self, other: "Interval") -> "Interval":
        """Return the smallest interval that has the integers of both."""
        if self.is_empty or other.is_empty:
            return other if self.is_empty else self
        first = None if self.first is None or other.first is None else min(self.first, other.first)
        last = None if self.last is None or other.last is None else max(self.last, other.last)
        return Interval(first, last)


UNBOUNDED = Interval()
EMPTY = Interval(1, 0)


def integers_that_are(operator: Operator, number: Decimal | int) -> Interval:
    """Return the integers that compare so with a number; for != all of them, because the others are no interval."""
    floor = int(number) - (1 if number < int(number) else 0)
    is_whole = number == floor
    if operator == "!=":
        return UNBOUNDED
    if operator == "=":
        return Interval(floor, floor) if is_whole else EMPTY
    if operator in {"<", "<="}:
        return Interval(None, floor - 1 if operator == "<" and is_whole else floor)
    return Interval(floor if operator == ">=" and is_whole else floor + 1, None)
