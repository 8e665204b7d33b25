"""The kinds of values that keys take: how each is written, its range, and what to write instead.

A kind stands in the annotation of a field: `Annotated[int, size(at_least=KIB)]`. Values come from two sides:
- written: by people, in the file or the environment. A bare number takes the unit that the specification
  gives to the key (days for retention), and the environment has nothing but text.
- from code: numbers are in the field's unit, bytes or seconds. Text in words works there too.
Which side it is says the context of the validation: `WRITTEN` or none.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shared.config.words import format_duration, format_size, parse_duration, parse_size

WRITTEN = "written"

NumberT = TypeVar("NumberT", int, float)

_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_TYPE_PATTERN = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9_.:/*?-]{0,199}")
_PAYLOAD_PATH = re.compile(r'payload(?:\.(?:[A-Za-z_][A-Za-z0-9_-]*|"(?!\*")[^"\x00-\x1f]+")){1,15}')
_NOT_IN_PATHS = frozenset("\x00*?[")
_BARE = re.compile(r"\s*[0-9]+(?:\.[0-9]+)?\s*")
_SWITCHES = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}


@dataclass(frozen=True, slots=True)
class Kind:
    """Checks a value. `read` raises ValueError or TypeError where the value does not fit."""

    read: Callable[[Any], Any]
    # What to write, to follow the word "write".
    expected: str
    # Unit of a bare number that was written, where it is not the field's.
    bare_unit: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic call the kind and nothing else."""
        del source, handler
        return core_schema.with_info_plain_validator_function(self._validate)

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        if self.bare_unit and info.context == WRITTEN and _BARE.fullmatch(str(value)):
            value = f"{value}{self.bare_unit}"
        try:
            return self.read(value)
        except (ValueError, TypeError) as error:
            raise PydanticCustomError("kind", "{expected}", {"expected": self.expected}) from error


def size(*, at_least: int, at_most: int) -> Kind:
    """Bytes. A bare number is bytes."""

    def read(value: Any) -> int:
        return _in_range(parse_size(value) if isinstance(value, str) else _whole(value), at_least, at_most)

    extent = f"{format_size(at_least)} to {format_size(at_most)}"
    return Kind(read, f"a size from {extent}, such as 100MB or 64MiB; a bare number is bytes")


def duration(*, at_least: float, at_most: float, bare_unit: str = "s") -> Kind:
    """Seconds. A bare number that was written has the unit bare_unit; from code it is seconds."""

    def read(value: Any) -> float:
        return _in_range(parse_duration(value) if isinstance(value, str) else _number(value), at_least, at_most)

    extent = f"{format_duration(at_least)} to {format_duration(at_most)}"
    bare = {"s": "seconds", "d": "days"}[bare_unit]
    expected = f"a duration from {extent}, such as 500ms, 15m or 30d; a bare number is {bare}"
    return Kind(read, expected, bare_unit)


def whole(*, at_least: int, at_most: int) -> Kind:
    """A whole number."""

    def read(value: Any) -> int:
        number = int(value) if isinstance(value, str) else _whole(value)
        return _in_range(number, at_least, at_most)

    return Kind(read, f"a whole number from {at_least} to {at_most}")


def number(*, at_least: float, at_most: float) -> Kind:
    """A number."""

    def read(value: Any) -> float:
        return _in_range(float(value) if isinstance(value, str) else _number(value), at_least, at_most)

    return Kind(read, f"a number from {at_least:g} to {at_most:g}")


def switch() -> Kind:
    """True or false."""

    def read(value: Any) -> bool:
        if isinstance(value, str) and value.lower() in _SWITCHES:
            return _SWITCHES[value.lower()]
        if not isinstance(value, bool):
            raise TypeError
        return value

    return Kind(read, "true or false")


def choice(*choices: str) -> Kind:
    """One of a few words."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return Kind(read, "one of " + ", ".join(choices))


def path() -> Kind:
    """A path. A relative one starts at the working directory of the process.

    It has no wildcards: DuckDB would read other files than the one that is meant.
    """

    def read(value: Any) -> Path:
        if not isinstance(value, str | Path) or not str(value):
            raise TypeError
        if set(str(value)) & _NOT_IN_PATHS:
            raise ValueError
        return Path(value)

    return Kind(read, "the path of a directory without *, ? and [, such as /var/lib/eventlog/events")


def address() -> Kind:
    """A host and a port: "127.0.0.1:50051", "[::]:50051". Port 0 lets the system choose."""

    def read(value: Any) -> str:
        match = _ADDRESS.fullmatch(value)
        if match is None or int(match[1]) > 65535:
            raise ValueError
        return str(value)

    return Kind(read, "a host and a port from 0 to 65535, such as 127.0.0.1:50051 or [::]:50051")


def peer_address() -> Kind:
    """Where another service listens: a host and a port, or empty for no such service."""

    def read(value: Any) -> str:
        match = _ADDRESS.fullmatch(value)
        if value and (match is None or not 1 <= int(match[1]) <= 65535):
            raise ValueError
        return str(value)

    return Kind(read, 'a host and a port from 1 to 65535, such as 127.0.0.1:50052, or "" for none')


def label() -> Kind:
    """A text of at most 255 bytes, without control characters; empty for a default that the key explains."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or len(value.encode()) > 255 or not (value.isprintable()):
            raise TypeError
        return value

    return Kind(read, "a text of at most 255 bytes, in quotes where it looks like a number")


def type_pattern() -> Kind:
    """A pattern of event types."""

    def read(value: Any) -> str:
        if not _TYPE_PATTERN.fullmatch(value):
            raise ValueError
        return str(value)

    return Kind(read, "a type such as error (itself and everything below error.), or a pattern with * and ?")


def payload_paths(*, at_most: int) -> Kind:
    """Paths into the payload, without duplicates."""

    def read(value: Any) -> tuple[str, ...]:
        paths = value_of_text(value)
        if not isinstance(paths, list | tuple) or len(paths) > at_most or len(set(paths)) < len(paths):
            raise TypeError
        if not all(isinstance(each, str) and _PAYLOAD_PATH.fullmatch(each) for each in paths):
            raise ValueError
        return tuple(paths)

    return Kind(read, f"a list of at most {at_most} different paths, such as [payload.duration_ms, payload.status]")


def value_of_text(value: Any) -> Any:
    """A list or mapping that came as text, as it does from the environment; anything else as it is.

    Raises ValueError where the text is no YAML.
    """
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{value[:40]!r} is not YAML") from error


def _whole(value: Any) -> int:
    # bool is an int to Python, but not to whoever wrote `true`.
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError
    return value


def _in_range(value: NumberT, at_least: NumberT, at_most: NumberT) -> NumberT:
    if not at_least <= value <= at_most:
        raise ValueError
    return value
