"""Filter expressions that find what an analysis speaks of. Written here, parsed by shared.filters.

What stands for a value is its text, as scans give it. In a payload, a number and true have the texts of strings too,
so both are named. A list, an object or a long text of a payload is not named: its expression finds what has any value
there.

Invariants: texts of events are quoted, so that whatever they hold is a literal; an expression stays well under the
longest one that the filter language takes, by naming fewer values, never by being cut.
"""

import json
import re
from collections.abc import Iterable

from shared.events.timestamps import format_timestamp

VALUES_MAX = 100
_VALUES_BYTES_MAX = 3_500
# What the JSON of a number, true and false looks like, as far as the filter language surely takes it.
_BARE = re.compile(r"-?(0|[1-9][0-9]{0,29})(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?|true|false")


def equals(field: str, value: str | None) -> str:
    """The field has this value; None: it has none."""
    return f"{field} IS NULL" if value is None else one_of(field, [value])


def one_of(field: str, values: Iterable[str], *, bytes_max: int = _VALUES_BYTES_MAX) -> str:
    """The field has one of the values; of many, the first VALUES_MAX that take no more than bytes_max are named."""
    literals: dict[str, None] = {}
    room = bytes_max
    for number, value in enumerate(values):
        added = _literals(field, value)
        room -= sum(len(each.encode()) + len(", ") for each in added)
        if literals and (room < 0 or number >= VALUES_MAX):
            break
        literals.update(dict.fromkeys(added))
    if not literals:
        return f"{field} IS NOT NULL"
    named = list(literals)
    return f"{field} = {named[0]}" if len(named) == 1 else f"{field} IN ({', '.join(named)})"


def between(start_ns: int, end_ns: int) -> str:
    """The event happened in [start, end)."""
    start, end = format_timestamp(start_ns), format_timestamp(end_ns)
    return f"timestamp >= '{start}' AND timestamp < '{end}'"


def all_of(*expressions: str) -> str:
    """All of the expressions hold; empty ones do not count. None of them may hold OR outside of brackets."""
    return " AND ".join(filter(None, expressions))


def _literals(field: str, text: str) -> tuple[str, ...]:
    """What a field may hold that has this text; nothing where a filter cannot say it."""
    if field == "position":
        return (text,)
    if field in {"timestamp", "recorded_at"}:
        return (_quoted(text.replace(" ", "T")),)
    if not field.startswith("payload"):
        return (_quoted(text),)
    if field == "payload" or len(text) > _VALUES_BYTES_MAX // 4 or _is_structure(text):
        return ()
    return (_quoted(text), text) if _BARE.fullmatch(text) else (_quoted(text),)


def _is_structure(text: str) -> bool:
    """Whether this is the JSON of a list or an object."""
    if not text.startswith(("[", "{")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
