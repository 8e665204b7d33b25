"""Payloads that a request holds as google.protobuf.Struct, turned into the JSON text that events hold.

The slow way, for requests typed by hand: a microsecond or two a value, where text costs nanoseconds.
Invariant: whatever a request holds, no more than STRUCTURES_BYTES_MAX bytes of structures are parsed and
no more than STRUCTURES_VALUES_MAX values turned into objects; beyond, the request is refused.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from shared.columns.wire import WireCodec
from shared.errors import FieldViolation
from shared.events.limits import PAYLOAD_BYTES_MAX, STRUCTURES_BYTES_MAX, STRUCTURES_VALUES_MAX

# Beyond, a double stands for several integers.
_INTEGER_MAX = 2**53
_INSTEAD = "send it as payload_json, or fewer events in a request"


def replace_structures(codec: WireCodec, request: bytes) -> tuple[bytes, list[FieldViolation]]:
    """Return the request with each payload as payload_json, and which events cannot be had so.

    Where there are violations the request is of no use. Raises EventValidationException (MALFORMED_REQUEST).
    """
    message = codec.parse_events(request)
    budget = _Budget(STRUCTURES_BYTES_MAX, STRUCTURES_VALUES_MAX)
    violations = []
    for index, event in enumerate(cast(Any, message).events):
        if not event.HasField("payload"):
            continue
        try:
            _replace(event, budget)
        except _UnusableError as problem:
            violations.append(FieldViolation(f"events[{index}].payload", str(problem)))
            if problem.is_last:
                break
    return message.SerializeToString(), violations


class _UnusableError(Exception):
    """A structure cannot become a payload. `is_last`: nor is it worth while to look at the next ones."""

    def __init__(self, problem: str, *, is_last: bool = False) -> None:
        super().__init__(problem)
        self.is_last = is_last


@dataclass(slots=True)
class _Budget:
    """What the structures of one request may still take."""

    bytes_left: int
    values_left: int

    def take_bytes(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            what = f"takes the request's structures beyond {STRUCTURES_BYTES_MAX} bytes together"
            raise _UnusableError(f"{what}: {_INSTEAD}", is_last=True)

    def take_values(self, count: int) -> None:
        self.values_left -= count
        if self.values_left < 0:
            what = f"takes the request's structures beyond {STRUCTURES_VALUES_MAX} values together"
            raise _UnusableError(f"{what}: {_INSTEAD}", is_last=True)


def _replace(event: Any, budget: _Budget) -> None:
    if event.HasField("payload_json"):
        raise _UnusableError("and payload_json are both set: send one of them")
    event.payload_json = _json_text(event.payload, budget)
    event.ClearField("payload")


def _json_text(data: bytes, budget: _Budget) -> str:
    budget.take_bytes(len(data))
    try:
        structure = Struct.FromString(data)
    except DecodeError:
        raise _UnusableError("is malformed, or deeper than a structure may be: send it as payload_json") from None
    text = orjson.dumps(_object(structure.fields, budget))
    if len(text) > PAYLOAD_BYTES_MAX:
        raise _UnusableError(f"is longer than {PAYLOAD_BYTES_MAX} bytes as JSON: send large content by reference")
    return text.decode()


def _object(fields: Mapping[str, Value], budget: _Budget) -> dict[str, object]:
    budget.take_values(len(fields))
    return {name: _plain(fields[name], budget) for name in fields}


def _plain(value: Value, budget: _Budget) -> object:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _object(value.struct_value.fields, budget)
    if kind == "list_value":
        items = value.list_value.values
        budget.take_values(len(items))
        return [_plain(item, budget) for item in items]
    return None


def _number(value: float) -> int | float:
    """A structure has no integers of its own: what is whole is written as one, where that is exact."""
    if not math.isfinite(value):
        raise _UnusableError("holds a number that is not finite: JSON has none")
    return int(value) if value.is_integer() and abs(value) <= _INTEGER_MAX else value
