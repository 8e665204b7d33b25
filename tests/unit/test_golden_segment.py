"""Segments written by format version 1, kept as files, must be read for ever.

tests/golden/segment-v1.log was written once by the code of its time; segment-v1.json says what is in it.
The format's numbers are read here by hand, so that a change of the code on both sides is seen, too.
Both files change only with a decision record.
"""

import struct
from pathlib import Path

import google_crc32c
import msgspec
import pyarrow as pa

from shared.columns.schema import EVENT_SCHEMA
from shared.log.frame import RequestMark, request_marks
from shared.log.frame_index import FrameIndex
from shared.log.names import log_name
from shared.log.segment_scan import SEGMENT_HEADER_BYTES, decode_segment_header, encode_segment_header, scan_frames
from shared.log.types import Offset, Position
from tests.support.builders import open_writer
from tests.support.memory_file_system import MemoryFileSystem

GOLDEN = Path(__file__).parents[1] / "golden"
DATA = (GOLDEN / "segment-v1.log").read_bytes()
CONTENT = msgspec.json.decode((GOLDEN / "segment-v1.json").read_bytes())
FIRST = Position(CONTENT["first_position"])


def rows(table: pa.Table) -> list[dict[str, object]]:
    """The events as the golden file tells them: both times in nanoseconds."""
    for name in ("timestamp", "recorded_at"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table.column(at).cast(pa.int64()))
    return table.to_pylist()


def test_golden_segment_decodes_to_what_was_written():
    """Every event of the file comes back with every field."""
    fs = MemoryFileSystem()
    fs.put(log_name(FIRST), DATA)
    index = FrameIndex(fs, log_name(FIRST), FIRST)
    index.extend(None)
    last = FIRST + len(CONTENT["events"]) - 1
    assert index.last_position == last
    table = pa.Table.from_batches(index.batches(FIRST, Position(last + 1)), schema=EVENT_SCHEMA)
    assert rows(table) == CONTENT["events"]


def test_golden_segment_keeps_its_requests_and_its_log():
    """The header names the log, and the marks name the requests."""
    assert decode_segment_header(DATA) == CONTENT["log_id"]
    scan = scan_frames(DATA[SEGMENT_HEADER_BYTES:], base=Offset(SEGMENT_HEADER_BYTES), first=FIRST)
    assert (len(scan.frames), scan.damage, scan.end) == (3, [], len(DATA))
    marks = [list(request_marks(DATA[frame.offset : frame.end])) for frame in scan.frames]
    assert marks == [[RequestMark(*mark) for mark in frame["marks"]] for frame in CONTENT["frames"]]
    assert [frame.header.recorded_at for frame in scan.frames] == [f["recorded_at"] for f in CONTENT["frames"]]


def test_golden_segment_is_laid_out_as_documented():
    """Magic, versions, lengths, positions and checksums are where the byte diagrams say."""
    assert DATA[:4] == b"EVLG"
    assert DATA[4] == 1
    assert DATA[8:16] == CONTENT["log_id"].encode()
    assert struct.unpack_from("<Q", DATA, 16) == (FIRST,)
    assert struct.unpack_from("<I", DATA, 28) == (google_crc32c.value(DATA[:28]),)
    at, position = 32, FIRST
    for frame in CONTENT["frames"]:
        assert DATA[at : at + 8] == b"EVFR\x01\0\0\0"
        first, count, length, recorded_at = struct.unpack_from("<QIIq", DATA, at + 8)
        assert (first, count, recorded_at) == (position, frame["count"], frame["recorded_at"])
        body_crc, header_crc = struct.unpack_from("<II", DATA, at + 40)
        assert body_crc == google_crc32c.value(DATA[at + 48 : at + 48 + length])
        assert header_crc == google_crc32c.value(DATA[at : at + 44])
        at += 48 + length
        position += count
    assert at == len(DATA)
    assert encode_segment_header(CONTENT["log_id"], FIRST) == DATA[:32]


def test_log_with_a_golden_segment_is_opened_and_goes_on():
    """A writer of today takes over a directory of then."""
    fs = MemoryFileSystem()
    fs.put(log_name(FIRST), DATA)
    writer = open_writer(fs, new_log_id="newlog00")
    assert writer.log_id == CONTENT["log_id"]
    assert writer.last_position == FIRST + len(CONTENT["events"]) - 1
    assert (writer.recovered.damage, writer.recovered.torn_bytes) == ([], 0)
    assert [request.request_id for request in writer.recovered.requests] == ["golden-1", "golden-2", "größe/3"]
