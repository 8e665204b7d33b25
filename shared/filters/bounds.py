"""What a filter says of all events that it holds for, before any segment is opened. Pure.

Invariant: a filter holds for no event outside of its bounds; so to skip what is outside changes no answer.
Bounds are what follows from the filter as a whole: they may be wider than they could be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from shared.filters.intervals import EMPTY, UNBOUNDED, Interval
from shared.filters.patterns import prefix_end
from shared.log.index_sidecar import Sidecar

_HOUR_NS = 3_600 * 10**9


@dataclass(frozen=True, slots=True)
class TextSet:
    """Some texts, and all that begin with some prefixes."""

    values: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether no text is in it."""
        return not self.values and not self.prefixes

    def __contains__(self, text: str) -> bool:
        return text in self.values or text.startswith(tuple(self.prefixes))

    def __and__(self, other: "TextSet") -> "TextSet":
        values = {each for each in self.values if each in other} | {each for each in other.values if each in self}
        # Of two prefixes, one of which begins with the other, the longer one is left.
        longer = {each for each in self.prefixes if each.startswith(tuple(other.prefixes))}
        longer |= {each for each in other.prefixes if each.startswith(tuple(self.prefixes))}
        return TextSet(frozenset(values), frozenset(longer))

    def __or__(self, other: "TextSet") -> "TextSet":
        return TextSet(self.values | other.values, self.prefixes | other.prefixes)

    def ranges(self) -> list[tuple[str, str | None]]:
        """Return half-open ranges of texts that cover it, in order of code points; None: no end."""
        exact: list[tuple[str, str | None]] = [(value, f"{value}\0") for value in self.values]
        return sorted([*exact, *((prefix, prefix_end(prefix)) for prefix in self.prefixes)], key=lambda pair: pair[0])


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a filter; all of them hold. Times are nanoseconds; None: not bounded.

    `ids` are ids as they are written, also of other logs; those of the log bound the position, too.
    """

    position: Interval = UNBOUNDED
    timestamp: Interval = UNBOUNDED
    recorded_at: Interval = UNBOUNDED
    types: TextSet | None = None
    sources: TextSet | None = None
    ids: frozenset[str] | None = None
    correlation_ids: frozenset[str] | None = None
    session_ids: frozenset[str] | None = None
    users: frozenset[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the filter can hold for no event at all."""
        intervals = (self.position, self.timestamp, self.recorded_at)
        sets = (self.types, self.sources)
        equalities = (self.ids, self.correlation_ids, self.session_ids, self.users)
        return (
            any(interval.is_empty for interval in intervals)
            or any(each is not None and each.is_empty for each in sets)
            or any(each is not None and not each for each in equalities)
        )

    def may_match(self, sidecar: Sidecar) -> bool:
        """Return False only if the filter holds for no event of the file."""
        return self.exclusion(sidecar) is None

    def exclusion(self, sidecar: Sidecar) -> str | None:
        """Return the name of the field by which the file has nothing for the filter, None if it may have."""
        if self.is_empty:
            return "contradiction"
        summary = sidecar.summary
        for name, interval, ends in (
            ("position", self.position, summary.position),
            ("recorded_at", self.recorded_at, summary.recorded_at),
            ("timestamp", self.timestamp, summary.timestamp),
        ):
            if ends is None or not interval.overlaps(ends.first, ends.last):
                return name
        if not summary.by_hour_cut and not self._any_hour(summary.by_hour):
            return "timestamp"
        for name, texts, counts in (("type", self.types, summary.by_type), ("source", self.sources, summary.by_source)):
            if texts is not None and not counts.cut and not any(value in texts for value in counts.by_value):
                return name
        for name, values, may_contain in (
            ("correlation_id", self.correlation_ids, sidecar.may_contain_correlation_id),
            ("metadata.session_id", self.session_ids, sidecar.may_contain_session_id),
            ("metadata.user", self.users, sidecar.may_contain_user),
        ):
            if values is not None and not any(map(may_contain, values)):
                return name
        return None

    def _any_hour(self, hours: Mapping[int, int]) -> bool:
        return any(self.timestamp.overlaps(hour * _HOUR_NS, (hour + 1) * _HOUR_NS - 1) for hour in hours)


_NAMES = tuple(each.name for each in fields(Bounds))

# The bounds of a filter that holds for no event.
NOTHING = Bounds(position=EMPTY)


def both(first: Bounds, second: Bounds) -> Bounds:
    """Return the bounds of the AND of two filters."""
    return Bounds(
        **{each.name: _both(getattr(first, each.name), getattr(second, each.name)) for each in fields(Bounds)}
    )


def either(first: Bounds, second: Bounds) -> Bounds:
    """Return the bounds of the OR of two filters."""
    if first.is_empty or second.is_empty:
        return second if first.is_empty else first
    return Bounds(**{name: _either(getattr(first, name), getattr(second, name)) for name in _NAMES})


def _both(first: Any, second: Any) -> Any:
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _either(first: Any, second: Any) -> Any:
    return None if first is None or second is None else first | second
