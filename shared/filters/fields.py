"""The fields of an event as the filter language names them, and what each can be asked. Pure."""

import re
from enum import Enum
from typing import Literal, TypeAlias, get_args

from shared.filters.tree import Field, FieldName

FieldKind: TypeAlias = Literal["text", "integer", "time", "tags", "payload", "value"]

FIELD_NAMES: tuple[FieldName, ...] = get_args(FieldName)

_KINDS: dict[FieldName, FieldKind] = {
    "position": "integer",
    "timestamp": "time",
    "recorded_at": "time",
    "metadata.tags": "tags",
}
# What an event of the log may lack. All else is always there.
_OPTIONAL: frozenset[FieldName] = frozenset({"correlation_id", "metadata.user", "metadata.session_id"})

_NAME = re.compile(r"[\w$@-]+")
_SEGMENT = re.compile(r'\.(?P<name>[\w$@-]+)|\."(?P<quoted>(?:[^"]|"")*)"|\[(?P<index>-?[0-9]+)\]', re.DOTALL)
# An array of a payload of 1 MiB has fewer elements.
_INDEX_MAX = 2**31 - 1


class FieldProblem(Enum):
    """Why a text is no field."""

    UNKNOWN = "unknown"
    NEGATIVE_INDEX = "negative index"
    LARGE_INDEX = "large index"


def kind_of(field: Field) -> FieldKind:
    """Return what a field holds: "payload" is the whole payload, "value" any JSON value inside of it."""
    if field.name == "payload":
        return "value" if field.path else "payload"
    return _KINDS.get(field.name, "text")


def may_be_missing(field: Field) -> bool:
    """Return whether an event of the log may lack the field."""
    return bool(field.path) or field.name in _OPTIONAL


def read_field(text: str) -> Field | FieldProblem:
    """Read a field: a name with dotted, quoted and indexed segments."""
    if text in FIELD_NAMES and text != "payload":
        return Field(text)
    first = _NAME.match(text)
    if first is None or first[0] != "payload":
        return FieldProblem.UNKNOWN
    path: list[str | int] = []
    at = first.end()
    while at < len(text):
        segment = _SEGMENT.match(text, at)
        if segment is None:
            return FieldProblem.UNKNOWN
        at = segment.end()
        if segment["index"] is None:
            path.append(segment["name"] or (segment["quoted"] or "").replace('""', '"'))
            continue
        # Python reads no number of more than 4300 digits.
        if len(segment["index"]) > 20 or int(segment["index"]) > _INDEX_MAX:
            return FieldProblem.LARGE_INDEX
        if segment["index"].startswith("-"):
            return FieldProblem.NEGATIVE_INDEX
        path.append(int(segment["index"]))
    return Field("payload", tuple(path))


def print_field(field: Field) -> str:
    """Return the text that reads as this field."""
    pieces: list[str] = [field.name]
    for segment in field.path:
        if isinstance(segment, int):
            pieces.append(f"[{segment}]")
        elif _NAME.fullmatch(segment):
            pieces.append(f".{segment}")
        else:
            quoted = segment.replace('"', '""')
            pieces.append(f'."{quoted}"')
    return "".join(pieces)
