"""The Python functions that conditions call for the rows where DuckDB's own functions cannot tell.

    eventlog_holds(value, expression)   whether a comparison holds for a value
    eventlog_compact(payload)           the payload without white space between tokens

For a comparison of the payload the value is the payload's text, for any other it is the field's. Both
are pure; expressions are compiled once.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol

from shared.filters.fields import kind_of
from shared.filters.live_event import LiveEvent
from shared.filters.parser import parse_printed
from shared.filters.payload_document import compact_json
from shared.filters.predicate import compile_predicate
from shared.filters.sql_parameters import COMPACT_FUNCTION, HOLDS_FUNCTION
from shared.filters.tree import leaves


class Connection(Protocol):
    """What is needed of a DuckDB connection."""

    def create_function(self, name: str, function: Callable[..., Any], *, side_effects: bool) -> Any:
        """Make a Python function known to all connections of the same database."""


def register_filter_functions(connection: Connection) -> None:
    """Make the functions known to a database: to the connection and to its cursors, once for each database.

    Close the connection in the end: an open one keeps the interpreter from ending cleanly.
    """
    connection.create_function(HOLDS_FUNCTION, _holds, side_effects=False)
    connection.create_function(COMPACT_FUNCTION, compact_json, side_effects=False)


def _holds(value: str, expression: str) -> bool:
    return _compiled(expression)(value)


@functools.lru_cache(maxsize=1_000)
def _compiled(expression: str) -> Callable[[str], bool]:
    tree = parse_printed(expression)
    (leaf,) = leaves(tree)
    predicate = compile_predicate(tree, now_ns=0)
    if kind_of(leaf.field) in {"payload", "value"}:
        return lambda value: predicate(LiveEvent(payload=value))
    assert leaf.field.name == "type"
    return lambda value: predicate(LiveEvent(type=value))
