"""Payloads become JSON text that means the same, or are refused by name."""

import datetime as dt
import decimal
import enum
import json
import math
import uuid
from dataclasses import dataclass
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.client.payload_json import encode_payload
from shared.errors import EventValidationException

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | KEYS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


@given(st.dictionaries(KEYS, VALUES))
def test_payload_means_the_same_after_decoding(payload):
    """Whatever JSON can say comes back equal, integers of any size included."""
    assert json.loads(encode_payload(payload)) == payload


@dataclass
class Stage:
    name: str
    duration_ms: float
    _cache: int = 0


class Status(enum.Enum):
    OK = "ok"


class Weird(dt.tzinfo):
    """A time zone that orjson does not know."""

    def utcoffset(self, _when):
        return dt.timedelta(hours=5, minutes=30)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (dt.datetime(2024, 1, 20, 10, 30, tzinfo=dt.UTC), '"2024-01-20T10:30:00Z"'),
        (dt.datetime(2024, 1, 20, 10, 30, 0, 123456), '"2024-01-20T10:30:00.123456Z"'),  # noqa: DTZ001 — the point
        (
            dt.datetime(2024, 1, 20, 10, 30, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            '"2024-01-20T10:30:00+02:00"',
        ),
        (dt.datetime(2024, 1, 20, 10, 30, tzinfo=Weird()), '"2024-01-20T10:30:00+05:30"'),
        (dt.date(2024, 1, 20), '"2024-01-20"'),
        (uuid.UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
        (Status.OK, '"ok"'),
        (Stage("extraction", 12.5), '{"name":"extraction","duration_ms":12.5}'),
        ((1, 2), "[1,2]"),
        (MappingProxyType({"a": 1}), '{"a":1}'),
        (2**53 + 1, "9007199254740993"),
        (2**64 + 1, "18446744073709551617"),
        (-(10**30), "-1000000000000000000000000000000"),
        (None, "null"),
    ],
)
@pytest.mark.parametrize("beside", [{}, {"big": 2**70}], ids=["fast", "slow"])
def test_value_is_written_as_stated(value, text, beside):
    """Each kind of value has one form, whichever encoder writes it."""
    encoded = encode_payload({"value": value, **beside})
    assert encoded.startswith(f'{{"value":{text}')


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"a": {"b": [1, math.nan]}}, "payload.a.b[1]"),
        ({"a": math.inf, "b": None}, "payload.a"),
        ({"stage": Stage("x", math.nan), "none": None}, "payload.stage.duration_ms"),
        ({"price": decimal.Decimal("1.10")}, "payload.price"),
        ({"raw": b"x"}, "payload.raw"),
        ({"tags": {"x"}}, "payload.tags"),
        ({"a": {1: "x"}}, "payload.a"),
        ({"a": "\ud800"}, "payload.a"),
        ({"\ud800": 1}, "payload (a key)"),
        ({"a": object()}, "payload.a"),
        ([1], "payload"),
        (None, "payload"),
    ],
)
def test_value_that_json_cannot_say_is_refused_by_name(payload, path):
    """NaN does not become null, Decimal does not become float: the error names the place instead."""
    with pytest.raises(EventValidationException) as caught:
        encode_payload(payload)
    assert [violation.field for violation in caught.value.violations] == [path]


def test_circular_payload_is_refused():
    """A payload that contains itself ends with an error, not with the stack."""
    payload: dict[str, object] = {}
    payload["self"] = payload
    with pytest.raises(EventValidationException, match="deep"):
        encode_payload(payload)


def test_null_beside_finite_numbers_is_no_nan():
    """None is written as null without suspicion."""
    assert encode_payload({"a": None, "b": [1.5, None], "c": "null"}) == '{"a":null,"b":[1.5,null],"c":"null"}'
