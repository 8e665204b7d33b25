"""Payload to JSON text, exactly.

What comes out means what went in: no number changes its value, nothing becomes null on the way.
  - None, bool, str, int of any size, finite float, dict with str keys, list, tuple: as JSON.
  - datetime: RFC 3339, UTC written as Z; one without a time zone is taken as UTC. date, time: ISO 8601.
  - UUID: its text. Enum: its value. A dataclass instance: an object of its fields.
  - Everything else (Decimal, bytes, sets, NaN, infinities, other keys, lone surrogates) is refused, and
    the message names the place.

It does not check the server's limits on size and depth, except that it ends on circular values.
"""

import dataclasses
import datetime as dt
import enum
import json
import math
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from shared.errors import EventValidationException, FieldViolation

# The server takes payloads of up to 100 levels; anything deeper here is circular or refused there.
DEPTH_MAX = 200

_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z

_ADVICE = {
    "Decimal": "write str(value) to keep it exact, or float(value) to make it a number",
    "bytes": "write text, for example base64.b64encode(value).decode()",
    "bytearray": "write text, for example base64.b64encode(value).decode()",
    "set": "write sorted(value)",
    "frozenset": "write sorted(value)",
}


def encode_payload(payload: Mapping[str, Any]) -> str:
    """JSON text of a payload. Raises EventValidationException naming the place of what JSON cannot say."""
    if not isinstance(payload, Mapping):
        raise _refusal("payload", f"is {type(payload).__name__}; pass a dict")
    try:
        text = orjson.dumps(payload, option=_OPTIONS)
    except TypeError:
        return _encode_slowly(payload)
    # orjson writes NaN and infinities as null; only where a null stands can one be hidden.
    if b"null" in text and not _only_finite(payload):
        return _encode_slowly(payload)
    return text.decode()


def _only_finite(value: Any, depth: int = 0) -> bool:
    """Whether it is sure that no NaN or infinity is inside; values of unusual types are not looked into."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return depth < DEPTH_MAX and all(_only_finite(item, depth + 1) for item in value.values())
    if kind is list or kind is tuple:
        return depth < DEPTH_MAX and all(_only_finite(item, depth + 1) for item in value)
    return kind is str or kind is int or kind is bool or value is None


def _encode_slowly(payload: Mapping[str, Any]) -> str:
    plain = _plain(payload, "payload", 0)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _plain(value: Any, path: str, depth: int) -> Any:
    """The value made of dict, list, str, int, float, bool and None alone."""
    if depth > DEPTH_MAX:
        raise _refusal(path, f"is nested more than {DEPTH_MAX} levels deep, or contains itself; flatten it")
    if isinstance(value, enum.Enum):
        return _plain(value.value, path, depth + 1)
    if value is None or isinstance(value, bool | int | float):
        return _plain_number(value, path)
    if isinstance(value, str):
        return _checked_text(value, path)
    if isinstance(value, dt.datetime | dt.date | dt.time | uuid.UUID):
        return _text_of(value, path)
    return _plain_container(value, path, depth)


def _plain_number(value: float | None, path: str) -> float | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        raise _refusal(path, f"is {value}, which JSON cannot say; leave it out or write None")
    return float(value)


def _plain_container(value: Any, path: str, depth: int) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_checked_key(key, path): _plain(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(item, f"{path}.{name}", depth + 1) for name, item in _fields(value)}
    kind = type(value).__name__
    advice = _ADVICE.get(kind, "convert it to a JSON value first")
    raise _refusal(path, f"is {kind}, which JSON cannot say; {advice}")


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Fields of a dataclass instance that orjson writes too: those not beginning with an underscore."""
    for field in dataclasses.fields(value):
        if not field.name.startswith("_"):
            yield field.name, getattr(value, field.name)


def _text_of(value: dt.datetime | dt.date | dt.time | uuid.UUID, path: str) -> str:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, dt.datetime):
        aware = value.replace(tzinfo=dt.UTC) if value.utcoffset() is None else value
        return aware.isoformat().removesuffix("+00:00") + ("" if aware.utcoffset() else "Z")
    if isinstance(value, dt.time) and value.tzinfo is not None:
        raise _refusal(path, "is a time with a time zone but no date; write a datetime")
    return value.isoformat()


def _checked_text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refusal(
            path, f"holds a lone surrogate at character {error.start}; decode the text properly first"
        ) from error
    return str(value)


def _checked_key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise _refusal(path, f"has the key {key!r} of type {type(key).__name__}; use str keys")
    return _checked_text(key, f"{path} (a key)")


def _refusal(path: str, problem: str) -> EventValidationException:
    safe = path.encode(errors="replace").decode()
    return EventValidationException(f"{safe} {problem}", violations=[FieldViolation(safe, problem)])
