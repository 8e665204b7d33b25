"""Recorded events as bytes: what Python's protobuf reads is what the columns hold."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from eventlog.v1 import event_pb2
from eventlog.v1 import query_service_pb2 as pb
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.columns.answers import AnswerEncoder, event_ids, time_mask
from shared.columns.schema import EVENT_SCHEMA
from shared.columns.wire import WireCodec
from shared.errors import EventValidationException
from shared.events.ids import POSITION_MAX, format_event_id

_LOG_ID = "TEST0001"
_SECOND = 1_000_000_000
_encoder = AnswerEncoder(WireCodec(), _LOG_ID)


def _row(position: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "position": position,
        "recorded_at": 5,
        "timestamp": 7,
        "type": "a.b",
        "source": "s",
        "correlation_id": None,
        "payload": "{}",
        "host": "h",
        "version": "1",
        "user": None,
        "session_id": None,
        "tags": [],
        **fields,
    }


def _batch(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=EVENT_SCHEMA)


def _decoded(events: pa.RecordBatch, *, as_struct: bool = False) -> Sequence[event_pb2.Event]:
    return pb.ListEventsResponse.FromString(_encoder.encode(events, payload_as_struct=as_struct)).events


def _nanoseconds(time: Any) -> int:
    assert 0 <= time.nanos < _SECOND
    return int(time.seconds * _SECOND + time.nanos)


@given(st.lists(st.one_of(st.integers(1, POSITION_MAX), st.sampled_from([1, 31, 32, 2**32, 2**63, POSITION_MAX]))))
def test_ids_by_column_are_those_made_one_by_one(positions: list[int]) -> None:
    """event_ids and format_event_id agree for every position."""
    expected = [format_event_id(_LOG_ID, position) for position in positions]
    assert event_ids(_LOG_ID, pa.array(positions, pa.uint64())).to_pylist() == expected


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_TIMES = st.one_of(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(-2 * _SECOND, 2 * _SECOND))
_ROWS = st.builds(
    dict,
    recorded_at=_TIMES,
    timestamp=_TIMES,
    type=_TEXTS,
    source=_TEXTS,
    correlation_id=st.one_of(st.none(), _TEXTS),
    payload=st.dictionaries(_TEXTS, _TEXTS, max_size=2).map(json.dumps),
    host=_TEXTS,
    version=_TEXTS,
    user=st.one_of(st.none(), _TEXTS),
    session_id=st.one_of(st.none(), _TEXTS),
    tags=st.lists(_TEXTS, max_size=3),
)


@settings(max_examples=80)
@given(st.lists(_ROWS, max_size=4), st.integers(0, 3), st.integers(1, 2**63))
def test_an_encoded_event_reads_back_as_it_was(rows: list[dict[str, Any]], skip: int, first: int) -> None:
    """Every field survives, whatever the text, the time, or the slice of a batch; null and empty stay apart."""
    rows = [{**row, "position": first + number} for number, row in enumerate(rows)]
    events = _decoded(_batch(rows).slice(skip))
    for row, event in zip(rows[skip:], events, strict=True):
        assert event.id == format_event_id(_LOG_ID, row["position"])
        assert event.position == row["position"]
        assert (_nanoseconds(event.timestamp), _nanoseconds(event.recorded_at)) == (
            row["timestamp"],
            row["recorded_at"],
        )
        assert (event.type, event.source) == (row["type"], row["source"])
        assert (event.correlation_id if event.HasField("correlation_id") else None) == row["correlation_id"]
        assert event.payload_json == row["payload"]
        assert not event.HasField("payload")
        metadata = event.metadata
        for name in ("host", "version", "user", "session_id"):
            assert (getattr(metadata, name) if metadata.HasField(name) else None) == row[name]
        assert list(metadata.tags) == row["tags"]


def test_a_payload_may_come_as_a_structure() -> None:
    """Every kind of value, with numbers as doubles."""
    payload = {"s": "ü", "n": 3, "f": -0.5, "t": True, "z": None, "l": [1, [], {}], "o": {"a": {"b": 1}}}
    (event,) = _decoded(_batch([_row(payload=json.dumps(payload))]), as_struct=True)
    assert not event.HasField("payload_json")
    assert MessageToDict(event.payload) == payload


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("1e999", sys.float_info.max),
        ("-1e999", -sys.float_info.max),
        ("9" * 400, sys.float_info.max),
        ("-" + "9" * 5000, -sys.float_info.max),
        ("9007199254740993", 9007199254740992.0),
        ("1e-999", 0.0),
    ],
)
def test_numbers_beyond_a_double_become_the_nearest_one(number: str, expected: float) -> None:
    """A structure never holds what JSON cannot, so that every client can print it."""
    (event,) = _decoded(_batch([_row(payload=f'{{"n":{number}}}')]), as_struct=True)
    assert event.payload["n"] == expected


@pytest.mark.parametrize(("opening", "closing", "levels"), [('{"a":', "}", 32), ('{"a":[', "]}", 19)])
def test_deep_payloads_are_structures_as_far_as_parsers_go(opening: str, closing: str, levels: int) -> None:
    """The deepest structure that is given parses; one more level is refused by name, not by a broken answer."""

    def batch(depth: int) -> pa.RecordBatch:
        return _batch([_row(8), _row(9, payload=opening * depth + "1" + closing * depth)])

    assert len(_decoded(batch(levels), as_struct=True)) == 2
    with pytest.raises(EventValidationException, match="position 9") as caught:
        _decoded(batch(levels + 1), as_struct=True)
    assert (caught.value.reason, caught.value.violations[0].field) == ("INVALID_FIELD", "payload_form")
    assert len(_decoded(batch(levels + 1))) == 2


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(None, None, None), (0, None, [False, True, True]), (None, 0, [True, False, False]), (-1, 1, [True, True, False])],
)
def test_time_ranges_are_half_open(start: int | None, end: int | None, expected: list[bool] | None) -> None:
    """The start belongs to the range, the end does not, before the epoch as after it."""
    mask = time_mask(_batch([_row(timestamp=time) for time in (-1, 0, 1)]), start_ns=start, end_ns=end)
    assert (mask if mask is None else mask.to_pylist()) == expected
