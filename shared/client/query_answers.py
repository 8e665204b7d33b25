"""What the query service answers, as plain data."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.events.model import RecordedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """One page of events, in the order asked for."""

    events: list[RecordedEvent]
    # Token of the next page; empty on the last. A page may be empty and have one.
    next_page_token: str
    # Highest position that the pages take into account.
    snapshot_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentDecision:
    """Whether a segment would be read, and why."""

    first_position: int
    last_position: int
    read: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterExplanation:
    """How a filter is understood, and what it would read."""

    # The whole filter as one expression.
    expression: str
    # The syntax tree, drawn.
    tree: str
    sql: str
    segments: list[SegmentDecision]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportProgress:
    """How far an export is. Falls to 0 where a broken one begins anew."""

    events: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """A file that was exported, complete and synced."""

    path: Path
    events: int
    bytes: int
    # Highest position that the export takes into account.
    snapshot_position: int


OnProgress = Callable[[ExportProgress], None]
