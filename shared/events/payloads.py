"""Payloads between JSON text and Python values, without loss. Pure.

Integers keep every digit, nothing turns into infinity or null on the way. The text itself says more than its
values (spelling of numbers, duplicate keys): whoever needs that keeps the text.
"""

import json
import math
from typing import Any, NoReturn

import msgspec

from shared.errors import EventValidationException, FieldViolation


def parse_payload(text: str) -> dict[str, Any]:
    """The values of the text of a JSON object.

    Raises EventValidationException where it is none, or has numbers that Python cannot hold exactly as int
    of up to 4300 digits or finite float.
    """
    try:
        try:
            values = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            # Slower, and takes what JSON allows and msgspec does not, such as lone surrogates.
            values = json.loads(text, parse_float=_finite, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _refusal(f"cannot be turned into Python values ({error}); read payload_json instead") from error
    if not isinstance(values, dict):
        raise _refusal(f"is {text[:40]!r}; write a JSON object")
    return values


def write_payload(payload: dict[str, Any]) -> str:
    """JSON text of dict, list, tuple, str, int, finite float, bool and None.

    Raises EventValidationException for anything else, and for text that is not Unicode.
    """
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise _refusal(f"cannot be written as JSON ({error}); convert its values to JSON values") from error
    return text


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is beyond the range of a double")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _refusal(problem: str) -> EventValidationException:
    return EventValidationException(f"payload {problem}", violations=[FieldViolation("payload", problem)])
