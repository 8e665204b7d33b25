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


class GroupedStatistics(Findings["EventStatistics"]):
    """Statistics of groups, most frequent first. cached: whether they were calculated for an earlier call.

    events_elsewhere: how many events are of further groups than the ones in the list, which are at most 1,000.
    """

    def __init__(
        self, found: Iterable["EventStatistics"], coverage: Coverage, *, events_elsewhere: int, cached: bool
    ) -> None:
        super().__init__(found, coverage)
        self.events_elsewhere = events_elsewhere
        self.cached = cached


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
    events by hour of the local week, 168 numbers from Monday 00:00. failures: how many failed. duration_count: how many
    have a duration.
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
    duration_count: int = 0


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

    expression: filter expression that finds its occurrences. cases: how many it occurs in, 0 where cases play no part.
    gapped: whether other events may come between its events. period: None where it has none.
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
    cases: int = 0
    gapped: bool = False
    period: dt.timedelta | None = None


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

    seen: how often such a run of events was seen. order: how many of the last events it rests on. remaining_range: 10th
    and 90th percentile of the time that remains, None where nothing is known.
    """

    types: tuple[tuple[str | None, float], ...]
    likely_end: str | None
    remaining: dt.timedelta | None
    seen: int = 0
    order: int = 0
    remaining_range: tuple[dt.timedelta, dt.timedelta] | None = None
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
