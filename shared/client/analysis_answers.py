"""What the analysis service answers, as a program sees it."""

import datetime as dt
from dataclasses import dataclass, field

from shared.events.model import RecordedEvent


@dataclass(frozen=True, slots=True)
class EventStatistics:
    """Statistics of the events of one type. Durations are milliseconds.

    frequency: events a minute. avg_duration, min_duration, max_duration, stddev_duration: None where no event has one.
    percentiles: by percentile. time_distribution: events by hour, the key being its start in RFC 3339. error_rate:
    share that failed, 0 to 1. estimated: whether percentiles are within 0.5 % of the exact ones, not exact.
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
    """An incident. score: 0 to 1. end: None while it lasts. severity: "minor", "major" or "critical"."""

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


@dataclass(frozen=True, slots=True)
class LikelyNext:
    """What comes next. types: type and probability, likeliest first; None: nothing any more. remaining: median time."""

    types: tuple[tuple[str | None, float], ...]
    likely_end: str | None
    remaining: dt.timedelta | None
