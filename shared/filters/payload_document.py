r"""The payload of one event, parsed at most once, and what lies under a path of it. Pure.

There are two ways to read JSON, and they never differ:
- quick: msgspec, which rounds numbers to doubles and takes the last of duplicate keys;
- exact: numbers are Decimals, and of duplicate keys the first counts, as DuckDB has it.
The quick way is taken for a path if none of its keys can be there twice: its text in quotes occurs once
at most, and no `\u` in the payload could spell it otherwise. Who compares a double that is equal to a
literal asks for the exact value.

Half surrogate pairs are kept as they are. A payload that is no JSON object has no values.
"""

import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

# What a path leads to where there is nothing.
MISSING: Final = object()

Path = tuple[str | int, ...]

# Keys that JSON spells as they are, but for \u escapes.
_PLAIN_KEY = re.compile(r'[^\x00-\x1f"\\/]+')
_LARGE = Decimal("Infinity")
_SMALL = Decimal("1e-999999999999999999")
_MANTISSA = re.compile(r"[1-9]")

# A string, which stays, or white space between tokens.
_WHITE_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)

_decode = msgspec.json.Decoder().decode


class PayloadDocument:
    """A payload as text, its values read when they are first asked for. Not for several threads."""

    __slots__ = ("_compact", "_exact", "_quick", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._quick: Any = None
        self._exact: Any = None
        self._compact: str | None = None

    @property
    def quick(self) -> Any:
        """The values with rounded numbers and the last of duplicate keys; the exact ones if msgspec cannot."""
        if self._quick is None:
            try:
                self._quick = _decode(self.text)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                self._quick = self.exact
        return self._quick

    @property
    def exact(self) -> Any:
        """The values: dict, list, str, Decimal, bool, None."""
        if self._exact is None:
            self._exact = _read_exactly(self.text)
        return self._exact

    @property
    def compact(self) -> str:
        """The text without white space between tokens; strings and numbers stay as they are spelled."""
        if self._compact is None:
            self._compact = compact_json(self.text)
        return self._compact


def path_reader(path: Sequence[str | int]) -> Callable[[PayloadDocument], Any]:
    """Return the function that gives what lies under a path, MISSING if nothing does.

    Numbers come as int, Decimal, or as the double next to them.
    """
    keys = [key for key in path if isinstance(key, str)]
    if not keys or not all(_PLAIN_KEY.fullmatch(key) for key in keys) or len(set(keys)) < len(keys):
        return lambda document: walk(document.exact, path)
    quoted = [f'"{key}"' for key in keys]
    if len(path) == 1:
        return _key_reader(keys[0])

    def read(document: PayloadDocument) -> Any:
        text = document.text
        if "\\u" in text:
            return walk(document.exact, path)
        for key in quoted:
            count = text.count(key)
            if count == 0:
                return MISSING
            if count > 1:
                return walk(document.exact, path)
        return walk(document.quick, path)

    return read


def walk(value: Any, path: Sequence[str | int]) -> Any:
    """Return what lies under a path of parsed values, MISSING if nothing does."""
    for segment in path:
        if isinstance(segment, str):
            if type(value) is not dict:
                return MISSING
            value = value.get(segment, MISSING)
        else:
            if type(value) is not list or segment >= len(value):
                return MISSING
            value = value[segment]
    return value


def compact_json(text: str) -> str:
    """Return JSON without white space between tokens; strings and numbers stay as they are spelled."""
    try:
        return msgspec.json.format(text, indent=-1)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _WHITE_SPACE.sub(r"\1", text)


def _key_reader(key: str) -> Callable[[PayloadDocument], Any]:
    """Read one key below the root, which is what most filters do."""
    quoted = f'"{key}"'
    path = (key,)

    def read(document: PayloadDocument) -> Any:
        text = document.text
        if "\\u" not in text:
            count = text.count(quoted)
            if count == 0:
                return MISSING
            if count == 1:
                quick = document.quick
                return quick.get(key, MISSING) if type(quick) is dict else MISSING
        return walk(document.exact, path)

    return read


def _read_exactly(text: str) -> Any:
    try:
        return json.loads(
            text,
            strict=False,
            parse_int=_number,
            parse_float=_number,
            parse_constant=_no_constant,
            object_pairs_hook=_first_wins,
        )
    except (ValueError, RecursionError):
        return {}


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        # The exponent has 18 digits or more, and no literal comes near such a number.
        mantissa, _, exponent = text.lower().partition("e")
        if not _MANTISSA.search(mantissa):
            return Decimal(0)
        size = _SMALL if exponent.startswith("-") else _LARGE
        return -size if text.startswith("-") else size


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))
