"""The specification's EventFilter: builds filters, reads expressions, and tells which events match."""

import datetime as dt
import functools
import re
from dataclasses import dataclass
from typing import Self

from shared.clock import Clock, SystemClock
from shared.events.model import Event, EventFilters
from shared.filters.live_event import LiveEvent
from shared.filters.predicate import Predicate, compile_predicate
from shared.filters.structured import build_filter, filters_to_tree
from shared.filters.tree import Tree, uses_now

# Filters that are kept compiled in a process.
_KEPT_MAX = 128


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
        tree, predicate = _compiled(_Key.of(filters))
        if uses_now(tree):
            predicate = compile_predicate(tree, self._clock.now_ns())
        return predicate(LiveEvent.of(event))


@dataclass(frozen=True, slots=True)
class _Key:
    """EventFilters with tuples for lists, so that equal ones are found again."""

    type_patterns: tuple[str, ...]
    time_range: tuple[dt.datetime | None, dt.datetime | None] | None
    sources: tuple[str, ...]
    correlation_ids: tuple[str, ...]
    content_patterns: tuple[str | re.Pattern[str], ...]
    expression: str

    @classmethod
    def of(cls, filters: EventFilters) -> Self:
        """Take what a filter holds now: its lists may change later."""
        return cls(
            tuple(filters.type_patterns),
            filters.time_range,
            tuple(filters.sources),
            tuple(filters.correlation_ids),
            tuple(filters.content_patterns),
            filters.expression,
        )


@functools.lru_cache(maxsize=_KEPT_MAX)
def _compiled(key: _Key) -> tuple[Tree, Predicate]:
    filters = EventFilters(
        type_patterns=list(key.type_patterns),
        time_range=key.time_range,
        sources=list(key.sources),
        correlation_ids=list(key.correlation_ids),
        content_patterns=list(key.content_patterns),
        expression=key.expression,
    )
    tree = filters_to_tree(filters)
    # Where the tree says now(), this is not used.
    return tree, compile_predicate(tree, now_ns=0)
