"""Whatever events hold, an export says the same: by line, by cell, by column."""

import csv
import io
import json
import re
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from query_service.exporters import ExportContext, ExportFormats, export_pieces
from shared.events.document import to_document
from shared.events.ids import format_event_id
from shared.events.model import EventMetadata, ExactEvent
from tests.support.reference_events import event_batch

LOG_ID = "TESTKEG1"
FORMATS = ExportFormats(added=())

# Half surrogate pairs are no text of an event; what JSON escapes is, and what spreadsheets compute.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["=1+1", "-5", "@a", "\t", ""])
KEYS = st.sampled_from(["a", "b", "key", "a.b", "=k", "é", "0", ""]) | st.text(max_size=3).filter(
    lambda key: key.isprintable()
)
NUMBERS = (
    st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["1e400", "0.10000000000000000000000001", "-0", "1.50", "1E2", "9" * 30])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS.map(lambda number: ("number", str(number))) | TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=3),
    max_leaves=8,
)


def as_json(value: object) -> str:
    """JSON text of a generated value, its numbers spelled as they were generated."""
    if isinstance(value, tuple):
        return str(value[1])
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)}: {as_json(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(as_json, value))}]"
    return json.dumps(value, ensure_ascii=False)


def events_of(rows: list[dict[str, object]]) -> pa.RecordBatch:
    """A batch of events."""
    return event_batch([row | {"payload": as_json(row["payload"])} for row in rows])


EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "payload": st.dictionaries(KEYS, VALUES, max_size=4),
            "source": TEXTS,
            "correlation_id": st.none() | TEXTS,
            "user": st.none() | TEXTS,
            "tags": st.lists(TEXTS, max_size=2),
            "timestamp": st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**9), 10**9).map(lambda ms: ms * 10**6),
        }
    ),
    min_size=1,
    max_size=6,
).map(events_of)


def export(name: str, events: pa.RecordBatch) -> bytes:
    """The bytes of an export."""
    exporter = FORMATS.exporter(name, ExportContext(LOG_ID))
    return b"".join(piece.data for piece in export_pieces(exporter, [events]))


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_json_lines_are_documents(events):
    """Made by column, each line is what to_document makes of the event alone."""
    expected = []
    times = events["timestamp"].cast(pa.int64()).to_pylist()
    for time, row in zip(times, events.drop_columns(["timestamp", "recorded_at"]).to_pylist(), strict=True):
        metadata = EventMetadata(**{key: row[key] for key in ("host", "version", "user", "session_id", "tags")})
        event = ExactEvent(
            id=format_event_id(LOG_ID, row["position"]),
            timestamp_ns=time,
            **{key: row[key] for key in ("type", "source", "correlation_id")},
            payload_json=row["payload"],
            metadata=metadata,
        )
        expected.append(to_document(event))
    assert export("json", events).split(b"\n") == [*expected, b""]


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_csv_cells_hold_what_the_payload_says(events):
    """Each payload column has the value under its path in each row; the last column has the whole payload."""
    rows = list(csv.reader(io.StringIO(export("csv", events).decode(), newline="")))
    header, cells = rows[0], rows[1:]
    for row, payload in zip(cells, events["payload"].to_pylist(), strict=True):
        assert row[-1] == payload
        leaves = dict(_leaves((), json.loads(payload, parse_int=_Digits, parse_float=_Digits)))
        for name, cell in zip(header, row, strict=True):
            if name.startswith("payload."):
                assert _same(cell, leaves.get(name)), (name, cell, leaves)


@settings(max_examples=30, deadline=None)
@given(EVENTS)
def test_parquet_columns_are_the_events(events):
    """Arrow reads back the very batch."""
    table = pq.read_table(io.BytesIO(export("parquet", events))).drop_columns(["id"])
    assert table.combine_chunks().to_batches()[0].equals(events)


class _Digits(str):
    """A number as it was spelled."""

    __slots__ = ()


def _leaves(path: tuple[str, ...], value: object):
    """Columns and values of a payload: written anew, so that it does not err as the exporter does."""
    name = "".join(["payload", *map(_segment, path)])
    if path:
        yield name, value
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves((*path, key), each)


def _same(cell: str, value: object) -> bool:
    if value is None:
        return cell == ""
    if isinstance(value, _Digits):
        return Decimal(cell) == Decimal(value)
    if isinstance(value, str):
        formula = value[:1] and value[0] in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
        number = re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", value, re.ASCII)
        return cell == ("'" + value if formula and not number else value)
    if isinstance(value, bool):
        return cell == str(value).lower()
    read = json.loads(cell, parse_int=Decimal, parse_float=Decimal)
    return read == json.loads(as_json(_spelled(value)), parse_int=Decimal, parse_float=Decimal)


def _spelled(value: object) -> object:
    if isinstance(value, _Digits):
        return ("number", value)
    if isinstance(value, dict):
        return {key: _spelled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_spelled(each) for each in value]
    return value


def _segment(key: str) -> str:
    quoted = key.replace('"', '""')
    return f".{key}" if re.fullmatch(r"[\w$@-]+", key) else f'."{quoted}"'
