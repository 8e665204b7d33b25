"""Reading every byte of a segment and checking it.

Invariant: looks at the disk itself, past every cache. Damage is an answer here, not an error.
"""

import contextlib
from dataclasses import dataclass, field

import google_crc32c
import pyarrow as pa

from shared.clock import Clock, SystemClock
from shared.errors import LogCorrupted
from shared.log.committed_position import Committed
from shared.log.file_system import FileSystem
from shared.log.frame import FrameDamaged
from shared.log.frame_index import FrameIndex
from shared.log.log_reader import SegmentSpan
from shared.log.missing_files import missing_files
from shared.log.names import QUARANTINE, SEGMENTS, requests_name
from shared.log.request_file import read_request_file
from shared.log.sealed_merge import SealedSegment
from shared.log.sealed_reader import read_sealed
from shared.log.sealed_verify import repair_sealed, verify_sealed
from shared.log.segment_scan import SEGMENT_HEADER_BYTES, decode_segment_header
from shared.log.types import Damage, Position, PositionRange
from shared.log.whole_file import write_whole_file

_SYSTEM_CLOCK = SystemClock()


@dataclass(slots=True)
class Verified:
    """What was read of a segment, and what of it is damaged."""

    events: int = 0
    bytes: int = 0
    damage: list[Damage] = field(default_factory=list)


def verify_segment(
    fs: FileSystem, span: SegmentSpan, committed: Committed, *, clock: Clock = _SYSTEM_CLOCK
) -> Verified:
    """Decode and check everything of one segment. Raises FileNotFoundError where it changed meanwhile."""
    if span.files.log is not None:
        return _verify_log_file(fs, span, span.files.log, committed)
    return _verify_sealed_files(fs, span, clock.now_ns())


def _verify_sealed_files(fs: FileSystem, span: SegmentSpan, now_ns: int) -> Verified:
    verified = Verified()
    files = []
    for name in span.files.sealed:
        file = read_sealed(fs, name)
        files.append(file)
        verified.events += sum(group.rows for group in file.row_groups)
        verified.bytes += fs.size(name)
        if file.metadata is not None:
            verified.damage += [each for each in file.metadata.damage if each not in verified.damage]
        verified.damage += verify_sealed(fs, name)
    segment = SealedSegment(files[0].name.positions, tuple(files))
    with contextlib.suppress(LogCorrupted):  # reported already
        verified.damage += missing_files(segment, now_ns=now_ns)
    verified.damage += _verify_request_file(fs, segment.positions)
    return verified


def mend_segment(fs: FileSystem, span: SegmentSpan) -> None:
    """Put back on disk what repair data can make whole; the damaged bytes are kept in quarantine. Raises OSError."""
    for name in span.files.sealed:
        if read_sealed(fs, name).intact_on_disk:
            repair_sealed(fs, name)
            continue
        damaged = fs.read(name)
        kept = f"{QUARANTINE}/{name.rpartition('/')[2]}.{google_crc32c.value(damaged):08x}.damaged"
        if kept not in fs.list(QUARANTINE):
            write_whole_file(fs, kept, damaged)
        # An attempt that failed may have left the copy, and what was repaired, without a durable name.
        fs.sync_directory(QUARANTINE)
        repair_sealed(fs, name)
    fs.sync_directory(SEGMENTS)


def _verify_log_file(fs: FileSystem, span: SegmentSpan, name: str, committed: Committed) -> Verified:
    index = FrameIndex(fs, name, span.files.first)
    index.extend(committed.active_end if span.files.first == committed.active_first else None)
    verified = Verified(bytes=fs.size(name), damage=index.damage(span.until))
    if decode_segment_header(fs.read(name, 0, SEGMENT_HEADER_BYTES)) is None:
        problem = "the header of the file is damaged: no event is lost, and sealing does without it"
        verified.damage.append(Damage(_no_position(span.files.first), name, problem))
    at = span.files.first
    while at < span.until:
        try:
            for batch in index.batches(at, span.until):
                positions = PositionRange(at, Position(at + batch.num_rows - 1))
                if problem := _problem(batch):
                    _add(verified, Damage(positions, name, problem))
                else:
                    verified.events += batch.num_rows
                at = Position(positions.last + 1)
        except LogCorrupted as error:
            last = Position(int(error.metadata["last_position"]))
            _add(verified, Damage(PositionRange(at, last), name, str(error)))
            at = Position(last + 1)
        else:
            at = span.until
    return verified


def _problem(events: pa.RecordBatch) -> str:
    """What is wrong with events whose bytes are as they were written: our own mistakes."""
    try:
        events.validate(full=True)
    except pa.ArrowInvalid as error:
        return f"the events are not what their columns promise ({error}): report this"
    return ""


def _add(verified: Verified, found: Damage) -> None:
    """Add damage that is not among what is known already: intact bytes that are no events."""
    if not any(known.positions.overlaps(found.positions) for known in verified.damage):
        verified.damage.append(found)


def _verify_request_file(fs: FileSystem, positions: PositionRange) -> list[Damage]:
    """Check the request ids beside a sealed segment, where there are any."""
    name = requests_name(positions)
    try:
        read_request_file(fs, name)
    except FileNotFoundError:
        return []
    except FrameDamaged as error:
        problem = f"{error}: its events are whole, but a repeated request of theirs would be logged again"
        return [Damage(_no_position(positions.first), name, problem)]
    return []


def _no_position(first: Position) -> PositionRange:
    """Nothing: what is lost where a file is damaged and no event is."""
    return PositionRange(first, Position(first - 1))
