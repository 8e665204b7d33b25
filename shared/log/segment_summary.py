"""What there is to say of a segment without reading its events."""

import enum
from dataclasses import dataclass

from shared.log.committed_position import Committed
from shared.log.file_system import FileSystem
from shared.log.log_reader import LocalLogReader, SegmentSpan
from shared.log.sealed_names import SealedName
from shared.log.types import Nanoseconds, Position, PositionRange


class SegmentState(enum.Enum):
    """What a segment is."""

    ACTIVE = "active"
    ROTATED = "rotated"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class FileSummary:
    """One file of a segment, its sidecars' bytes included. The class is empty where it is not sealed."""

    name: str
    retention_class: str
    events: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SegmentSummary:
    """A segment. `recorded_at` is of its first and last event, None where it has none that is readable."""

    positions: PositionRange
    state: SegmentState
    files: tuple[FileSummary, ...]
    recorded_at: tuple[Nanoseconds, Nanoseconds] | None


def summarize(fs: FileSystem, reader: LocalLogReader, span: SegmentSpan, committed: Committed) -> SegmentSummary:
    """Summarise one segment. Raises FileNotFoundError where it changed meanwhile."""
    if span.files.is_sealed:
        return _summarize_sealed(fs, reader, span)
    assert span.files.log is not None
    index = reader.frame_index(span, committed)
    positions = PositionRange(span.files.first, Position(span.until - 1))
    state = SegmentState.ACTIVE if span.files.first == committed.active_first else SegmentState.ROTATED
    file = FileSummary(span.files.log, "", index.events, fs.size(span.files.log))
    return SegmentSummary(positions, state, (file,), index.recorded_at)


def _summarize_sealed(fs: FileSystem, reader: LocalLogReader, span: SegmentSpan) -> SegmentSummary:
    segment = reader.sealed_segment(span)
    names = fs.list(span.files.sealed[0].rpartition("/")[0])
    files = tuple(
        FileSummary(
            name=file.name.parquet,
            retention_class=file.name.retention_class,
            events=file.metadata.rows if file.metadata else 0,
            bytes=sum(fs.size(name) for name in _companions(file.name) if name in names),
        )
        for file in segment.files
    )
    bounds = [file.metadata.recorded_at for file in segment.files if file.metadata and file.metadata.recorded_at]
    recorded_at = None
    if bounds:
        first, last = min(each.first_ns for each in bounds), max(each.last_ns for each in bounds)
        recorded_at = (Nanoseconds(first), Nanoseconds(last))
    return SegmentSummary(segment.positions, SegmentState.SEALED, files, recorded_at)


def _companions(name: SealedName) -> tuple[str, str, str]:
    return name.parquet, name.index, name.repair
