"""Filter expressions that find what an analysis speaks of. Written here, parsed by shared.filters.

Invariant: texts of events are quoted, so that whatever they hold is a literal; an expression stays well under the
longest one that the filter language takes, by naming fewer values, never by being cut.
"""

from collections.abc import Iterable

from shared.events.timestamps import format_timestamp

VALUES_MAX = 100
_VALUE_BYTES_MAX = 4_000


def equals(field: str, value: str | None) -> str:
    """The field has this value; None: it has none."""
    return f"{field} IS NULL" if value is None else f"{field} = {_quoted(value)}"


def one_of(field: str, values: Iterable[str]) -> str:
    """The field has one of the values; of many, the first ones that fit are named."""
    named = list(dict.fromkeys(fitting(values)))
    return equals(field, named[0]) if len(named) == 1 else f"{field} IN ({', '.join(map(_quoted, named))})"


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
        room -= len(value.encode()) + 4
        if number and (room < 0 or number >= VALUES_MAX):
            return
        yield value


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
