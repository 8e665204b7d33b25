"""Checking and completing proposed events: every rule by name, and never the wrong request."""

from typing import Any

import pyarrow as pa
import pytest
from eventlog.v1 import event_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from ingest_service.enrichment import Enricher, Proposed
from ingest_service.refusals import VIOLATIONS_MAX
from shared.columns.schema import FRAME_SCHEMA
from shared.columns.wire import WireCodec
from shared.errors import EventValidationException
from shared.log.types import Nanoseconds
from tests.support.fake_clock import START_NS
from tests.support.log_requests import HOSTILE_TEXTS, log_request, new_event, raw_request

_SECOND = 1_000_000_000
_SOUND = log_request(new_event(payload_json='{"sound":1}'), new_event(payload_json='{"sound":2}'))


@pytest.fixture
def enricher() -> Enricher:
    """An enricher with a host and a version of its own."""
    return Enricher(WireCodec(), host="our-host", version="9.9")


def _propose(enricher: Enricher, *requests: bytes) -> Proposed:
    return enricher.propose(requests, Nanoseconds(START_NS))


def _rows(enricher: Enricher, *requests: bytes) -> list[dict[str, Any]]:
    proposed = _propose(enricher, *requests)
    assert proposed.rejections == {}
    assert proposed.events.schema.equals(FRAME_SCHEMA)
    proposed.events.validate(full=True)
    return _plain(proposed.events)


def _plain(events: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as dictionaries, the timestamp in nanoseconds."""
    rows = events.drop_columns("timestamp").to_pylist()
    times = events.column("timestamp").cast(pa.int64()).to_pylist()
    return [{**row, "timestamp": time} for row, time in zip(rows, times, strict=True)]


def _metadata(**fields: Any) -> event_pb2.NewEvent:
    return new_event(metadata=event_pb2.EventMetadata(**fields))


@pytest.mark.parametrize(
    ("event", "field", "says"),
    [
        (new_event(type=""), "type", "must be 1 to 200"),
        (new_event(type="a" * 201), "type", "must be 1 to 200"),
        (new_event(type=".a"), "type", "must be 1 to 200"),
        (new_event(type="-a"), "type", "must be 1 to 200"),
        (new_event(type="a b"), "type", "must be 1 to 200"),
        (new_event(type="a\n"), "type", "must be 1 to 200"),
        (new_event(type="a\x00b"), "type", "must be 1 to 200"),
        (new_event(type="ä.b"), "type", "must be 1 to 200"),
        (new_event(type="a.*"), "type", "must be 1 to 200"),
        (new_event(source="ä" * 128), "source", "longer than 255 bytes"),
        (new_event(correlation_id="c" * 256), "correlation_id", "longer than 255 bytes"),
        (_metadata(host="h" * 256), "metadata.host", "longer than 255 bytes"),
        (_metadata(version="v" * 256), "metadata.version", "longer than 255 bytes"),
        (_metadata(user="u" * 256), "metadata.user", "longer than 255 bytes"),
        (_metadata(session_id="s" * 256), "metadata.session_id", "longer than 255 bytes"),
        (_metadata(tags=["t"] * 65), "metadata.tags", "over 64"),
        (_metadata(tags=["t", ""]), "metadata.tags", "empty or longer"),
        (_metadata(tags=["t" * 256, "t"]), "metadata.tags", "empty or longer"),
        (new_event(timestamp=Timestamp(seconds=9_223_372_036)), "timestamp", "must lie between"),
        (new_event(timestamp=Timestamp(seconds=-9_223_372_037)), "timestamp", "must lie between"),
        (new_event(timestamp=Timestamp(seconds=2**63 - 1)), "timestamp", "must lie between"),
        (new_event(timestamp=Timestamp(seconds=1, nanos=_SECOND)), "timestamp", "nanos"),
        (new_event(timestamp=Timestamp(seconds=1, nanos=-1)), "timestamp", "nanos"),
        (new_event(payload_json=""), "payload_json", "not valid JSON"),
        (new_event(payload_json="[]"), "payload_json", "must be a JSON object"),
        (new_event(payload_json="{"), "payload_json", "not valid JSON"),
        (new_event(payload_json='{"a":NaN}'), "payload_json", "not valid JSON"),
        (new_event(payload_json='{"a":"\\ud800"}'), "payload_json", "not valid JSON"),
        (new_event(payload_json='{"a":' * 101 + "1" + "}" * 101), "payload_json", "deeper than 100"),
        (new_event(payload_json='{"a":' * 10_000 + "1" + "}" * 10_000), "payload_json", "deeper than 100"),
        (new_event(payload_json='{"a":"' + "x" * 2**20 + '"}'), "payload_json", "longer than 1048576 bytes"),
    ],
)
def test_each_rule_names_the_event_and_its_field(
    enricher: Enricher, event: event_pb2.NewEvent, field: str, says: str
) -> None:
    """A wrong field is named with the index of its event; the requests beside it stay sound."""
    wrong = log_request(new_event(), event, new_event())
    proposed = _propose(enricher, _SOUND, wrong, _SOUND)
    assert list(proposed.rejections) == [1]
    error = proposed.rejections[1]
    assert [violation.field for violation in error.violations] == [f"events[1].{field}"]
    assert says in error.violations[0].description
    assert f"events[1].{field}" in str(error)
    assert error.reason == "INVALID_EVENT"
    assert proposed.offsets == [0, 2, 5, 7]
    payloads = proposed.events.column("payload").to_pylist()
    assert payloads[:2] == payloads[5:] == ['{"sound":1}', '{"sound":2}']


@pytest.mark.parametrize("event", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS.keys())
def test_a_malformed_request_is_refused_alone(enricher: Enricher, event: bytes) -> None:
    """Bytes that are no message are refused as such; the requests beside it keep their rows."""
    proposed = _propose(enricher, _SOUND, raw_request(b"\x0a\x01a", event), _SOUND)
    assert {at: error.reason for at, error in proposed.rejections.items()} == {1: "MALFORMED_REQUEST"}
    assert proposed.offsets == [0, 2, 2, 4]
    assert _plain(proposed.events) == _rows(enricher, _SOUND, _SOUND)


def test_several_wrong_requests_are_each_told_their_own(enricher: Enricher) -> None:
    """Malformed, wrong and sound requests in one group do not touch each other."""
    wrong_type = log_request(new_event(type=""))
    wrong_payload = log_request(new_event(), new_event(payload_json='{"a":[1'))
    continued = log_request(new_event(payload_json="2]}"))
    proposed = _propose(enricher, wrong_type, b"\xff", _SOUND, wrong_payload, continued, raw_request(b"\xff"))
    fields = {at: [violation.field for violation in error.violations] for at, error in proposed.rejections.items()}
    assert fields == {
        0: ["events[0].type"],
        1: [],
        3: ["events[1].payload_json"],
        4: ["events[0].payload_json"],
        5: [],
    }
    start, end = proposed.offsets[2:4]
    assert proposed.events.column("payload").to_pylist()[start:end] == ['{"sound":1}', '{"sound":2}']


def test_a_rejection_names_twenty_fields_and_counts_the_rest(enricher: Enricher) -> None:
    """A request that is wrong all over gets a bounded answer."""
    wrong = log_request(*(new_event(type="", payload_json="x") for _ in range(30)))
    error = _propose(enricher, wrong).rejections[0]
    assert len(error.violations) == VIOLATIONS_MAX
    assert error.metadata["violations_left_out"] == str(60 - VIOLATIONS_MAX)
    assert error.violations[0].field == "events[0].payload_json"


def test_what_is_missing_gets_its_default(enricher: Enricher) -> None:
    """An event with nothing but a type is completed."""
    assert _rows(enricher, log_request(new_event())) == [
        {
            "timestamp": START_NS,
            "type": "test.happened",
            "source": "unknown",
            "correlation_id": None,
            "payload": "{}",
            "host": "our-host",
            "version": "9.9",
            "user": None,
            "session_id": None,
            "tags": [],
        }
    ]


def test_what_is_empty_counts_as_missing(enricher: Enricher) -> None:
    """Empty texts are as good as none, in events with and without metadata, mixed in one group."""
    full = {"host": "h", "version": "v", "user": "u", "session_id": "s", "tags": ["t", "ü"]}
    rows = _rows(
        enricher,
        log_request(
            _metadata(host="", version="", user="", session_id=""),
            new_event(source="s", correlation_id="c", metadata=event_pb2.EventMetadata(**full)),
            new_event(source="", correlation_id=""),
        ),
    )
    optional = [(row["source"], row["correlation_id"], row["user"], row["session_id"], row["tags"]) for row in rows]
    nothing = ("unknown", None, None, None, [])
    assert optional == [nothing, ("s", "c", "u", "s", ["t", "ü"]), nothing]
    assert [(row["host"], row["version"]) for row in rows] == [("our-host", "9.9"), ("h", "v"), ("our-host", "9.9")]


def test_the_largest_values_pass(enricher: Enricher) -> None:
    """Limits are inclusive."""
    payload = '{"a":"' + "x" * (2**20 - 8) + '"}'
    event = new_event(
        type="a" * 200,
        source="s" * 255,
        correlation_id="ä" * 127,
        payload_json=payload,
        metadata=event_pb2.EventMetadata(host="h" * 255, user="u" * 255, tags=["t" * 255] * 64),
    )
    (row,) = _rows(enricher, log_request(event))
    assert (row["payload"], row["tags"], row["type"]) == (payload, ["t" * 255] * 64, "a" * 200)


def test_timestamps_are_exact_to_the_edges(enricher: Enricher) -> None:
    """Nanoseconds survive at both ends of the range, before the epoch, and beside events without a timestamp."""
    times = [(-9_223_372_036, 0), (-1, 999_999_999), (0, 0), (1, 1), (9_223_372_035, 999_999_999)]
    events = [new_event(timestamp=Timestamp(seconds=seconds, nanos=nanos)) for seconds, nanos in times]
    rows = _rows(enricher, log_request(new_event(), *events, new_event()))
    expected = [seconds * _SECOND + nanos for seconds, nanos in times]
    assert [row["timestamp"] for row in rows] == [START_NS, *expected, START_NS]


def test_a_wrong_timestamp_changes_no_other(enricher: Enricher) -> None:
    """Timestamps of sound requests are theirs, whatever stands beside them."""
    sound = log_request(new_event(timestamp=Timestamp(seconds=-7, nanos=5)), new_event())
    wrong = log_request(new_event(timestamp=Timestamp(seconds=2**62, nanos=-4)))
    proposed = _propose(enricher, sound, wrong, sound)
    assert list(proposed.rejections) == [1]
    times = [row["timestamp"] for row in _plain(proposed.events)]
    assert times[:2] == times[3:] == [-7 * _SECOND + 5, START_NS]


def test_payload_texts_are_stored_byte_for_byte(enricher: Enricher) -> None:
    """White space, the order of keys, repeated keys and the spelling of numbers stay."""
    texts = [' {"b":1,\n"a" : 1.50e+2, "b":2}\t', '{"n":123456789012345678901234567890}', '{"ü":"\\u00fc"}']
    rows = _rows(enricher, log_request(*(new_event(payload_json=text) for text in texts)))
    assert [row["payload"] for row in rows] == texts


def test_unknown_fields_are_ignored(enricher: Enricher) -> None:
    """A producer with newer stubs is understood, as far as this version goes."""
    event = new_event(source="s").SerializeToString() + b"\xf8\x07\x01" + b"\xfb\x07\xfc\x07"
    assert [row["source"] for row in _rows(enricher, raw_request(event))] == ["s"]


def test_a_group_of_nothing_but_malformed_requests_is_refused(enricher: Enricher) -> None:
    """No rows are left, and that is no failure."""
    proposed = _propose(enricher, b"\xff", raw_request(b"\xff"))
    assert sorted(proposed.rejections) == [0, 1]
    assert proposed.events.num_rows == 0
    assert all(isinstance(error, EventValidationException) for error in proposed.rejections.values())
