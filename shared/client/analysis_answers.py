"""What the analysis service answers, as a program sees it."""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shared.events.model import RecordedEvent

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an answer rests on. events: how many were looked at. snapshot_position: the last one taken into account.

    partial: whether something is missing. partial_reason: why it is, "DEADLINE", "EVENTS_MAX", "SAMPLED" or "DAMAGE".
    notes: what was left out or estimated, in words.
    """

    events: int = 0
    snapshot_position: int = 0
    partial: bool = False
    partial_reason: str = ""
    notes: tuple[str, ...] = ()


class Findings(list[T]):
    """A list of what was found, with what it rests on: `coverage`."""

    def __init__(self, found: Iterable[T] = (), coverage: Coverage | None = None) -> None:
        super().__init__(found)
        self.coverage = coverage or Coverage()


@dataclass(frozen=True, slots=True)
class AnalysisProgress:
    """How far an analysis is.

    stage: "waiting", "reading", or what is computed. share: of the stage, 0 to 1. events: read so far. elapsed: since
    the call began. All but `elapsed` begin anew where a connection broke and the call is tried again.
    """

    stage: str
    share: float
    events: int
    elapsed: dt.timedelta


OnAnalysisProgress = Callable[[AnalysisProgress], None]


@dataclass(frozen=True, slots=True)
class EventStatistics:
    """Statistics of the events of one type, or of one group. Durations are milliseconds.

    frequency: events a minute. avg_duration, min_duration, max_duration, stddev_duration: None where no event has one.
    percentiles: by percentile. time_distribution: events by hour, the key being its start in RFC 3339. error_rate:
    share that failed, 0 to 1. estimated: whether percentiles are within 0.5 % of the exact ones, not exact. group: the
    values of the fields that the events are grouped by, None where they lack the field. first, last: timestamps of the
    first and the last event, None where there is none. values: by field, of those that were asked for. hours_of_week:
    events by hour of the local week, 168 numbers from Monday 00:00. failures: how many failed.
    """

    event_type: str
    count: int
    frequency: float
    avg_duration: float | None
    percentiles: dict[int | float, float]
    time_distribution: dict[str, int]
    min_duration: float | None = None
    max_duration: float | None = None
    stddev_duration: float | None = None
    error_rate: float = 0.0
    estimated: bool = False
    group: dict[str, str | None] = field(default_factory=dict)
    first: dt.datetime | None = None
    last: dt.datetime | None = None
    coverage: Coverage = field(default_factory=Coverage)
    values: dict[str, "FieldValues"] = field(default_factory=dict)
    hours_of_week: tuple[int, ...] = ()
    failures: int = 0


@dataclass(frozen=True, slots=True)
class FieldValues:
    """Values of one field. distinct: how many different ones, within 0.8 % where it is estimated.

    top: the most frequent ones with their counts, which may be too low by undercount_max.
    """

    distinct: int
    distinct_estimated: bool
    top: dict[str, int]
    undercount_max: int


@dataclass(frozen=True, slots=True)
class StatisticsChange:
    """How one group differs between the range asked for and the one it is compared with.

    group: as EventStatistics has it. count, other_count: events here and there. rate_ratio: events a minute here by
    those there, None where there are none there. error_rate_change: share that failed here less that there.
    percentile_ratios: durations here by those there, by percentile. surprise: how many standard deviations the number
    of events here is from what there lets expect; negative below it.
    """

    group: dict[str, str | None]
    count: int
    other_count: int
    rate_ratio: float | None
    error_rate_change: float
    percentile_ratios: dict[int | float, float]
    surprise: float


@dataclass(frozen=True, slots=True)
class EventPattern:
    """A recurring pattern. events: those of its first occurrence. frequency: occurrences a minute. confidence: 0 to 1.

    expression: filter expression that finds its occurrences.
    """

    pattern_type: str
    events: list[RecordedEvent]
    frequency: float
    confidence: float
    description: str
    event_types: tuple[str, ...] = ()
    occurrences: int = 0
    support: float = 0.0
    expression: str = ""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An incident. score: 0 to 1. end: None while it lasts. severity: "minor", "major" or "critical".

    incident_id: the same each time that watch_anomalies tells of one incident; empty elsewhere.
    """

    anomaly_type: str
    score: float
    severity: str
    start: dt.datetime
    end: dt.datetime | None
    description: str
    event_types: tuple[str, ...]
    sources: tuple[str, ...]
    expected: tuple[float, float]
    actual: float
    expression: str
    positions: tuple[int, ...]
    incident_id: str = ""


@dataclass(frozen=True, slots=True)
class ChainSpan:
    """An event in its chain. parent: index of its cause, None for roots. path_time: its part of the critical path."""

    position: int
    event_type: str
    source: str
    parent: int | None
    depth: int
    start: dt.datetime
    duration: dt.timedelta
    self_time: dt.timedelta
    path_time: dt.timedelta
    orphan: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class EventChain:
    """The chain of a correlation id. failure_origins: indices of the spans in which failures began. drawing: a tree.

    related: correlation ids of chains that have to do with it, by why.
    """

    correlation_id: str
    events: list[RecordedEvent]
    spans: list[ChainSpan]
    duration: dt.timedelta
    failure_origins: tuple[int, ...]
    drawing: str
    related: dict[str, str] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)


@dataclass(frozen=True, slots=True)
class ChainDifference:
    """How a chain differs in one step. difference: "missing", "extra", "slower", "more" or "fewer".

    parent_type: None for roots. share: of the usual chains that have the step, 0 to 1. expected, actual: milliseconds
    that the step takes itself for "slower", else how often it occurs; expected from the 5th to the 95th percentile.
    """

    difference: str
    event_type: str
    parent_type: str | None
    share: float
    expected: tuple[float, float]
    actual: float
    description: str


@dataclass(frozen=True, slots=True)
class ChainComparison:
    """How a chain differs from the usual ones of its kind, the most telling first.

    kind: type of its first root. references: chains it was compared with; fewer than 5 give no differences.
    """

    kind: str
    references: int
    differences: tuple[ChainDifference, ...]
    coverage: Coverage = field(default_factory=Coverage)


@dataclass(frozen=True, slots=True)
class Cause:
    """A source and a type that explains trouble. trouble: "errors" or "slowness". score: share of it, 0 to 1.

    chains: how many are affected. amount: failures that began there, or milliseconds that it added. examples:
    correlation ids, the worst first. expression: filter expression that finds its events.
    """

    trouble: str
    source: str
    event_type: str
    score: float
    chains: int
    amount: float
    examples: tuple[str, ...]
    description: str
    expression: str


@dataclass(frozen=True, slots=True)
class LikelyNext:
    """What comes next. types: type and probability, likeliest first; None: nothing any more. remaining: median time.

    seen: how often such a run of events was seen.
    """

    types: tuple[tuple[str | None, float], ...]
    likely_end: str | None
    remaining: dt.timedelta | None
    seen: int = 0
    coverage: Coverage = field(default_factory=Coverage)


@dataclass(frozen=True, slots=True)
class FoldedState:
    """What events made. state: decoded JSON, None where there was no event. position: of the last event, 0 for none.

    events: how many made it. events_from_snapshot: how many of them an earlier call had folded already.
    """

    state: Any
    position: int
    events: int
    events_from_snapshot: int = 0
    coverage: Coverage = field(default_factory=Coverage)


@dataclass(frozen=True, slots=True)
class AnalysisParameter:
    """A number that an analysis takes, [minimum, maximum]. unit: empty for none. whole: whether it must be so."""

    name: str
    description: str
    default: float
    minimum: float
    maximum: float
    unit: str
    whole: bool


@dataclass(frozen=True, slots=True)
class AnalysisDescription:
    """An analysis that can be asked for by name. family: "pattern" or "anomaly"."""

    name: str
    family: str
    description: str
    parameters: tuple[AnalysisParameter, ...]
