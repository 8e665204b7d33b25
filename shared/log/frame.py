"""One group commit as bytes, pure.

    offset  size
         0     4  magic "EVFR"
         4     1  format version
         5     1  flags, 0
         6     2  reserved, 0
         8     8  first position
        16     4  count of events
        20     4  length of the body
        24     8  recorded_at, nanoseconds since the epoch
        32     4  length of the body before compression
        36     4  length of the request marks in it
        40     4  CRC-32C of the body
        44     4  CRC-32C of the 44 bytes before
        48        body: zstd of (request marks as JSON, then one Arrow IPC record batch of FRAME_SCHEMA)

All numbers are little-endian. The marks remember which requests the events came from, so that a
repeated request is recognised after a restart.

Invariants: what decodes was encoded, byte for byte: both checksums hold, the count of rows is the
header's. A frame is whole or worthless; half of one is never returned.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import google_crc32c
import msgspec
import pyarrow as pa
import zstandard

from shared.columns.schema import FRAME_SCHEMA
from shared.errors import UnsupportedFormat
from shared.log.limits import FRAME_EVENTS_MAX, FRAME_RAW_BYTES_MAX
from shared.log.types import Nanoseconds, Position, PositionRange

MAGIC = b"EVFR"
VERSION = 1
HEADER_BYTES = 48
_HEADER = struct.Struct("<4sBBHQIIqIII")
_CRC = struct.Struct("<I")
_COMPRESSION_LEVEL = 1

assert _HEADER.size + _CRC.size == HEADER_BYTES


class FrameDamaged(ValueError):  # noqa: N818 - it says what is wrong with the bytes, like the tree in shared.errors
    """The bytes are not the frame that was written."""


class RequestMark(msgspec.Struct, array_like=True, frozen=True):
    """The events of one named request: row of the first in the frame, and how many."""

    request_id: str
    row: int
    count: int


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The fixed part of a frame."""

    first_position: Position
    count: int
    body_length: int
    recorded_at: Nanoseconds
    raw_length: int
    marks_length: int
    body_crc: int

    @property
    def positions(self) -> PositionRange:
        """The positions in the frame."""
        return PositionRange(self.first_position, Position(self.first_position + self.count - 1))

    @property
    def length(self) -> int:
        """Bytes of the whole frame."""
        return HEADER_BYTES + self.body_length


@dataclass(frozen=True, slots=True)
class Frame:
    """Events committed together. `events` has FRAME_SCHEMA."""

    first_position: Position
    recorded_at: Nanoseconds
    events: pa.RecordBatch
    marks: tuple[RequestMark, ...] = ()


@dataclass(frozen=True, slots=True)
class SerializedFrame:
    """A frame as the bytes of its body before compression. Making it checks the frame; encoding it cannot fail."""

    positions: PositionRange
    recorded_at: Nanoseconds
    marks_length: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A frame ready to be written: header and body are written one after the other."""

    header: FrameHeader
    pieces: tuple[bytes, bytes]


_marks_decoder = msgspec.json.Decoder(list[RequestMark])


def serialize_frame(frame: Frame) -> SerializedFrame:
    """Turn a frame into the bytes of its body. Its events must be 1 to FRAME_EVENTS_MAX rows of FRAME_SCHEMA."""
    count = frame.events.num_rows
    assert 1 <= count <= FRAME_EVENTS_MAX
    assert frame.events.schema.equals(FRAME_SCHEMA)
    marks = msgspec.json.encode(frame.marks)
    raw = b"".join((marks, memoryview(frame.events.serialize())))
    assert len(raw) <= FRAME_RAW_BYTES_MAX
    positions = PositionRange(frame.first_position, Position(frame.first_position + count - 1))
    return SerializedFrame(positions, frame.recorded_at, len(marks), raw)


def compress_frame(frame: SerializedFrame) -> EncodedFrame:
    """Make a frame ready to be written. Leaves the interpreter to other threads."""
    body = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(frame.raw)
    header = FrameHeader(
        first_position=frame.positions.first,
        count=frame.positions.count,
        body_length=len(body),
        recorded_at=frame.recorded_at,
        raw_length=len(frame.raw),
        marks_length=frame.marks_length,
        body_crc=google_crc32c.value(body),
    )
    return EncodedFrame(header, (_pack_header(header), body))


def encode_frame(frame: Frame) -> EncodedFrame:
    """Turn a frame into bytes. Its events must be 1 to FRAME_EVENTS_MAX rows of FRAME_SCHEMA."""
    return compress_frame(serialize_frame(frame))


def decode_header(data: bytes | memoryview, offset: int = 0) -> FrameHeader:
    """Read the header at an offset.

    Raises FrameDamaged where there is none, UnsupportedFormat where a newer version wrote it.
    """
    if len(data) - offset < HEADER_BYTES or data[offset : offset + 4] != MAGIC:
        raise FrameDamaged("no frame begins here")
    fields = bytes(data[offset : offset + _HEADER.size])
    if google_crc32c.value(fields) != _CRC.unpack_from(data, offset + _HEADER.size)[0]:
        raise FrameDamaged("the checksum of the frame's header does not match")
    _, version, _, _, first, count, body_length, recorded_at, raw_length, marks_length, crc = _HEADER.unpack(fields)
    if version > VERSION:
        raise UnsupportedFormat(
            f"the frame at position {first} has format version {version}; this eventlog reads up to {VERSION}: "
            "use the version that wrote it, or a newer one"
        )
    header = FrameHeader(Position(first), count, body_length, Nanoseconds(recorded_at), raw_length, marks_length, crc)
    if not (1 <= count <= FRAME_EVENTS_MAX and marks_length <= raw_length <= FRAME_RAW_BYTES_MAX and first >= 1):
        raise FrameDamaged("the frame's header is out of range")
    return header


def body_is_intact(header: FrameHeader, body: bytes | memoryview) -> bool:
    """Whether the bytes are the body that belongs to the header."""
    return len(body) == header.body_length and google_crc32c.value(bytes(body)) == header.body_crc


def decode_frame(data: bytes | memoryview) -> Frame:
    """Read one whole frame. Raises FrameDamaged, UnsupportedFormat."""
    header = decode_header(data)
    body = bytes(data[HEADER_BYTES : header.length])
    if not body_is_intact(header, body):
        raise FrameDamaged("the checksum of the frame's body does not match")
    raw = _decompress(header, body)
    marks = tuple(_decode_marks(header, raw))
    try:
        events = pa.ipc.read_record_batch(pa.py_buffer(raw)[header.marks_length :], FRAME_SCHEMA)
    except (pa.ArrowException, EOFError, OSError) as error:
        raise FrameDamaged(f"the frame's events do not decode: {error}") from error
    if events.num_rows != header.count:
        raise FrameDamaged("the frame holds another number of events than its header says")
    return Frame(header.first_position, header.recorded_at, events, marks)


def request_marks(data: bytes | memoryview) -> Sequence[RequestMark]:
    """Read only the request marks of an intact frame, which come first. Raises FrameDamaged, UnsupportedFormat."""
    header = decode_header(data)
    if header.marks_length <= len("[]"):
        return ()
    try:
        with zstandard.ZstdDecompressor().stream_reader(data[HEADER_BYTES : header.length]) as body:
            return _decode_marks(header, body.read(header.marks_length))
    except zstandard.ZstdError as error:
        raise FrameDamaged(f"the frame's body does not decompress: {error}") from error


def _pack_header(header: FrameHeader) -> bytes:
    fields = _HEADER.pack(
        MAGIC,
        VERSION,
        0,
        0,
        header.first_position,
        header.count,
        header.body_length,
        header.recorded_at,
        header.raw_length,
        header.marks_length,
        header.body_crc,
    )
    return fields + _CRC.pack(google_crc32c.value(fields))


def _decode_marks(header: FrameHeader, raw: bytes) -> list[RequestMark]:
    try:
        return _marks_decoder.decode(raw[: header.marks_length])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameDamaged(f"the frame's request marks do not decode: {error}") from error


def _decompress(header: FrameHeader, body: bytes) -> bytes:
    try:
        raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=header.raw_length)
    except zstandard.ZstdError as error:
        raise FrameDamaged(f"the frame's body does not decompress: {error}") from error
    if len(raw) != header.raw_length:
        raise FrameDamaged("the frame's body decompresses to another length than its header says")
    return raw
