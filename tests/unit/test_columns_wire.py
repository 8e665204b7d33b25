"""Protobuf bytes to columns: what is read of a request, and what is refused before it does harm."""

import pytest
from eventlog.v1 import event_pb2
from eventlog.v1 import ingest_service_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.columns.wire import RequestHead, WireCodec
from shared.errors import EventValidationException
from tests.support.log_requests import HOSTILE_EVENTS, HOSTILE_TEXTS, log_request, new_event, raw_request

_codec = WireCodec()


def test_the_head_tells_everything_but_the_events() -> None:
    """Count, request id, durability and expected position are read without the events."""
    request = log_request(
        new_event(), new_event(), request_id="r-ü", durability=pb.DURABILITY_BUFFERED, expected_last_position=0
    )
    assert _codec.read_head(request) == RequestHead(2, "r-ü", pb.DURABILITY_BUFFERED, 0)
    assert _codec.read_head(b"") == RequestHead(0, "", 0, None)


def test_the_head_counts_payloads_typed_as_structures() -> None:
    """Also empty ones, and only those: the fifth field of anything else is none."""
    structured = new_event(payload={"a": 1})
    request = log_request(structured, new_event(payload_json="{}"), new_event(payload={}), new_event())
    assert _codec.read_head(request).structures == 2
    assert _codec.read_head(log_request(new_event(metadata={"tags": ["t"]})) + b"\x2a\x00").structures == 0


def test_a_request_for_one_event_reads_as_a_batch_of_one() -> None:
    """LogRequest and LogBatchRequest have the same numbers."""
    request = pb.LogRequest(event=new_event(source="s"), request_id="r").SerializeToString()
    assert _codec.read_head(request).count == 1
    assert _codec.parse_requests([request])[0].as_py()[0]["source"] == "s"


def test_the_head_of_a_later_version_is_read() -> None:
    """An unknown durability is a number for the servicer to refuse."""
    assert _codec.read_head(log_request(new_event()) + b"\x18\x63").durability == 99


@pytest.mark.parametrize(
    "request_bytes", [b"\xff", b"\x12\x01\xff", b"\x0a\x05a", b"\x7b" * 100_000 + b"\x7c" * 100_000]
)
def test_a_malformed_head_is_refused(request_bytes: bytes) -> None:
    """Bytes that are no request raise MALFORMED_REQUEST."""
    with pytest.raises(EventValidationException) as caught:
        _codec.read_head(request_bytes)
    assert caught.value.reason == "MALFORMED_REQUEST"


@pytest.mark.parametrize("event", HOSTILE_EVENTS.values(), ids=HOSTILE_EVENTS.keys())
def test_hostile_events_neither_crash_nor_hang(event: bytes) -> None:
    """What once ended the process, or panicked in a library, is a malformed request."""
    with pytest.raises(EventValidationException) as caught:
        _codec.read_head(raw_request(event))
    assert caught.value.reason == "MALFORMED_REQUEST"


@pytest.mark.parametrize("event", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS.keys())
def test_text_that_is_no_utf8_is_refused(event: bytes) -> None:
    """It passes the head, which leaves texts alone, and is a malformed request when the columns are made."""
    assert _codec.read_head(raw_request(event)).count == 1
    with pytest.raises(EventValidationException) as caught:
        _codec.parse_requests([log_request(new_event()), raw_request(event)])
    assert caught.value.reason == "MALFORMED_REQUEST"


def test_requests_keep_their_events_apart() -> None:
    """Rows come by request, in the order of the bytes; a request without events has none."""
    requests = [log_request(new_event(type="a"), new_event(type="b")), b"", log_request(new_event(type="c"))]
    lists = _codec.parse_requests(requests)
    assert lists.offsets.to_pylist() == [0, 2, 2, 3]
    assert lists.flatten().field("type").to_pylist() == ["a", "b", "c"]


_VALID = [
    log_request(
        event_pb2.NewEvent(type="a.b", source="s", payload_json='{"a":1}', metadata={"tags": ["x", "y"]}),
        event_pb2.NewEvent(type="c", timestamp={"seconds": -5, "nanos": 7}, payload={"k": [1, None]}),
        request_id="r",
    ),
    log_request(new_event(), durability=2, expected_last_position=7),
]


@settings(max_examples=300)
@given(st.sampled_from(_VALID), st.data())
def test_head_and_columns_agree_on_any_bytes(valid: bytes, data: st.DataObject) -> None:
    """Whatever passes both has as many rows as the head counts, with what protobuf itself reads."""
    request = bytearray(valid)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(request)))
        request[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=4))
    try:
        head = _codec.read_head(bytes(request))
        rows = _codec.parse_requests([bytes(request)])[0].as_py()
    except EventValidationException:
        return
    assert len(rows) == head.count
    assert (head.structures > 0) == any(row["payload"] is not None for row in rows)
    try:
        expected = pb.LogBatchRequest.FromString(bytes(request))
    except Exception:  # noqa: BLE001 — a structure within may be malformed, which is found later
        return
    assert (expected.request_id, expected.durability) == (head.request_id, head.durability)
    assert [(row["type"], row["source"]) for row in rows] == [(each.type, each.source) for each in expected.events]
