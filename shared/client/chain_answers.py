"""What the analysis service answers about chains, as a program sees it."""

import datetime as dt
from dataclasses import dataclass, field

from shared.client.analysis_answers import Coverage
from shared.events.model import RecordedEvent


@dataclass(frozen=True, slots=True)
class ChainSpan:
    """An event in its chain. parent: index of its cause, None for roots. path_time: its part of the critical path.

    on_critical_path: whether the chain waited for it.
    """

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
    on_critical_path: bool = False


@dataclass(frozen=True, slots=True)
class ChainGap:
    """A stretch in which nothing of a chain ran. after, before: indices of the spans on its two sides."""

    start: dt.datetime
    duration: dt.timedelta
    after: int
    before: int


@dataclass(frozen=True, slots=True)
class EventChain:
    """The chain of a correlation id. failure_origins: indices of the spans in which failures began.

    drawing: as asked for. related: why other chains have to do with it, by correlation id; related_events: how many
    events of them were seen. waiting: part of the critical path that no event accounts for. gaps: the longest first, at
    most 10. duplicates: events left out because their span was there already. inferred: whether parents are guessed
    from time.
    """

    correlation_id: str
    events: list[RecordedEvent]
    spans: list[ChainSpan]
    duration: dt.timedelta
    failure_origins: tuple[int, ...]
    drawing: str
    related: dict[str, str] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    related_events: dict[str, int] = field(default_factory=dict)
    waiting: dt.timedelta = dt.timedelta()
    gaps: tuple[ChainGap, ...] = ()
    duplicates: int = 0
    inferred: bool = False


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
