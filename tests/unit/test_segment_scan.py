"""Finding frames among damaged bytes."""

import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UnsupportedFormat
from shared.log.frame import MAGIC
from shared.log.segment_scan import (
    SEGMENT_HEADER_BYTES,
    decode_segment_header,
    encode_segment_header,
    scan_frames,
)
from shared.log.types import Offset, Position
from tests.support.builders import numbered_frame

BASE = Offset(SEGMENT_HEADER_BYTES)
FRAMES = [b"".join(numbered_frame(first, 2).pieces) for first in (1, 3, 5, 7)]
# Bytes that are no frame, some of which look like a part of one.
JUNK = st.binary(max_size=40) | st.sampled_from([MAGIC, MAGIC * 3, FRAMES[0][:47], FRAMES[1][1:], FRAMES[2][47:]])


def scan(data: bytes, first: int = 1):
    return scan_frames(data, base=BASE, first=Position(first))


def assert_covers(data: bytes, found) -> None:
    """Every byte is in exactly one frame, in damage, or in the tail."""
    pieces = sorted([(f.offset, f.end) for f in found.frames] + [(d.offset, d.end) for d in found.damage])
    at = BASE
    for start, end in pieces:
        assert start == at
        assert end > start
        at = end
    assert at == found.end <= BASE + len(data)


def test_segment_header_comes_back():
    """The header keeps the log's id, and has the size that the format says."""
    header = encode_segment_header("abcdefgh", Position(17))
    assert len(header) == SEGMENT_HEADER_BYTES
    assert decode_segment_header(header + b"frames") == "abcdefgh"


def test_damaged_segment_header_names_no_log():
    """A wrong bit or a cut makes the header say nothing, never another id."""
    header = encode_segment_header("abcdefgh", Position(17))
    for bit in range(8 * len(header)):
        damaged = bytearray(header)
        damaged[bit // 8] ^= 1 << bit % 8
        assert decode_segment_header(bytes(damaged)) is None
    for size in range(len(header)):
        assert decode_segment_header(header[:size]) is None


def test_segment_header_of_another_format_is_none_or_refused():
    """An intact header of a newer version says what to do; one with another magic is no header."""
    fields = bytearray(encode_segment_header("abcdefgh", Position(17))[:-4])
    fields[4] = 2
    newer = bytes(fields) + google_crc32c.value(bytes(fields)).to_bytes(4, "little")
    with pytest.raises(UnsupportedFormat, match=r"version 2; .* use the version that wrote it"):
        decode_segment_header(newer)
    fields[:4] = b"ELSE"
    other = bytes(fields) + google_crc32c.value(bytes(fields)).to_bytes(4, "little")
    assert decode_segment_header(other) is None


def test_scan_finds_all_frames_in_order():
    """Intact bytes give every frame, no damage, no tail."""
    data = b"".join(FRAMES)
    found = scan(data)
    assert [f.header.first_position for f in found.frames] == [1, 3, 5, 7]
    assert found.damage == []
    assert found.end == BASE + len(data)


@given(junk=st.lists(JUNK, min_size=5, max_size=5))
def test_scan_finds_every_frame_between_any_junk(junk):
    """Whatever lies between and after the frames is damage or tail, and costs no intact frame."""
    data = junk[0] + b"".join(frame + after for frame, after in zip(FRAMES, junk[1:], strict=True))
    found = scan(data)
    # Junk may itself be a whole frame only by a checksum's chance; the four are in order and all there.
    assert [f.header.first_position for f in found.frames] == [1, 3, 5, 7]
    assert_covers(data, found)
    assert found.end == BASE + len(data) - len(junk[4])


@given(lost=st.sets(st.integers(0, 3)), data=st.data())
def test_scan_keeps_what_is_intact_whatever_is_damaged(lost, data):
    """Damaging some frames loses those alone."""
    pieces = list(FRAMES)
    for number in lost:
        at = data.draw(st.integers(0, len(pieces[number]) - 1))
        pieces[number] = pieces[number][:at] + bytes([pieces[number][at] ^ 1]) + pieces[number][at + 1 :]
    whole = b"".join(pieces)
    found = scan(whole)
    assert [f.header.first_position for f in found.frames] == [1 + 2 * n for n in range(4) if n not in lost]
    assert_covers(whole, found)


def test_scan_takes_no_frame_from_before():
    """A frame below the first position asked for is none of this segment's; nor is one that comes twice."""
    assert scan(FRAMES[0], first=3).frames == []
    found = scan(FRAMES[1] + FRAMES[0] + FRAMES[2], first=3)
    assert [f.header.first_position for f in found.frames] == [3, 5]
    assert len(found.damage) == 1


def frame_around(content: bytes) -> bytes:
    """A frame of one event at position 1 whose body holds bytes as they are, under checksums that hold."""
    body = b"some bytes " + content + b" and more"
    fields = bytearray(FRAMES[0][:44])
    struct.pack_into("<I", fields, 20, len(body))
    struct.pack_into("<I", fields, 40, google_crc32c.value(body))
    return bytes(fields) + google_crc32c.value(bytes(fields)).to_bytes(4, "little") + body


def test_scan_finds_no_frame_within_the_body_of_another():
    """Bytes of a producer that look like a frame are none, however the frame that holds them is torn or rots."""
    outer = frame_around(FRAMES[2])
    following = FRAMES[3]
    for size in range(48, len(outer)):
        found = scan(outer[:size])
        assert (found.frames, found.damage, found.end) == ([], [], BASE)
    for at in range(48, len(outer)):
        rotten = outer[:at] + bytes([outer[at] ^ 4]) + outer[at + 1 :]
        found = scan(rotten + following)
        assert [f.header.first_position for f in found.frames] == [7]
        assert [(d.offset, d.end) for d in found.damage] == [(BASE, BASE + len(outer))]


def test_scan_of_nothing_finds_nothing():
    """No bytes are neither frames nor damage."""
    found = scan(b"")
    assert (found.frames, found.damage, found.end) == ([], [], BASE)


def test_scan_of_a_newer_frame_is_refused():
    """An intact frame of a newer format is not passed over as damage."""
    fields = bytearray(FRAMES[1][:44])
    fields[4] = 9
    newer = bytes(fields) + google_crc32c.value(bytes(fields)).to_bytes(4, "little") + FRAMES[1][48:]
    with pytest.raises(UnsupportedFormat):
        scan(FRAMES[0] + newer)
