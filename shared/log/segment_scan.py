"""Finding the frames in the bytes of a .log file, pure.

Invariants: every frame returned is intact; frames come in position order and do not overlap; every
byte after the segment's header is in a frame, in damage, or in the tail. Damage lies before an
intact frame; the tail is what follows the last one. What lies within the body of a frame whose header
is intact is never taken for a frame, whatever its bytes say. Nothing here decides what a tail means:
shared.log.recovery does.
"""

import struct
from dataclasses import dataclass, field

import google_crc32c

from shared.errors import UnsupportedFormat
from shared.log.frame import HEADER_BYTES, MAGIC, FrameDamaged, FrameHeader, body_is_intact, decode_header
from shared.log.types import Offset, Position

SEGMENT_MAGIC = b"EVLG"
SEGMENT_VERSION = 1
SEGMENT_HEADER_BYTES = 32
LOG_ID_LENGTH = 8
_SEGMENT_HEADER = struct.Struct("<4sB3x8sQ4x")
_CRC = struct.Struct("<I")

assert _SEGMENT_HEADER.size + _CRC.size == SEGMENT_HEADER_BYTES


def encode_segment_header(log_id: str, first: Position) -> bytes:
    """Header of a .log file: magic "EVLG", version, log id, first position, CRC-32C; 32 bytes."""
    assert len(log_id) == LOG_ID_LENGTH
    fields = _SEGMENT_HEADER.pack(SEGMENT_MAGIC, SEGMENT_VERSION, log_id.encode("ascii"), first)
    return fields + _CRC.pack(google_crc32c.value(fields))


def decode_segment_header(data: bytes) -> str | None:
    """Log id in the header of a .log file, None where the header is damaged. Raises UnsupportedFormat."""
    fields = data[: _SEGMENT_HEADER.size]
    if len(data) < SEGMENT_HEADER_BYTES or google_crc32c.value(fields) != _CRC.unpack_from(data, len(fields))[0]:
        return None
    magic, version, log_id, _ = _SEGMENT_HEADER.unpack(fields)
    if magic != SEGMENT_MAGIC:
        return None
    if version > SEGMENT_VERSION:
        raise UnsupportedFormat(
            f"the segment has format version {version}; this eventlog reads up to {SEGMENT_VERSION}: "
            "use the version that wrote it, or a newer one"
        )
    return str(log_id, "ascii")


@dataclass(frozen=True, slots=True)
class FrameLocation:
    """An intact frame and where it begins."""

    header: FrameHeader
    offset: Offset

    @property
    def end(self) -> Offset:
        """Where the next frame begins."""
        return Offset(self.offset + self.header.length)


@dataclass(frozen=True, slots=True)
class DamagedBytes:
    """Bytes before an intact frame that are no frame: [offset, end)."""

    offset: Offset
    end: Offset


@dataclass(slots=True)
class SegmentScan:
    """What a stretch of a .log file holds. `end` is where the last intact frame ends."""

    frames: list[FrameLocation] = field(default_factory=list)
    damage: list[DamagedBytes] = field(default_factory=list)
    end: Offset = field(default=Offset(SEGMENT_HEADER_BYTES))


def scan_frames(data: bytes, *, base: Offset, first: Position) -> SegmentScan:
    """Find the frames in data, which begins at file offset base; positions below first are no frames of it."""
    scan = SegmentScan(end=base)
    view = memoryview(data)
    at = 0
    expected = first
    while (found := _next_intact(data, view, at, expected)) is not None:
        start, header = found
        if start > at:
            scan.damage.append(DamagedBytes(Offset(base + at), Offset(base + start)))
        scan.frames.append(FrameLocation(header, Offset(base + start)))
        at = start + header.length
        expected = Position(header.first_position + header.count)
        scan.end = Offset(base + at)
    return scan


def _next_intact(data: bytes, view: memoryview, at: int, expected: Position) -> tuple[int, FrameHeader] | None:
    """Offset and header of the first intact frame from `at` on."""
    while 0 <= at < len(data):
        header = _header(view, at, expected)
        if header is None:
            at = data.find(MAGIC, at + 1)
        elif body_is_intact(header, view[at + HEADER_BYTES : at + header.length]):
            return at, header
        else:
            # What lies within a damaged body is no frame: producers choose bytes of it.
            at += header.length
    return None


def _header(view: memoryview, at: int, expected: Position) -> FrameHeader | None:
    try:
        header = decode_header(view, at)
    except FrameDamaged:
        return None
    return header if header.first_position >= expected else None
