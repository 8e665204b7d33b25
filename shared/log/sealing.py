"""Sealing one rotated segment: from a .log file to immutable columns. A process of its own.

    python -m shared.log.sealing < order.json

so that the writer keeps its pace and its memory. The order names the directory, the segment, the
first position after it, and the options.

Invariants: the .log is removed only after everything in it that is intact, its request ids and a
note of what is damaged are written and synced in their final places, and a damaged one is not
removed but kept in quarantine; doing it again after a crash at any point ends the same.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa

from shared.log.file_system import FileSystem, LocalFileSystem
from shared.log.frame import decode_frame
from shared.log.frame_index import frame_events
from shared.log.json_path import parse_declared_path
from shared.log.names import QUARANTINE, SEALING_LOCK, SEGMENTS, SegmentFiles, list_segments
from shared.log.recovery import LogFile, read_log_file, remembered_requests
from shared.log.request_file import write_request_file
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import SealOptions, seal_events
from shared.log.types import Position, PositionRange


class SealOrder(msgspec.Struct, frozen=True):
    """What to seal, and how. `until` is the first position after the segment; `niceness` yields to other processes."""

    base_path: str
    log_id: str
    first: int
    until: int
    retention_default_s: int
    retention_by_type_s: dict[str, int]
    promoted_paths: list[str]
    compress: bool
    write_index: bool
    niceness: int = 0


def seal_segment(fs: FileSystem, order: SealOrder) -> None:
    """Seal one rotated segment and remove its .log. Does nothing where that is done.

    Raises OSError (try again when the disk is well), FrameDamaged where intact bytes are no events, and
    as seal_events does; the .log stays.
    """
    segment = _find(fs, Position(order.first))
    if segment is None or segment.log is None:
        return
    log_file = read_log_file(fs, segment, Position(order.until))
    positions = PositionRange(segment.first, Position(order.until - 1))
    damage = log_file.damage()
    seal_events(
        fs,
        first=positions.first,
        last=positions.last,
        events=_events(log_file),
        log_id=order.log_id,
        classes=RetentionClasses(default_seconds=order.retention_default_s, by_type=order.retention_by_type_s),
        options=SealOptions(
            promoted_paths=tuple(parse_declared_path(path) for path in order.promoted_paths),
            compress=order.compress,
            write_index=order.write_index,
        ),
        damage=damage,
    )
    write_request_file(fs, positions, remembered_requests(log_file))
    if damage:
        fs.rename(segment.log, f"{QUARANTINE}/{segment.log.removeprefix(f'{SEGMENTS}/')}.damaged")
        fs.sync_directory(QUARANTINE)
    else:
        fs.remove(segment.log)
    fs.sync_directory(SEGMENTS)


def _find(fs: FileSystem, first: Position) -> SegmentFiles | None:
    return next((s for s in list_segments(fs.list(SEGMENTS)) if s.first == first), None)


def _events(log_file: LogFile) -> Iterator[pa.RecordBatch]:
    view = memoryview(log_file.data)
    for frame in log_file.scan.frames:
        yield frame_events(decode_frame(view[frame.offset : frame.end]))


def main() -> int:
    """Seal what the order on standard input names."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=SealOrder)
    os.nice(order.niceness)
    fs = LocalFileSystem(Path(order.base_path))
    # One at a time: the process of a writer that was killed may still be at it.
    lock = fs.lock(SEALING_LOCK)
    try:
        seal_segment(fs, order)
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
