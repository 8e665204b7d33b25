"""Opening a log after whatever ended the last writer.

Invariants:
- Every intact frame stays. A frame is cut only if it is not intact, lies at the very end of the
  last segment, and nothing shows that it was ever committed; what is cut is kept in quarantine/.
- Committed positions that cannot be read are reported as damage and never given out again: the log
  does not become shorter.
- Afterwards no .log file ends in anything but an intact frame, and all of them are synced.

Two things show that a frame was committed: an intact frame after it (the writer syncs one before it
writes the next), and the committed position, which never promises more than was synced.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

import google_crc32c
import msgspec

from shared.errors import EventStorageException
from shared.log.committed_position import Committed, read_committed
from shared.log.file_system import FileSystem
from shared.log.frame import RequestMark, request_marks
from shared.log.names import IDENTITY, QUARANTINE, SEGMENTS, SegmentFiles, list_segments
from shared.log.segment_scan import (
    SEGMENT_HEADER_BYTES,
    DamagedBytes,
    SegmentScan,
    decode_segment_header,
    scan_frames,
)
from shared.log.types import Damage, Nanoseconds, Offset, Position, PositionRange
from shared.log.whole_file import write_whole_file


class Identity(msgspec.Struct, frozen=True):
    """Content of the identity file: what makes this log this log, and a checksum of it."""

    log_id: str
    crc32c: int

    @classmethod
    def of(cls, log_id: str) -> "Identity":
        """Identity with its checksum."""
        return cls(log_id, google_crc32c.value(log_id.encode()))


@dataclass(frozen=True, slots=True)
class RememberedRequest:
    """A named request found in the log."""

    request_id: str
    first_position: Position
    count: int
    recorded_at: Nanoseconds


@dataclass(slots=True)
class Recovered:
    """What recovery found and did."""

    log_id: str
    last_position: Position = Position(0)
    last_recorded_at: Nanoseconds = Nanoseconds(0)
    torn_bytes: int = 0
    damage: list[Damage] = field(default_factory=list)
    requests: list[RememberedRequest] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)


@dataclass(slots=True)
class LogFile:
    """One .log file, read and scanned. `until` is the first position that belongs to a later segment."""

    name: str
    first: Position
    data: bytes
    scan: SegmentScan
    until: Position | None

    @property
    def last_position(self) -> Position:
        """Last position of its last intact frame."""
        return self.scan.frames[-1].header.positions.last if self.scan.frames else Position(self.first - 1)

    def damage(self) -> list[Damage]:
        """Positions missing before, between and (where a later segment follows) after its intact frames."""
        found = []
        expected = self.first
        for frame in self.scan.frames:
            if frame.header.first_position > expected:
                positions = PositionRange(expected, Position(frame.header.first_position - 1))
                found.append(Damage(positions, self.name, "the bytes between two intact frames are damaged"))
            expected = Position(frame.header.positions.last + 1)
        if self.until is not None and expected < self.until:
            positions = PositionRange(expected, Position(self.until - 1))
            found.append(Damage(positions, self.name, "the file ends before the next segment begins"))
        return found


def read_log_file(fs: FileSystem, segment: SegmentFiles, until: Position | None) -> LogFile:
    """Read and scan one .log file whole."""
    assert segment.log is not None
    data = fs.read(segment.log)
    scan = scan_frames(data[SEGMENT_HEADER_BYTES:], base=Offset(SEGMENT_HEADER_BYTES), first=segment.first)
    if until is not None:
        # A segment that was given up after a failed sync may hold frames that its successor holds again.
        scan.frames = [frame for frame in scan.frames if frame.header.first_position < until]
    return LogFile(segment.log, segment.first, data, scan, until)


def recover(fs: FileSystem, *, new_log_id: str, sealed_log_ids: Iterable[str] = ()) -> Recovered:
    """Bring the directory into order and say what is in it.

    A directory without a log becomes one with new_log_id; sealed_log_ids are those found in sealed
    segments, asked only if nothing else names the log. The caller holds the lock.
    Raises OSError, UnsupportedFormat, EventStorageException where the log's identity is lost.
    """
    segments = list_segments(fs.list(SEGMENTS))
    floor = read_committed(fs)
    recovered = Recovered(_identify(fs, segments, floor, new_log_id, sealed_log_ids))
    if floor is not None and floor.log_id != recovered.log_id:
        floor = None
    for segment, following in zip_longest(segments, segments[1:]):
        if segment.sealed_last is not None:
            recovered.last_position = max(recovered.last_position, segment.sealed_last)
        if segment.log is not None:
            log_file = read_log_file(fs, segment, following.first if following else None)
            _recover_log_file(fs, log_file, recovered, floor if following is None else None)
    if floor is not None:
        recovered.last_recorded_at = max(recovered.last_recorded_at, floor.recorded_at)
        if floor.position > recovered.last_position:
            positions = PositionRange(Position(recovered.last_position + 1), floor.position)
            problem = "these positions were committed and no file holds them"
            recovered.damage.append(Damage(positions, SEGMENTS, problem))
            recovered.last_position = floor.position
    return recovered


def _recover_log_file(fs: FileSystem, log_file: LogFile, recovered: Recovered, floor: Committed | None) -> None:
    damage = log_file.damage()
    for damaged in log_file.scan.damage:
        _quarantine(fs, log_file, damaged, "damage", recovered)
    tail = DamagedBytes(log_file.scan.end, Offset(len(log_file.data)))
    if log_file.until is not None and damage and damage[-1].positions.last == log_file.until - 1:
        _quarantine(fs, log_file, tail, "damaged-tail", recovered)
    if log_file.until is None:
        if floor is not None and floor.position > log_file.last_position and floor.position >= log_file.first:
            positions = PositionRange(Position(log_file.last_position + 1), floor.position)
            damage.append(Damage(positions, log_file.name, "the end of the file, once committed, is damaged"))
            recovered.last_position = max(recovered.last_position, floor.position)
            _quarantine(fs, log_file, tail, "damaged-tail", recovered)
        elif tail.end > tail.offset:
            recovered.torn_bytes += tail.end - tail.offset
            _quarantine(fs, log_file, tail, "torn-tail", recovered)
        _cut_and_sync(fs, log_file)
    recovered.damage += damage
    recovered.last_position = max(recovered.last_position, log_file.last_position)
    for frame in log_file.scan.frames:
        recovered.last_recorded_at = max(recovered.last_recorded_at, frame.header.recorded_at)
    recovered.requests += remembered_requests(log_file)


def _cut_and_sync(fs: FileSystem, log_file: LogFile) -> None:
    if log_file.scan.frames:
        # Cutting syncs: complete frames that nobody waited for become as durable as the others.
        fs.truncate(log_file.name, log_file.scan.end)
    else:
        # Nothing in it: its name may be needed for the segment that begins at the same position.
        fs.remove(log_file.name)
        fs.sync_directory(SEGMENTS)


def remembered_requests(log_file: LogFile) -> list[RememberedRequest]:
    """The named requests of a .log file, oldest first."""
    view = memoryview(log_file.data)
    found = []
    for location in log_file.scan.frames:
        header = location.header
        marks: Iterable[RequestMark] = request_marks(view[location.offset : location.end])
        for mark in marks:
            first = Position(header.first_position + mark.row)
            found.append(RememberedRequest(mark.request_id, first, mark.count, header.recorded_at))
    return found


def _quarantine(fs: FileSystem, log_file: LogFile, damaged: DamagedBytes, kind: str, recovered: Recovered) -> None:
    base = log_file.name.removeprefix(f"{SEGMENTS}/")
    name = f"{QUARANTINE}/{base}.{damaged.offset}-{damaged.end}.{kind}"
    if damaged.offset == damaged.end or name in fs.list(QUARANTINE):
        return
    file = fs.create(name)
    try:
        file.append([log_file.data[damaged.offset : damaged.end]])
        file.sync()
    finally:
        file.close()
    fs.sync_directory(QUARANTINE)
    recovered.quarantined.append(name)


def _identify(
    fs: FileSystem,
    segments: list[SegmentFiles],
    floor: Committed | None,
    new_log_id: str,
    sealed_log_ids: Iterable[str],
) -> str:
    """The log's id, from whatever still knows it; the identity file is made anew where it is missing."""
    if log_id := _read_identity(fs):
        return log_id
    log_id = _id_from_segments(fs, segments) or (floor.log_id if floor else None) or next(iter(sealed_log_ids), None)
    if log_id is None:
        if any(segment.sealed for segment in segments):
            raise EventStorageException(
                "the identity file is lost and no segment names the log: restore the file 'identity' from a backup"
            )
        log_id = new_log_id
    write_whole_file(fs, IDENTITY, msgspec.json.encode(Identity.of(log_id)))
    return log_id


def _read_identity(fs: FileSystem) -> str | None:
    try:
        identity = msgspec.json.decode(fs.read(IDENTITY), type=Identity)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return identity.log_id if identity == Identity.of(identity.log_id) else None


def _id_from_segments(fs: FileSystem, segments: list[SegmentFiles]) -> str | None:
    for segment in reversed(segments):
        if segment.log and (log_id := decode_segment_header(fs.read(segment.log, 0, SEGMENT_HEADER_BYTES))):
            return log_id
    return None
