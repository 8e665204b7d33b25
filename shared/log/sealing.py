"""Sealing rotated segments: from .log files to immutable columns. A process of its own.

    python -m shared.log.sealing < work.json

so that the writer keeps its pace and its memory. The work names segments of one directory, the first
position after each, and the options; for each of them a line of JSON says what became of it.

Invariants: the .log is removed only after everything in it that is intact, its request ids and a
note of what is damaged are written and synced in their final places, and a damaged one is not
removed but kept in quarantine; doing it again after a crash at any point ends the same. One frame, some row
groups and the compressed files are in memory, however much the segment holds uncompressed.
"""

import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from shared.clock import Clock, SystemClock
from shared.log.file_system import FileSystem, LocalFileSystem
from shared.log.frame import decode_frame
from shared.log.frame_index import FrameIndex, frame_events
from shared.log.json_path import parse_declared_path
from shared.log.limits import MIB
from shared.log.names import QUARANTINE, SEALING_LOCK, SEGMENTS, SegmentFiles, list_segments
from shared.log.recovery import RememberedRequest, remembered_requests
from shared.log.request_file import write_request_file
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import SealOptions, seal_events
from shared.log.segment_scan import SEGMENT_HEADER_BYTES, decode_segment_header
from shared.log.types import Damage, Position, PositionRange

# Frames, and of each events and about the bytes, that help to choose the promoted columns.
_SAMPLE_FRAMES = 24
_SAMPLE_ROWS = 170
_SAMPLE_BYTES = MIB
# Characters of a problem that are reported.
_PROBLEM_MAX = 1000


class SealOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to seal, and how.

    `until` is the first position after the segment. Of the request ids the newest `request_ids_max` are
    remembered. `hurry`: compress less, because others wait.
    """

    base_path: str
    log_id: str
    first: int
    until: int
    retention_default_s: int
    retention_by_type_s: dict[str, int]
    promoted_paths: list[str]
    compress: bool
    write_index: bool
    request_ids_max: int = 200_000
    hurry: bool = False


class SealWork(msgspec.Struct, frozen=True):
    """Orders for segments of one directory, to be carried out one by one; `niceness` yields to other processes."""

    orders: list[SealOrder]
    niceness: int


class SealReport(msgspec.Struct, frozen=True):
    """What became of an order: the problem is empty where the segment is sealed."""

    first: int
    seconds: float
    problem: str


def seal_segment(fs: FileSystem, order: SealOrder) -> None:
    """Seal one rotated segment and remove its .log. Does nothing where that is done.

    Raises OSError (try again when the disk is well), FrameDamaged where intact bytes are no events, and
    as seal_events does; the .log stays.
    """
    segment = _find(fs, Position(order.first))
    if segment is None or segment.log is None:
        return
    positions = PositionRange(segment.first, Position(order.until - 1))
    events = _SegmentEvents(fs, segment.log, positions)
    damage = events.damage()
    seal_events(
        fs,
        first=positions.first,
        last=positions.last,
        events=events,
        log_id=order.log_id,
        classes=RetentionClasses(default_seconds=order.retention_default_s, by_type=order.retention_by_type_s),
        options=SealOptions(
            promoted_paths=tuple(parse_declared_path(path) for path in order.promoted_paths),
            compress=order.compress,
            write_index=order.write_index,
            hurry=order.hurry,
        ),
        damage=damage,
        sample=events.sample(),
    )
    write_request_file(fs, positions, events.newest_requests(order.request_ids_max))
    if damage:
        fs.rename(segment.log, f"{QUARANTINE}/{segment.log.removeprefix(f'{SEGMENTS}/')}.damaged")
        fs.sync_directory(QUARANTINE)
    else:
        fs.remove(segment.log)
    fs.sync_directory(SEGMENTS)


def _find(fs: FileSystem, first: Position) -> SegmentFiles | None:
    return next((s for s in list_segments(fs.list(SEGMENTS)) if s.first == first), None)


class _SegmentEvents:
    """What the intact frames of a .log file hold. Iterates over the events, each time from the beginning."""

    def __init__(self, fs: FileSystem, name: str, positions: PositionRange) -> None:
        """Find the frames. Raises OSError, UnsupportedFormat."""
        # Asked only whether a newer version wrote it: nothing else is taken from the header, which may be damaged.
        decode_segment_header(fs.read(name, 0, SEGMENT_HEADER_BYTES))
        self._until = Position(positions.last + 1)
        self._index = FrameIndex(fs, name, positions.first)
        self._index.extend(None)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for frame in self._index.intact_frames(self._until):
            yield frame_events(decode_frame(frame))

    def damage(self) -> list[Damage]:
        """Positions that no intact frame holds."""
        return self._index.damage(self._until)

    def sample(self) -> list[pa.RecordBatch]:
        """Some events of some frames, at even distances."""
        headers = self._index.headers(self._until)
        ends = np.cumsum([header.count for header in headers], dtype=np.int64)
        if len(ends) == 0:
            return []
        wanted = np.searchsorted(ends, np.linspace(0, int(ends[-1]) - 1, _SAMPLE_FRAMES), side="right")
        chosen = {headers[at].first_position for at in wanted.tolist()}
        return [_thinned(frame_events(decode_frame(frame))) for frame in self._index.intact_frames(self._until, chosen)]

    def newest_requests(self, count: int) -> list[RememberedRequest]:
        """The newest named requests, oldest first."""
        newest: deque[RememberedRequest] = deque(maxlen=count)
        for frame in self._index.intact_frames(self._until):
            newest.extend(remembered_requests(frame))
        return list(newest)


def _thinned(events: pa.RecordBatch) -> pa.RecordBatch:
    """Return some of the events, at even distances."""
    rows = min(_SAMPLE_ROWS, max(1, len(events) * _SAMPLE_BYTES // events.nbytes))
    return events.take(np.arange(0, len(events), -(-len(events) // rows)))


def seal_all(fs: FileSystem, orders: list[SealOrder], clock: Clock) -> Iterator[SealReport]:
    """Carry out orders one by one. What fails is reported, and the others go on."""
    for order in orders:
        started_s = clock.monotonic_s()
        problem = ""
        try:
            seal_segment(fs, order)
        except Exception as error:  # noqa: BLE001 — whatever it is, it concerns this segment only
            problem = f"{type(error).__name__}: {error}"[:_PROBLEM_MAX]
        yield SealReport(order.first, clock.monotonic_s() - started_s, problem)


def main() -> int:
    """Do the work on standard input, all of it in one directory."""
    work = msgspec.json.decode(sys.stdin.buffer.read(), type=SealWork)
    os.nice(work.niceness)
    fs = LocalFileSystem(Path(work.orders[0].base_path))
    # One at a time: the process of a writer that was killed may still be at it.
    lock = fs.lock(SEALING_LOCK)
    try:
        for report in seal_all(fs, work.orders, SystemClock()):
            sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
            sys.stdout.buffer.flush()
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
