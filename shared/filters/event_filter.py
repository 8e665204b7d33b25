"""The specification's EventFilter: builds filters, reads expressions, and tells which events match."""

import datetime as dt
import functools
import re
from dataclasses import fields

from shared.clock import Clock, SystemClock
from shared.events.model import Event, EventFilters
from shared.filters.live_event import LiveEvent
from shared.filters.predicate import Predicate, compile_predicate
from shared.filters.structured import build_filter, filters_to_tree
from shared.filters.tree import Tree, uses_now

# Filters that are kept compiled in a process.
_KEPT_MAX = 128
_PARTS = tuple(each.name for each in fields(EventFilters))


class EventFilter:
    """Builds filters and matches events against them. Has no state but its clock."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Take the clock that now() asks; the system's by default."""
        self._clock = SystemClock() if clock is None else clock

    def build_filter(
        self,
        type_pattern: str | None = None,
        time_range: tuple[dt.datetime | None, dt.datetime | None] | None = None,
        source: str | None = None,
        content_regex: str | re.Pattern[str] | None = None,
        *,
        correlation_id: str | None = None,
        expression: str = "",
    ) -> EventFilters:
        """Return the filter of what is given; nothing given matches everything.

        type_pattern: * is any run of characters, ? any one. time_range: start inclusive, end exclusive, None
        for no bound; times without a zone are UTC. content_regex: RE2, found anywhere in the payload as
        compact JSON text. Raises EventFilterException if something is wrong.
        """
        return build_filter(
            type_pattern, time_range, source, content_regex, correlation_id=correlation_id, expression=expression
        )

    def parse_expression(self, expression: str) -> EventFilters:
        """Return the filter of an expression of the filter language.

        Raises EventFilterException with line, column, what was expected, and the place shown.
        """
        return build_filter(expression=expression)

    def match(self, event: Event, filters: EventFilters) -> bool:
        """Return whether an event matches. What a proposed event does not have yet, it lacks.

        Raises EventFilterException if the filter is wrong, EventValidationException if the event cannot be
        written as JSON.
        """
        tree, predicate = _compiled(tuple(_frozen(getattr(filters, part)) for part in _PARTS))
        if uses_now(tree):
            predicate = compile_predicate(tree, self._clock.now_ns())
        return predicate(LiveEvent.of(event))


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


@functools.lru_cache(maxsize=_KEPT_MAX)
def _compiled(parts: tuple[object, ...]) -> tuple[Tree, Predicate]:
    """Compile a filter of which nothing can change."""
    tree = filters_to_tree(EventFilters(**dict(zip(_PARTS, parts, strict=True))))  # type: ignore[arg-type]
    # Where the tree says now(), this is not used.
    return tree, compile_predicate(tree, now_ns=0)
