"""The bytes of a frame: what decodes was encoded, whatever happened to the bytes between."""

import struct

import google_crc32c
import msgspec
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shared.columns.schema import FRAME_SCHEMA
from shared.errors import UnsupportedFormat
from shared.log.frame import (
    HEADER_BYTES,
    Frame,
    FrameDamaged,
    RequestMark,
    body_is_intact,
    decode_frame,
    decode_header,
    encode_frame,
    request_marks,
)
from shared.log.limits import FRAME_EVENTS_MAX
from shared.log.types import Nanoseconds, Position
from tests.support.builders import event_batch, numbered_frame

TEXT = st.text(max_size=12)
ROW = st.fixed_dictionaries(
    {
        "timestamp": st.integers(-(2**63) + 1, 2**63 - 1),
        "type": TEXT,
        "source": TEXT,
        "correlation_id": st.none() | TEXT,
        "payload": TEXT,
        "host": TEXT,
        "version": TEXT,
        "user": st.none() | TEXT,
        "session_id": st.none() | TEXT,
        "tags": st.lists(TEXT, max_size=3),
    }
)
MARK = st.builds(RequestMark, TEXT, st.integers(0, 100), st.integers(1, 100))


def encoded_bytes(frame: Frame) -> bytes:
    return b"".join(encode_frame(frame).pieces)


def resealed(data: bytes) -> bytes:
    """The same header fields with checksums that hold, as a newer or a broken writer would make them."""
    fields = bytearray(data[: HEADER_BYTES - 4])
    struct.pack_into("<I", fields, 40, google_crc32c.value(data[HEADER_BYTES:]))
    return bytes(fields) + struct.pack("<I", google_crc32c.value(bytes(fields))) + data[HEADER_BYTES:]


@given(
    rows=st.lists(ROW, min_size=1, max_size=5),
    first=st.integers(1, 2**64 - 10),
    recorded_at=st.integers(-(2**63), 2**63 - 1),
    marks=st.lists(MARK, max_size=3),
)
def test_frame_decodes_to_what_was_encoded(rows, first, recorded_at, marks):
    """Any events, positions, times and marks come back exactly."""
    events = pa.RecordBatch.from_pylist(rows, schema=FRAME_SCHEMA)
    frame = Frame(Position(first), Nanoseconds(recorded_at), events, tuple(marks))
    data = encoded_bytes(frame)
    decoded = decode_frame(data)
    assert decoded.events.equals(events)
    assert (decoded.first_position, decoded.recorded_at, decoded.marks) == (first, recorded_at, tuple(marks))
    assert list(request_marks(data)) == marks


def test_frame_header_says_what_is_in_the_frame():
    """The header alone gives positions and length, so that a reader can skip the body."""
    encoded = numbered_frame(41, 3, recorded_at=7)
    header = decode_header(b"".join(encoded.pieces))
    assert header == encoded.header
    assert (header.positions.first, header.positions.last, header.recorded_at) == (41, 43, 7)
    assert header.length == sum(len(piece) for piece in encoded.pieces)


def test_frame_with_any_bit_flipped_is_refused():
    """No single wrong bit gives a wrong frame: each is an error."""
    data = b"".join(numbered_frame(1, 2).pieces)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FrameDamaged, UnsupportedFormat)):
            decode_frame(bytes(damaged))


def test_frame_with_any_byte_replaced_is_refused():
    """No single wrong byte gives a wrong frame."""
    data = b"".join(numbered_frame(1, 2).pieces)
    for at in range(len(data)):
        for value in {0, 0xFF, data[at] ^ 0x55} - {data[at]}:
            with pytest.raises((FrameDamaged, UnsupportedFormat)):
                decode_frame(data[:at] + bytes([value]) + data[at + 1 :])


def test_frame_cut_at_any_byte_is_refused():
    """Half a frame is never returned."""
    data = b"".join(numbered_frame(1, 2).pieces)
    for size in range(len(data)):
        with pytest.raises(FrameDamaged):
            decode_frame(data[:size])


def test_frame_is_read_without_what_follows_it():
    """Bytes after a frame do not change it."""
    data = b"".join(numbered_frame(1, 2).pieces)
    assert decode_frame(data + data).events.equals(decode_frame(data).events)
    assert list(request_marks(data + b"junk")) == [RequestMark("event-1", 0, 2)]


def test_frame_of_a_newer_version_says_what_to_do():
    """An intact frame of a newer format is not called damage: the message asks for a newer program."""
    data = bytearray(b"".join(numbered_frame(9, 1).pieces))
    data[4] = 2
    with pytest.raises(UnsupportedFormat, match=r"position 9 has format version 2.*use the version that wrote it"):
        decode_header(resealed(bytes(data)))


@pytest.mark.parametrize(
    ("offset", "code", "value"),
    [(8, "<Q", 0), (16, "<I", 0), (16, "<I", FRAME_EVENTS_MAX + 1), (32, "<I", 0), (32, "<I", 2**32 - 1)],
)
def test_frame_header_out_of_range_is_refused(offset, code, value):
    """Numbers that no writer writes are damage, however right the checksums are."""
    data = bytearray(b"".join(numbered_frame(1, 2).pieces))
    struct.pack_into(code, data, offset, value)
    with pytest.raises(FrameDamaged, match="out of range"):
        decode_frame(resealed(bytes(data)))


def test_frame_whose_header_counts_wrong_is_refused():
    """A header that promises another number of events than the body holds is damage."""
    data = bytearray(b"".join(numbered_frame(1, 2).pieces))
    struct.pack_into("<I", data, 16, 3)
    with pytest.raises(FrameDamaged, match="another number of events"):
        decode_frame(resealed(bytes(data)))


def test_frame_whose_header_gives_a_wrong_raw_length_is_refused():
    """A body that decompresses to another length is damage."""
    data = bytearray(b"".join(numbered_frame(1, 2).pieces))
    struct.pack_into("<I", data, 32, struct.unpack_from("<I", data, 32)[0] + 1)
    with pytest.raises(FrameDamaged, match="another length"):
        decode_frame(resealed(bytes(data)))


@pytest.mark.parametrize(
    "raw",
    [b"not json", b'[["a",0,1]]', b'[["a",0,1]]' + b"\xff" * 100, msgspec.json.encode([1])],
)
def test_frame_with_a_senseless_body_is_damage(raw):
    """A body that a faulty memory wrote under right checksums is damage, not another kind of error."""
    template = b"".join(numbered_frame(1, 1).pieces)
    body = zstandard.ZstdCompressor().compress(raw)
    fields = bytearray(template[:HEADER_BYTES])
    struct.pack_into("<I", fields, 20, len(body))
    struct.pack_into("<I", fields, 32, len(raw))
    struct.pack_into("<I", fields, 36, min(len(raw), len(b'[["a",0,1]]')))
    with pytest.raises(FrameDamaged):
        decode_frame(resealed(bytes(fields) + body))


def test_frame_body_that_is_no_zstd_is_damage():
    """Bytes that do not decompress are damage for whoever reads the marks, too."""
    data = resealed(b"".join(numbered_frame(1, 1).pieces)[:HEADER_BYTES] + b"x" * 10)
    fields = bytearray(data)
    struct.pack_into("<I", fields, 20, 10)
    data = resealed(bytes(fields))
    for read in (decode_frame, request_marks):
        with pytest.raises(FrameDamaged, match="does not decompress"):
            read(data)


def test_frame_without_named_requests_has_no_marks():
    """The marks of anonymous requests cost nothing to skip."""
    data = encoded_bytes(Frame(Position(1), Nanoseconds(0), event_batch(["{}"])))
    assert list(request_marks(data)) == []
    assert decode_frame(data).marks == ()


def test_body_belongs_to_its_header_only():
    """A body is intact only under its own header."""
    one, other = numbered_frame(1, 2), numbered_frame(3, 2)
    assert body_is_intact(one.header, one.pieces[1])
    assert not body_is_intact(one.header, other.pieces[1])


def test_encoding_refuses_what_no_caller_may_give():
    """No events, or events of another schema, are our own bug."""
    with pytest.raises(AssertionError):
        encode_frame(Frame(Position(1), Nanoseconds(0), event_batch([])))
    with pytest.raises(AssertionError):
        encode_frame(Frame(Position(1), Nanoseconds(0), pa.record_batch({"payload": ["{}"]})))
