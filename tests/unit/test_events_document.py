"""The JSON document form: the specification's example, real data, and what is refused."""

import datetime as dt
import gzip
import itertools
import json
import os
from pathlib import Path

import pytest

from shared.errors import EventValidationException
from shared.events import (
    Event,
    EventMetadata,
    RecordedEvent,
    parse_document,
    to_document,
    to_nanoseconds,
)

SPECIFICATION = b"""{
    "id": "evt_1234567890",
    "timestamp": "2024-01-20T10:30:00Z",
    "type": "pipeline.stage.completed",
    "source": "synthesis_pipeline",
    "correlation_id": "pipe_abc123",
    "payload": {
        "stage": "extraction",
        "duration_ms": 1250,
        "items_processed": 10
    },
    "metadata": {
        "host": "worker-01",
        "version": "1.0.0"
    }
}"""
LINES_MAX = 3_000


def data_files():
    """Real events, where they are on the machine."""
    root = Path(os.environ.get("EVENTLOG_DATA_DIR") or Path(__file__).parents[3] / "shared/data")
    return sorted(root.glob("*/*.jsonl.gz"))


def test_specification_example_is_read():
    """The document of the specification, as it stands there."""
    event = parse_document(SPECIFICATION)
    assert event.id == "evt_1234567890"
    assert event.timestamp == dt.datetime(2024, 1, 20, 10, 30, tzinfo=dt.UTC)
    assert (event.type, event.source) == ("pipeline.stage.completed", "synthesis_pipeline")
    assert event.correlation_id == "pipe_abc123"
    assert event.payload == {"stage": "extraction", "duration_ms": 1250, "items_processed": 10}
    assert event.metadata == EventMetadata(host="worker-01", version="1.0.0")


def test_document_has_the_keys_of_the_specification_in_their_order():
    """A recorded event, byte for byte."""
    event = RecordedEvent(
        id="evt_7Q2M4XKD0000000000009",
        timestamp_ns=1_705_746_600_123_456_789,
        type="pipeline.stage.completed",
        source="synthesis_pipeline",
        payload_json='{ "n": 123456789012345678901234567890,\r\n\t"x": 1.50E+1 }',
        metadata=EventMetadata(host="worker-01", version="1.0.0", tags=["prod", "é"]),
        position=9,
        recorded_at_ns=5,
    )
    assert to_document(event).decode() == (
        '{"id":"evt_7Q2M4XKD0000000000009","timestamp":"2024-01-20T10:30:00.123456789Z",'
        '"type":"pipeline.stage.completed","source":"synthesis_pipeline","correlation_id":null,'
        '"payload":{ "n": 123456789012345678901234567890,  \t"x": 1.50E+1 },'
        '"metadata":{"host":"worker-01","version":"1.0.0","user":null,"session_id":null,"tags":["prod","é"]}}'
    )


def test_proposed_event_is_written_with_nulls():
    """What the log has not given yet is null."""
    document = json.loads(to_document(Event(type="x", payload={"n": 2**70, "t": "ü", "l": [1, None, True]})))
    assert document == {
        "id": None,
        "timestamp": None,
        "type": "x",
        "source": None,
        "correlation_id": None,
        "payload": {"n": 2**70, "t": "ü", "l": [1, None, True]},
        "metadata": {"host": None, "version": None, "user": None, "session_id": None, "tags": []},
    }


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1}, b"x", dt.datetime(2024, 1, 20, tzinfo=dt.UTC), "\ud800"]
)
def test_what_json_cannot_say_is_refused(value):
    """Nothing becomes null on the way."""
    with pytest.raises(EventValidationException, match="cannot be written as JSON"):
        to_document(Event(type="x", payload={"a": value}))
    with pytest.raises(EventValidationException, match="cannot be written as JSON"):
        to_document(Event(type="x", source="\ud800"))


def test_missing_and_null_keys_are_allowed():
    """Only the type must be there."""
    keys = ("id", "timestamp", "source", "correlation_id", "payload", "metadata")
    nulls = ",".join(f'"{key}":null' for key in keys)
    event = parse_document(b'{"type":"x"}\n')
    assert event == parse_document(f'{{"type":"x",{nulls}}}'.encode())
    inner = ",".join(f'"{key}":null' for key in ("host", "version", "user", "session_id", "tags"))
    assert event == parse_document(f'{{"type":"x","metadata":{{{inner}}}}}'.encode())
    assert event.payload == {}
    assert event.timestamp_ns is None


def test_payload_text_is_kept_byte_for_byte():
    """Spelling of numbers, spaces, escapes and duplicate keys survive."""
    payload = '{"b" : 1.0e5 , "a":"\\u00e9\\/", "a" : [ 36893488147419103232,-0 , 0.1000 ] }'
    event = parse_document(f'{{"type":"x","payload": {payload} ,"source":"s"}}'.encode())
    assert event.payload_json == payload
    assert payload.encode() in to_document(event)


@pytest.mark.parametrize(
    ("line", "field", "problem"),
    [
        (b'{"type":"x","tpye":1}', "tpye", "is not known; did you mean type?"),
        (b'{"type":"x","metadata":{"hots":1}}', "metadata.hots", "is not known; did you mean host?"),
        (b'{"type":"x","position":1}', "position", "is not known; known are type, id"),
        (b'{"type":5}', "type", "`str`, got `int`"),
        (b'{"source":"s"}', "type", "is missing"),
        (b'{"type":"x","metadata":{"tags":["a",null]}}', "metadata.tags[1]", "`str`, got `null`"),
        (b'{"type":"x","metadata":[]}', "metadata", "got `array`"),
        (b'{"type":"x","payload":[1]}', "payload", "is '[1]'; write a JSON object"),
        (b'{"type":"x","payload":"{}"}', "payload", "write a JSON object"),
        (b'{"type":"x","timestamp":"yesterday"}', "timestamp", "write RFC 3339"),
        (b'{"type":"x","timestamp":1705746600}', "timestamp", "got `int`"),
        (b"", "", "is no JSON document"),
        (b"[]", "", "is no JSON document"),
        (b'{"type":"x"} {}', "", "is no JSON document"),
        (b'{"type":"x","payload":{"a":01}}', "", "is no JSON document"),
        (b'{"type":"x","payload":{"a":NaN}}', "", "is no JSON document"),
        (b'{"type":"x","payload":{"a":"\xff"}}', "", "is no JSON document"),
        (b'{"type":"x","payload":{"a":"\xed\xa0\x80"}}', "", "is no JSON document"),
        (b'{"type":"x","payload":{"a":"\\ud800"}}', "", "half a surrogate pair"),
        (b'{"type":"x","payload":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001, "", "is no JSON document"),
    ],
)
def test_wrong_documents_are_refused_by_field(line, field, problem):
    """The error names the field, and of an unknown key the nearest known one."""
    with pytest.raises(EventValidationException) as caught:
        parse_document(line)
    assert caught.value.violations[0].field == field
    assert problem in caught.value.violations[0].description
    assert problem in str(caught.value)


def test_every_unknown_key_is_named():
    """Whoever wrote the document corrects all of them at once."""
    with pytest.raises(EventValidationException) as caught:
        parse_document(b'{"typ":"x","metadata":{"hst":1,"tag":[]},"sorce":1}')
    assert [each.field for each in caught.value.violations] == [
        "typ",
        "sorce",
        "metadata.hst",
        "metadata.tag",
    ]


@pytest.mark.skipif(not data_files(), reason="the real data is not on this machine; set EVENTLOG_DATA_DIR")
@pytest.mark.parametrize("path", data_files(), ids=lambda path: path.name)
def test_real_documents_are_read_and_written(path):
    """Lines of every file of real data parse to what they say, keep their payload's bytes, and round trip."""
    with gzip.open(path) as lines:
        for line in itertools.islice(lines, LINES_MAX):
            event = parse_document(line)
            expected = json.loads(line)
            moment = dt.datetime.fromisoformat(expected["timestamp"])
            assert event.timestamp_ns == to_nanoseconds(moment)
            assert event.timestamp == moment
            assert (event.type, event.source) == (expected["type"], expected["source"])
            assert event.correlation_id == expected["correlation_id"]
            assert event.payload == expected["payload"]
            for name, value in expected["metadata"].items():
                assert getattr(event.metadata, name) == value
            assert event.payload_json.encode() in line
            assert parse_document(to_document(event)) == event
