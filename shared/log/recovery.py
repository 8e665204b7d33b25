"""Opening a log after whatever ended the last writer.

Invariants:
- Every intact frame stays. A frame is cut only if it is not intact, lies at the very end of the
  last segment, and nothing shows that it was ever committed; what is cut is kept in quarantine/.
- Committed positions that cannot be read are reported as damage and never given out again: the log
  does not become shorter. A segment that begins after them says so from then on, because the
  committed position may be lost with the power.
- Afterwards all that is readable is durable. A frame that the last writer may not have synced is
  written anew, because after a failed sync a later one of the same file says nothing about it.
- Interrupted at any point and begun again, it ends the same.

Three things show that a frame was committed: an intact frame after it (the writer syncs one before
it writes the next), a later segment, and the committed position, which never promises more than was
synced.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

import google_crc32c
import msgspec

from shared.errors import EventStorageException
from shared.log.active_segment import create_segment_file
from shared.log.committed_position import Committed, read_committed
from shared.log.file_system import FileSystem
from shared.log.frame import FrameDamaged, RequestMark, decode_header, request_marks
from shared.log.names import (
    IDENTITY,
    QUARANTINE,
    SEGMENTS,
    SegmentFiles,
    is_temporary_log_name,
    list_segments,
    log_name,
)
from shared.log.sealed_metadata import SealedMetadata
from shared.log.sealed_reader import read_sealed
from shared.log.segment_scan import (
    SEGMENT_HEADER_BYTES,
    DamagedBytes,
    SegmentScan,
    decode_segment_header,
    scan_frames,
)
from shared.log.token_key import ensure_token_key
from shared.log.types import Damage, Nanoseconds, Offset, Position, PositionRange
from shared.log.whole_file import write_whole_file

# A process that seals may outlive the last writer and remove a .log file after it was listed.
_LISTING_ATTEMPTS = 5


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
    last_position: Position = field(default=Position(0))
    last_recorded_at: Nanoseconds = field(default=Nanoseconds(0))
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
    def tail(self) -> DamagedBytes:
        """The bytes behind its last intact frame."""
        return DamagedBytes(self.scan.end, Offset(max(self.scan.end, len(self.data))))

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
            found.append(Damage(positions, self.name, "its intact frames end before the next segment begins"))
        return found


def read_log_file(fs: FileSystem, segment: SegmentFiles, until: Position | None) -> LogFile:
    """Read and scan one .log file whole. Raises OSError, UnsupportedFormat."""
    assert segment.log is not None
    data = fs.read(segment.log)
    # Asked only whether a newer version wrote it: nothing else is taken from the header, which may be damaged.
    decode_segment_header(data[:SEGMENT_HEADER_BYTES])
    scan = scan_frames(data[SEGMENT_HEADER_BYTES:], base=Offset(SEGMENT_HEADER_BYTES), first=segment.first)
    if until is not None:
        # A segment that was given up after a failed sync may hold frames that its successor holds again.
        scan.frames = [frame for frame in scan.frames if frame.header.first_position < until]
    return LogFile(segment.log, segment.first, data, scan, until)


def recover(fs: FileSystem, *, new_log_id: str) -> Recovered:
    """Bring the directory into order and say what is in it.

    A directory without a log becomes one with new_log_id. The caller holds the lock.
    Raises OSError, UnsupportedFormat, EventStorageException where the log's identity is lost.
    """
    for _ in range(_LISTING_ATTEMPTS - 1):
        with contextlib.suppress(FileNotFoundError):
            return _recover(fs, new_log_id)
    return _recover(fs, new_log_id)


def _recover(fs: FileSystem, new_log_id: str) -> Recovered:
    _remove_temporary(fs)
    segments = list_segments(fs.list(SEGMENTS))
    floor = read_committed(fs)
    recovered = Recovered(_identify(fs, segments, floor, new_log_id))
    ensure_token_key(fs)
    promised = Position(0)
    if floor is not None and floor.log_id == recovered.log_id:
        promised = floor.position
        recovered.last_recorded_at = floor.recorded_at
    elif (sealed := _newest_sealed(fs, segments)) is not None and sealed.recorded_at is not None:
        recovered.last_recorded_at = Nanoseconds(sealed.recorded_at.last_ns)
    for segment, following in zip_longest(segments, segments[1:]):
        until = following.first if following else None
        if segment.sealed_last is not None:
            recovered.last_position = max(recovered.last_position, segment.sealed_last)
            until = until or Position(segment.sealed_last + 1)
        if segment.log is not None:
            _recover_log_file(fs, read_log_file(fs, segment, until), recovered, promised)
    if promised > recovered.last_position:
        positions = PositionRange(Position(recovered.last_position + 1), promised)
        name = _add_segment(fs, recovered, positions.first)
        recovered.damage.append(Damage(positions, name, "these positions were committed and no file holds them"))
        _add_segment(fs, recovered, Position(promised + 1))
    return recovered


def _remove_temporary(fs: FileSystem) -> None:
    for name in fs.list(SEGMENTS):
        if is_temporary_log_name(name):
            fs.remove(name)


def _add_segment(fs: FileSystem, recovered: Recovered, first: Position) -> str:
    """Begin an empty segment, which says that the positions before it were given out. Returns its name."""
    create_segment_file(fs, log_id=recovered.log_id, first=first).close()
    recovered.last_position = Position(first - 1)
    return log_name(first)


def _recover_log_file(fs: FileSystem, log_file: LogFile, recovered: Recovered, promised: Position) -> None:
    if log_file.until is None and promised > log_file.last_position:
        log_file.until = Position(promised + 1)
        _add_segment(fs, recovered, log_file.until)
    damage = log_file.damage()
    for damaged in log_file.scan.damage:
        _quarantine(fs, log_file, damaged, "damage", recovered)
    if log_file.until is None:
        _settle_end(fs, log_file, recovered, promised)
        last = log_file.last_position
    else:
        last = Position(log_file.until - 1)
        if damage and damage[-1].positions.last == last:
            _quarantine(fs, log_file, log_file.tail, "damaged-tail", recovered)
    recovered.damage += damage
    recovered.last_position = max(recovered.last_position, last)
    view = memoryview(log_file.data)
    for frame in log_file.scan.frames:
        recovered.last_recorded_at = max(recovered.last_recorded_at, frame.header.recorded_at)
        recovered.requests += remembered_requests(view[frame.offset : frame.end])


def _settle_end(fs: FileSystem, log_file: LogFile, recovered: Recovered, promised: Position) -> None:
    """Cut the torn tail of the last segment, and make durable what nobody has promised yet."""
    tail = log_file.tail
    recovered.torn_bytes += tail.end - tail.offset
    _quarantine(fs, log_file, tail, "torn-tail", recovered)
    if log_file.scan.frames and log_file.last_position > promised:
        write_whole_file(fs, log_file.name, log_file.data[: tail.offset])
    elif tail.end > tail.offset:
        fs.truncate(log_file.name, tail.offset)


def remembered_requests(frame: bytes | memoryview) -> list[RememberedRequest]:
    """The named requests of an intact frame, oldest first."""
    header = decode_header(frame)
    try:
        marks: Iterable[RequestMark] = request_marks(frame)
    except FrameDamaged:
        # Written so under right checksums; its reader is told. It keeps the log from nothing.
        return []
    return [
        RememberedRequest(mark.request_id, Position(header.first_position + mark.row), mark.count, header.recorded_at)
        for mark in marks
    ]


def _quarantine(fs: FileSystem, log_file: LogFile, damaged: DamagedBytes, kind: str, recovered: Recovered) -> None:
    data = log_file.data[damaged.offset : damaged.end]
    base = log_file.name.removeprefix(f"{SEGMENTS}/")
    # The checksum in the name tells apart what is found at the same place at different times.
    name = f"{QUARANTINE}/{base}.{damaged.offset}-{damaged.end}.{google_crc32c.value(data):08x}.{kind}"
    if data and name not in fs.list(QUARANTINE):
        write_whole_file(fs, name, data)
        recovered.quarantined.append(name)


def _identify(
    fs: FileSystem,
    segments: list[SegmentFiles],
    floor: Committed | None,
    new_log_id: str,
) -> str:
    """The log's id, from whatever still knows it; the identity file is made anew where it is missing."""
    if log_id := _read_identity(fs):
        return log_id
    log_id = _id_from_segments(fs, segments) or (floor.log_id if floor else None)
    if log_id is None and (sealed := _newest_sealed(fs, segments)) is not None:
        log_id = sealed.log_id
    if log_id is None:
        if any(_holds_frames(fs, segment) for segment in segments):
            raise EventStorageException(
                "the identity file is lost and no segment names the log: restore the file 'identity' from a backup"
            )
        log_id = new_log_id
    write_whole_file(fs, IDENTITY, msgspec.json.encode(Identity.of(log_id)))
    return log_id


def _holds_frames(fs: FileSystem, segment: SegmentFiles) -> bool:
    return bool(segment.sealed) or (segment.log is not None and fs.size(segment.log) > SEGMENT_HEADER_BYTES)


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


def _newest_sealed(fs: FileSystem, segments: list[SegmentFiles]) -> SealedMetadata | None:
    """What the newest readable sealed file says of the log; asked only where the small files are lost."""
    for segment in reversed(segments):
        for name in segment.sealed:
            if (metadata := read_sealed(fs, name).metadata) is not None:
                return metadata
    return None
