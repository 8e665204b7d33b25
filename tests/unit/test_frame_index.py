"""Reading one .log file by position."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.log import frame_index
from shared.log.frame import decode_frame
from shared.log.frame_index import FrameIndex, frame_events
from shared.log.names import log_name
from shared.log.segment_scan import SEGMENT_HEADER_BYTES, encode_segment_header
from shared.log.types import Offset, Position
from tests.support.builders import LOG_ID, numbered_frame
from tests.support.memory_file_system import MemoryFileSystem

NAME = log_name(Position(1))


def segment(*sizes: int) -> tuple[MemoryFileSystem, list[int]]:
    """A segment of frames with the given numbers of events, and where each frame begins and the last ends."""
    data = encode_segment_header(LOG_ID, Position(1))
    offsets, first = [], 1
    for size in sizes:
        offsets.append(len(data))
        data += b"".join(numbered_frame(first, size, recorded_at=1000 + first).pieces)
        first += size
    fs = MemoryFileSystem()
    fs.put(NAME, data)
    return fs, [*offsets, len(data)]


def index_of(fs: MemoryFileSystem, end: int | None = None) -> FrameIndex:
    index = FrameIndex(fs, NAME, Position(1))
    index.extend(None if end is None else Offset(end))
    return index


def payloads(index: FrameIndex, first: int, until: int) -> dict[int, str]:
    table = pa.Table.from_batches(index.batches(Position(first), Position(until)), schema=EVENT_SCHEMA)
    return dict(zip(table.column("position").to_pylist(), table.column("payload").to_pylist(), strict=True))


def expected(first: int, until: int) -> dict[int, str]:
    return {position: f'{{"text":"event {position}"}}' for position in range(first, until)}


def test_frame_events_get_position_and_recorded_at():
    """A frame's columns come with the positions and the time of its header, as every reader yields them."""
    events = frame_events(decode_frame(b"".join(numbered_frame(7, 3, recorded_at=99).pieces)))
    assert events.schema.equals(EVENT_SCHEMA)
    assert events.column("position").to_pylist() == [7, 8, 9]
    assert events.column("recorded_at").cast(pa.int64()).to_pylist() == [99] * 3


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    first=st.integers(1, 22),
    length=st.integers(0, 22),
)
def test_any_range_gives_exactly_its_events(sizes, first, length):
    """Whatever range is asked for within the file comes back whole, in order, and nothing else."""
    fs, _ = segment(*sizes)
    last = sum(sizes)
    until = min(first + length, last + 1)
    assert payloads(index_of(fs), first, until) == expected(first, until)


def test_index_reads_no_further_than_the_committed_end():
    """Bytes behind the committed end do not exist for a reader, and are found once they are committed."""
    fs, offsets = segment(2, 2, 2)
    index = FrameIndex(fs, NAME, Position(1))
    for frames, end in enumerate(offsets):
        index.extend(Offset(end))
        assert index.last_position == 2 * frames
        assert payloads(index, 1, 2 * frames + 1) == expected(1, 2 * frames + 1)
        with pytest.raises(LogCorrupted):
            list(index.frames(Position(1), Position(2 * frames + 2)))


def test_index_of_an_empty_segment_holds_nothing():
    """A segment without frames answers an empty range, and says so for any other."""
    fs, offsets = segment()
    index = index_of(fs)
    assert offsets == [SEGMENT_HEADER_BYTES]
    assert (index.last_position, index.damage(Position(1))) == (0, [])
    assert list(index.frames(Position(1), Position(1))) == []


@pytest.mark.parametrize("chunk", [1, 100, 700, 1300])
def test_index_made_in_small_chunks_is_the_same(monkeypatch, chunk):
    """However few bytes are read at once, frames across the edges and damage are found alike."""
    fs, offsets = segment(2, 1, 3, 2)
    fs.flip(NAME, offsets[1] + 60)
    whole = index_of(fs)
    monkeypatch.setattr(frame_index, "_CHUNK_BYTES", chunk)
    index = index_of(fs)
    assert index.damage(Position(9)) == whole.damage(Position(9))
    assert payloads(index, 4, 9) == expected(4, 9)


def test_damaged_frame_is_reported_and_the_others_are_read():
    """A bit flipped in any byte of a frame costs that frame alone, and a reader is told which positions."""
    _, offsets = segment(2, 3, 2)
    for at in range(offsets[1], offsets[2]):
        fs, _ = segment(2, 3, 2)
        fs.flip(NAME, at)
        index = index_of(fs)
        assert [(d.positions.first, d.positions.last, d.file) for d in index.damage(Position(8))] == [(3, 5, NAME)]
        assert payloads(index, 1, 3) == expected(1, 3)
        assert payloads(index, 6, 8) == expected(6, 8)
        with pytest.raises(LogCorrupted, match="read on from position 6") as caught:
            payloads(index, 2, 8)
        assert (caught.value.metadata["first_position"], caught.value.metadata["last_position"]) == ("3", "5")


def test_damage_before_the_reader_and_at_the_end_is_found():
    """Damage at the beginning and at the end of a file has no intact neighbour, and is reported all the same."""
    fs, offsets = segment(2, 2, 2)
    fs.flip(NAME, offsets[0])
    fs.flip(NAME, offsets[2])
    index = index_of(fs)
    assert [(d.positions.first, d.positions.last) for d in index.damage(Position(7))] == [(1, 2), (5, 6)]
    assert payloads(index, 3, 5) == expected(3, 5)


def test_frame_that_rots_after_it_was_indexed_is_not_returned():
    """The frame is verified again when it is read."""
    fs, offsets = segment(2, 2)
    index = index_of(fs)
    fs.flip(NAME, offsets[1] + 50)
    assert payloads(index, 1, 3) == expected(1, 3)
    with pytest.raises(LogCorrupted, match="positions 3 to 4"):
        payloads(index, 1, 5)


def test_frame_put_in_the_place_of_another_is_not_returned():
    """Where the file was replaced, the frame that lies at the offset now is not taken for the one indexed."""
    fs, offsets = segment(2)
    index = index_of(fs)
    others = (b"".join(numbered_frame(5, 2, recorded_at=1001, word=f"{n:05}").pieces) for n in range(1000))
    other = next(each for each in others if len(each) == offsets[1] - offsets[0])
    fs.put(NAME, encode_segment_header(LOG_ID, Position(1)) + other)
    with pytest.raises(LogCorrupted, match="another frame"):
        payloads(index, 1, 3)


def test_index_of_a_removed_file_says_so():
    """A file that was sealed meanwhile raises what the reader waits for to look again."""
    fs, _ = segment(2)
    index = index_of(fs)
    fs.delete(NAME)
    with pytest.raises(FileNotFoundError):
        index.extend(None)
    with pytest.raises(FileNotFoundError):
        payloads(index, 1, 3)


def test_index_takes_no_frame_that_a_later_segment_holds():
    """A frame that the segment was given up with lies behind the range of its positions and is not returned."""
    fs, _ = segment(2, 2)
    index = index_of(fs)
    assert payloads(index, 1, 3) == expected(1, 3)
    assert index.damage(Position(3)) == []
