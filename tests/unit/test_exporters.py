"""Tests of query_service.exporters: each format says what the events say, and a file can be read by others."""

import csv
import io
import json
import subprocess
import sys

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from query_service.exporters import ExportContext, ExportFormats, export_pieces
from query_service.exporters.csv_exporter import SAMPLE_EVENTS_MAX
from query_service.exporters.parquet_exporter import GROUP_EVENTS_MAX
from query_service.exporters.pieces import PIECE_BYTES_MAX
from shared.columns.schema import EVENT_SCHEMA
from shared.events.document import parse_document, to_document
from shared.events.ids import format_event_id
from shared.events.model import EventMetadata, ExactEvent
from shared.events.timestamps import format_timestamp
from tests.support.hostile import hostile_payloads
from tests.support.reference_events import event_batch, reference_batch

LOG_ID = "TESTKEG1"
ODD = 'NUL \0, new line \n, "quoted", \\, \x1b[31m, \u202e, \U0001f600, \u2028, \x7f, \ufffe'
FORMATS = ExportFormats(added=())
NAMES = ("json", "csv", "parquet")


def export(name: str, *batches: pa.RecordBatch, zstd: bool = False, paths: tuple[tuple[str, ...], ...] = ()) -> bytes:
    """The bytes of an export."""
    exporter = FORMATS.exporter(name, ExportContext(LOG_ID, paths), zstd=zstd)
    return b"".join(piece.data for piece in export_pieces(exporter, batches))


def rows_of(data: bytes) -> list[dict[str, str]]:
    """The rows of a CSV file, by column."""
    csv.field_size_limit(2 * 1024 * 1024)
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def exact_events(events: pa.RecordBatch) -> list[ExactEvent]:
    """The events of a batch, one by one."""
    times = events["timestamp"].cast(pa.int64()).to_pylist()
    return [
        ExactEvent(
            id=format_event_id(LOG_ID, row["position"]),
            timestamp_ns=time,
            type=row["type"],
            source=row["source"],
            correlation_id=row["correlation_id"],
            payload_json=row["payload"],
            metadata=EventMetadata(**{key: row[key] for key in ("host", "version", "user", "session_id", "tags")}),
        )
        for time, row in zip(times, events.drop_columns(["timestamp", "recorded_at"]).to_pylist(), strict=True)
    ]


@pytest.fixture(scope="module")
def hostile() -> pa.RecordBatch:
    """Events with everything in them that the log records, where formats may trip."""
    payloads = [each.event.payload_json for each in hostile_payloads() if each.refused_field != "payload_json"]
    events = [{"payload": payload} for payload in payloads]
    events += [
        {
            "source": ODD,
            "correlation_id": ODD,
            "host": ODD,
            "version": "",
            "user": ODD,
            "session_id": "",
            "tags": [ODD],
        },
        {"source": "", "tags": ["a", "", 'b"c']},
    ]
    instants = (-(2**63), 2**63 - 1, -1, 0, 1_000, 1_000_000, 1_000_000_000, 1_705_746_600_123_456_000)
    events += [{"timestamp": instant, "recorded_at": instant} for instant in instants]
    return event_batch(events, first_position=2**40)


def test_json_lines_are_documents_byte_for_byte(hostile):
    """Each line is exactly what to_document makes of the event, also where it is hostile."""
    lines = export("json", hostile, reference_batch(3_000, 1, 1)).split(b"\n")
    assert lines.pop() == b""
    expected = [to_document(event) for event in exact_events(hostile) + exact_events(reference_batch(3_000, 1, 1))]
    assert lines == expected


def test_json_lines_read_back_as_the_events(hostile):
    """parse_document gives back the event that was exported, with every digit of its payload."""
    events = exact_events(hostile)
    lines = export("json", hostile).split(b"\n")[:-1]
    for line, event in zip(lines, events, strict=True):
        if "\\ud" in event.payload_json or "\\udf" in event.payload_json:
            continue  # half surrogate pairs are no documents for msgspec
        read = parse_document(line)
        assert read.payload_json == event.payload_json.translate(str.maketrans("\r\n", "  ")).strip()
        assert (read.id, read.timestamp_ns, read.metadata) == (event.id, event.timestamp_ns, event.metadata)


def test_csv_holds_every_event_whole(hostile):
    """The last column is the payload as it was logged; ids, positions and times are exact."""
    rows = rows_of(export("csv", hostile))
    for row, event, position in zip(rows, exact_events(hostile), hostile["position"].to_pylist(), strict=True):
        assert row["payload"] == event.payload_json.lstrip()
        assert (row["id"], row["position"]) == (event.id, str(position))
        assert (row["type"], row["source"]) == (event.type, event.source)
        assert json.loads(row["metadata.tags"]) == event.metadata.tags
        assert row["timestamp"] == format_timestamp(event.timestamp_ns)


def test_csv_flattens_payloads():
    """Paths become sorted columns: text of strings, digits of numbers, JSON of arrays, nothing for null."""
    payloads = [
        '{"b": {"y": 1, "x": "a,b"}, "a": 1.50}',
        '{"a": null, "list": [1, {"k": 2.0}], "empty": {}, "truth": true}',
        '{"big": 123456789012345678901234567890, "fine": 0.10000000000000000555111512312578, "dotted.key": "\\u0041"}',
        '{"a": "\\ud83d\\ude00", "half": "\\ud800", "twice": 1, "twice": 2, "list": [1.0e400, "\\u00e9"]}',
    ]
    rows = rows_of(export("csv", event_batch([{"payload": payload} for payload in payloads])))
    columns = [name for name in rows[0] if name.startswith("payload.")]
    assert columns == sorted(columns)
    assert columns == [
        *('payload."dotted.key"', "payload.a", "payload.b.x", "payload.b.y", "payload.big", "payload.empty"),
        *("payload.fine", "payload.list", "payload.truth"),
    ]
    cells = [{name.removeprefix("payload."): row[name] for name in columns if row[name]} for row in rows]
    assert cells == [
        {"a": "1.5", "b.x": "a,b", "b.y": "1"},
        {"list": '[1,{"k":2.0}]', "empty": "{}", "truth": "true"},
        {
            "big": "123456789012345678901234567890",
            "fine": "0.10000000000000000555111512312578",
            '"dotted.key"': "A",
        },
        {"a": "\U0001f600", "list": '[1.0e400,"é"]'},
    ]


def test_csv_columns_are_those_of_the_first_events():
    """What comes later changes no header: it is in the payload column, and in a column if it was announced."""
    first = event_batch([{"payload": '{"early": 1}'}] * SAMPLE_EVENTS_MAX)
    later = event_batch([{"payload": '{"late": 2, "announced": 3}'}], first_position=SAMPLE_EVENTS_MAX + 1)
    rows = rows_of(export("csv", first, later, paths=(("announced",),)))
    assert [name for name in rows[0] if name.startswith("payload.")] == ["payload.announced", "payload.early"]
    assert rows[-1]["payload"] == '{"late": 2, "announced": 3}'
    assert rows[-1]["payload.announced"] == "3"


def test_csv_does_not_depend_on_how_events_are_batched():
    """The same events give the same file, whatever the batches."""
    events = reference_batch(2 * SAMPLE_EVENTS_MAX, 3, 1)
    batches = [events.slice(start, 3_001) for start in range(0, events.num_rows, 3_001)]
    assert export("csv", *batches) == export("csv", events)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        *(("=1+1", "'=1+1"), ("+1+1", "'+1+1"), ("-cmd", "'-cmd"), ("@SUM(A1)", "'@SUM(A1)")),
        *(("\t=1", "'\t=1"), ("\r=1", "'\r=1"), ("\n=1", "'\n=1"), ("\uff1d1", "'\uff1d1"), ("-", "'-")),
        *(("-5", "-5"), ("+1.5e3", "+1.5e3"), ("-.5", "-.5"), ("-5\n", "'-5\n"), ("1-5", "1-5"), ("", "")),
    ],
)
def test_csv_cells_are_no_formulas(text, cell):
    """A cell that a spreadsheet would compute gets an apostrophe, wherever the text comes from; numbers do not."""
    event = {"source": text, "user": text, "payload": json.dumps({"key": text})}
    row = rows_of(export("csv", event_batch([event])))[0]
    assert (row["source"], row["metadata.user"], row["payload.key"]) == (cell, cell, cell)


def test_csv_tells_an_empty_text_from_none():
    """An empty text is written as "", what is missing as nothing; lines end with CRLF."""
    data = export("csv", event_batch([{"user": "", "session_id": None}]))
    assert data.endswith(b',host,1,"",,[],{}\r\n')
    assert data.count(b"\r\n") == 2


def test_parquet_reads_back_as_the_events(hostile):
    """Arrow reads the columns as they were, with the ids in front; DuckDB counts the same."""
    data = export("parquet", hostile)
    table = pq.read_table(io.BytesIO(data))
    expected = [format_event_id(LOG_ID, position) for position in hostile["position"].to_pylist()]
    assert table["id"].to_pylist() == expected
    assert table.drop_columns(["id"]).combine_chunks().to_batches()[0].equals(hostile)


def test_parquet_file_is_read_by_duckdb(tmp_path):
    """DuckDB reads the file from disk, with its times and positions."""
    path = tmp_path / "events.parquet"
    path.write_bytes(export("parquet", reference_batch(1_000, 1, 1)))
    found = duckdb.sql(f"SELECT count(*), max(position), count(DISTINCT id) FROM '{path}'").fetchall()
    assert found == [(1_000, 1_000, 1_000)]


def test_parquet_row_groups_are_bounded():
    """Many small batches become few row groups, and none is too large."""
    batches = [reference_batch(9_000, 1, start) for start in range(1, 180_000, 9_000)]
    metadata = pq.read_metadata(io.BytesIO(export("parquet", *batches)))
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert sum(sizes) == 180_000
    assert max(sizes) <= GROUP_EVENTS_MAX
    assert len(sizes) == 3


@pytest.mark.parametrize("name", NAMES)
def test_zstd_frame_holds_the_same_file(name, hostile):
    """A compressed export is one frame of exactly the uncompressed one."""
    compressed = export(name, hostile, zstd=True)
    stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(compressed))
    assert stream.read() == export(name, hostile)


@pytest.mark.parametrize("name", NAMES)
def test_export_of_nothing_is_a_valid_file(name):
    """No events give no lines, a header only, or a table without rows."""
    data = export(name)
    if name == "json":
        assert data == b""
    elif name == "csv":
        assert data.startswith(b"id,position,timestamp,")
        assert data.endswith(b"metadata.tags,payload\r\n")
    else:
        table = pq.read_table(io.BytesIO(data))
        assert table.num_rows == 0
        assert table.schema.names == ["id", *EVENT_SCHEMA.names]


@pytest.mark.parametrize("name", NAMES)
def test_slices_of_a_batch_export_only_their_rows(name):
    """A batch that is a window into a larger one gives the rows of the window."""
    events = reference_batch(500, 1, 1)
    window = events.slice(123, 77)
    copied = events.take(pa.array(range(123, 200)))
    if name == "parquet":
        assert pq.read_table(io.BytesIO(export(name, window))).equals(pq.read_table(io.BytesIO(export(name, copied))))
    else:
        assert export(name, window) == export(name, copied)


def test_pieces_are_small_and_report_progress():
    """No piece is larger than its bound, and the number of exported events never falls and ends complete."""
    batches = [reference_batch(20_000, 1, start) for start in range(1, 60_001, 20_000)]
    pieces = list(export_pieces(FORMATS.exporter("json", ExportContext(LOG_ID)), batches))
    assert max(len(piece.data) for piece in pieces) == PIECE_BYTES_MAX
    progress = [piece.exported_events for piece in pieces]
    assert progress == sorted(progress)
    assert progress[-1] == 60_000


_MEASURE = """
import resource, sys
from query_service.exporters import ExportContext, ExportFormats, export_pieces
from tests.support.reference_events import reference_batch
def batches(count):
    for start in range(1, count, 20_000):
        yield reference_batch(20_000, 1, start)
def run(name, count):
    exporter = ExportFormats(added=()).exporter(name, ExportContext("TESTKEG1"))
    return sum(len(piece.data) for piece in export_pieces(exporter, batches(count)))
run(sys.argv[1], 80_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(sys.argv[1], 400_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_export(name):
    """400,000 events (160 MB as JSON) take at most 48 MiB more than the first 80,000 took."""
    done = subprocess.run([sys.executable, "-c", _MEASURE, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 48
