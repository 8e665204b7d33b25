"""What a pattern is, and what a search for patterns is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from analysis_service.budget import Budget
from analysis_service.columns import EventColumns
from analysis_service.patterns.cases import Cases, group_into_cases

PATTERNS_MAX = 100
SAMPLE_EVENTS_MAX = 20


@dataclass(frozen=True, slots=True)
class Pattern:
    """Something that recurs.

    types: the event types of it, in order where it has one. occurrences: how often, cases: in how many cases (0 where
    cases play no part). frequency: occurrences a minute. support: share of all cases, confidence: see the algorithm;
    both 0 to 1. expression: filter expression that finds its instances, or the first of very many. samples: positions
    of the events of its first instance, at most SAMPLE_EVENTS_MAX. period_s: 0 where it has none. contiguous: whether
    nothing may come between its types.
    """

    kind: str
    types: tuple[str, ...]
    occurrences: int
    cases: int
    frequency: float
    support: float
    confidence: float
    description: str
    expression: str
    samples: tuple[int, ...]
    period_s: float = 0.0
    contiguous: bool = True


@dataclass
class PatternRequest:
    """Events to look at, and what to look for.

    key: field that tells cases apart; an event without it is in no case. minutes: length of the time range.
    min_occurrence: fewest occurrences. parameters: of the algorithm, checked and with defaults. notes: what was left
    out is written there, in words.
    """

    events: EventColumns
    key: str
    minutes: float
    min_occurrence: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def cases(self) -> Cases:
        """The events by case."""
        return group_into_cases(self.events, self.key)

    def best(self, patterns: list[Pattern]) -> list[Pattern]:
        """The most frequent PATTERNS_MAX of patterns; notes how many more there are."""
        ordered = sorted(patterns, key=lambda each: (-each.occurrences, -len(each.types), each.types))
        if len(ordered) > PATTERNS_MAX:
            self.notes.append(f"{len(ordered) - PATTERNS_MAX} more {ordered[0].kind} patterns are less frequent")
        return ordered[:PATTERNS_MAX]

    def rate(self, occurrences: int) -> float:
        """Occurrences a minute."""
        return occurrences / self.minutes if self.minutes > 0 else float(occurrences)


class PatternFinder(Protocol):
    """An algorithm that finds patterns of one kind. Pure; asks the budget between pieces of work."""

    def __call__(self, request: PatternRequest) -> list[Pattern]:
        """The patterns, the most telling first."""
