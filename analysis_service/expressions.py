"""Filter expressions that find what an analysis speaks of. Written here, parsed by shared.filters.

Invariant: texts of events are quoted, so that whatever they hold is a literal; an expression stays well under the
longest one that the filter language takes, by naming fewer values, never by being cut.
"""

import re
from collections.abc import Iterable

from shared.events.timestamps import format_timestamp

VALUES_MAX = 100
_BARE = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?(e[-+]?[0-9]{1,3})?|true|false")
_VALUE_BYTES_MAX = 4_000


def equals(field: str, value: str | None) -> str:
    """The field has this value; None: it has none."""
    if value is None:
        return f"{field} IS NULL"
    literals = _literals(field, value)
    return f"{field} = {literals[0]}" if len(literals) == 1 else f"{field} IN ({', '.join(literals)})"


def one_of(field: str, values: Iterable[str]) -> str:
    """The field has one of the values; of many, the first ones that fit are named."""
    named = list(dict.fromkeys(fitting(values)))
    if len(named) == 1:
        return equals(field, named[0])
    return f"{field} IN ({', '.join(literal for value in named for literal in _literals(field, value))})"


def between(start_ns: int, end_ns: int) -> str:
    """The event happened in [start, end)."""
    start, end = format_timestamp(start_ns), format_timestamp(end_ns)
    return f"timestamp >= '{start}' AND timestamp < '{end}'"


def all_of(*expressions: str) -> str:
    """All of the expressions hold; empty ones do not count. None of them may hold OR outside of brackets."""
    return " AND ".join(filter(None, expressions))


def fitting(values: Iterable[str]) -> Iterable[str]:
    """The first values, at most VALUES_MAX, that an expression has room for; at least one."""
    room = _VALUE_BYTES_MAX
    for number, value in enumerate(values):
        # Twice, for a number may be a text too.
        room -= 2 * len(value.encode()) + 6
        if number and (room < 0 or number >= VALUES_MAX):
            return
        yield value


def _literals(field: str, text: str) -> tuple[str, ...]:
    """What a field may hold that has this text: in a payload, numbers, true and false have the texts of strings too."""
    is_bare = field.startswith("payload.") and _BARE.fullmatch(text)
    return (_quoted(text), text) if is_bare else (_quoted(text),)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
