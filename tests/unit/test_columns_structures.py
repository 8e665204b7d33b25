"""Payloads typed as structures become JSON text, or a wrong field of their event; and never too much work."""

import json
from typing import Any

import pytest
from eventlog.v1 import event_pb2
from eventlog.v1 import ingest_service_pb2 as pb
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from shared.columns.structures import replace_structures
from shared.columns.wire import WireCodec
from shared.errors import EventValidationException
from shared.events.limits import STRUCTURES_BYTES_MAX, STRUCTURES_VALUES_MAX
from tests.support.log_requests import HOSTILE_TEXTS, log_request, new_event, raw_request, varint

_codec = WireCodec()


def _structure(**fields: Any) -> Struct:
    structure = Struct()
    structure.update(fields)
    return structure


def _list_of(count: int) -> Struct:
    structure = Struct()
    items = structure.fields["l"].list_value.values
    for _ in range(count):
        items.add().struct_value.SetInParent()
    return structure


def _replaced(*events: event_pb2.NewEvent) -> list[event_pb2.NewEvent]:
    replaced, violations = replace_structures(_codec, log_request(*events))
    assert violations == []
    return list(pb.LogBatchRequest.FromString(replaced).events)


def _problems(request: bytes) -> list[tuple[str, str]]:
    _, violations = replace_structures(_codec, request)
    return [(violation.field, violation.description) for violation in violations]


def test_structures_become_json_text() -> None:
    """Whole numbers as integers where that is exact; other events and fields stay as they are."""
    structure = _structure(n=3, f=0.5, big=2.0**60, t=None, b=True, s='"ü\n', l=[1, {"x": []}], o={})
    other = new_event(payload_json=' {"a": 1}', source="s")
    first, second, third = _replaced(new_event(payload=structure, source="x"), other, new_event())
    assert json.loads(first.payload_json) == {
        "n": 3,
        "f": 0.5,
        "big": 2.0**60,
        "t": None,
        "b": True,
        "s": '"ü\n',
        "l": [1, {"x": []}],
        "o": {},
    }
    assert isinstance(json.loads(first.payload_json)["n"], int)
    assert (first.source, first.HasField("payload")) == ("x", False)
    assert (second, third) == (other, new_event())


def test_the_rest_of_a_request_stays() -> None:
    """Its id, what it expects, and fields of later versions."""
    event = new_event(payload=_structure(a=1)).SerializeToString() + b"\xf8\x07\x01"
    request = raw_request(event) + log_request(request_id="r", durability=2, expected_last_position=7) + b"\xf0\x07\x05"
    replaced, violations = replace_structures(_codec, request)
    assert violations == []
    head = _codec.read_head(replaced)
    assert (head.count, head.request_id, head.durability, head.expected_last_position) == (1, "r", 2, 7)
    assert head.structures == 0
    assert b"\xf8\x07\x01" in replaced
    assert b"\xf0\x07\x05" in replaced


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (new_event(payload_json="{}", payload=_structure(a=1)), "both set"),
        (new_event(payload=_structure(a=float("nan"))), "not finite"),
        (new_event(payload=_structure(a=[{"b": float("-inf")}])), "not finite"),
        (new_event(payload=_structure(a="\x01" * 200_000)), "longer than 1048576 bytes as JSON"),
        (new_event(payload=_structure(a="x" * STRUCTURES_BYTES_MAX)), "payload_json, or fewer events"),
        (new_event(payload=_list_of(STRUCTURES_VALUES_MAX)), "payload_json, or fewer events"),
    ],
)
def test_what_cannot_be_text_is_a_wrong_field(event: event_pb2.NewEvent, says: str) -> None:
    """It is named with the index of its event, and says what to do instead."""
    [(field, description)] = _problems(log_request(new_event(), event))
    assert field == "events[1].payload"
    assert says in description


def test_malformed_structures_are_wrong_fields() -> None:
    """Bytes that do not parse, or nest too deep, are each the fault of their event."""
    deep = Struct()
    inner = deep
    for _ in range(60):
        inner = inner.fields["a"].struct_value
    broken = [b"\x0a\x05", deep.SerializeToString()]
    events = [b"\x0a\x03a.b\x2a" + varint(len(data)) + data for data in broken]
    fields = [field for field, _ in _problems(raw_request(*events))]
    assert fields == ["events[0].payload", "events[1].payload"]


def test_a_request_has_one_budget() -> None:
    """Structures that are small each are refused where they are too many together, at the first that is too much."""
    share = STRUCTURES_VALUES_MAX // 10
    assert _problems(log_request(*[new_event(payload=_list_of(share - 1))] * 10)) == []
    [(field, _)] = _problems(log_request(*[new_event(payload=_list_of(share))] * 12))
    assert field == "events[9].payload"
    text = _structure(a="x" * (STRUCTURES_BYTES_MAX // 4))
    [(field, _)] = _problems(log_request(*[new_event(payload=text)] * 6))
    assert field == "events[3].payload"


@pytest.mark.parametrize("event", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS.keys())
def test_text_that_is_no_utf8_refuses_the_request(event: bytes) -> None:
    """Also beside a structure that is sound."""
    with pytest.raises(EventValidationException) as caught:
        _problems(raw_request(new_event(payload={"a": 1}).SerializeToString(), event))
    assert caught.value.reason == "MALFORMED_REQUEST"


def test_a_structure_whose_text_is_no_utf8_is_a_wrong_field() -> None:
    """Nobody else's."""
    problems = _problems(raw_request(b"\x0a\x03a.b\x2a\x07\x0a\x05\x0a\x01\xff\x12\x00"))
    assert [field for field, _ in problems] == ["events[0].payload"]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=3), _VALUES, max_size=4))
def test_the_text_says_what_protobuf_says(fields: dict[str, Any]) -> None:
    """Any structure reads as protobuf's own JSON form of it."""
    structure = _structure(**fields)
    [event] = _replaced(new_event(payload=structure))
    assert json.loads(event.payload_json) == MessageToDict(structure)
