"""Filters as SQL for DuckDB, over a relation with the columns of EVENT_SCHEMA and promoted ones. Pure.

Invariants:
- Nothing of a filter is in the text: strings, numbers, paths and expressions are bound parameters; names
  of promoted columns come from the file's metadata and are quoted.
- The condition holds for exactly the events for which the predicate of the same tree holds.
- A comparison that a column answers is a plain comparison of the column, so that DuckDB skips row groups.

The connection must know the function that `sql_functions` registers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.events.ids import ALPHABET, POSITION_CHARACTERS, PREFIX
from shared.filters.fields import kind_of, may_be_missing
from shared.filters.id_positions import about_positions
from shared.filters.resolution import push_not_down
from shared.filters.sql_numbers import UBIGINT, IntegerColumn
from shared.filters.sql_parameters import Parameters, quote_identifier
from shared.filters.sql_promoted import PromotedColumns
from shared.filters.sql_text import SQL_OPERATORS, text_condition, text_condition_once
from shared.filters.sql_whole_payload import whole_payload_condition
from shared.filters.tree import (
    And,
    Between,
    Comparison,
    Contains,
    Everything,
    Exists,
    In,
    Instant,
    IsNull,
    Leaf,
    Not,
    Or,
    Text,
    Tree,
    Value,
    uses_now,
)
from shared.log.promoted_columns import PromotedColumn


@dataclass(frozen=True, slots=True)
class Sql:
    """A condition for WHERE, and the values of its named parameters ($f0, $f1, ...)."""

    text: str
    parameters: dict[str, Any]


def to_sql(tree: Tree, *, promoted: Sequence[PromotedColumn] = (), log_id: str) -> Sql:
    """Return the condition of a tree without now().

    promoted: the promoted columns that the relation has; they change the speed, never the answer.
    log_id: that of the log whose events these are.
    """
    assert not uses_now(tree), "resolve_now comes first"
    writer = _Writer(promoted, log_id)
    text = writer.condition(push_not_down(tree))
    return Sql(text, writer.parameters.used_in(text))


class _Writer:
    """Writes the condition of one tree."""

    def __init__(self, promoted: Sequence[PromotedColumn], log_id: str) -> None:
        self.parameters = Parameters()
        self._promoted = PromotedColumns(promoted, self.parameters)
        self._log_id = log_id

    def condition(self, tree: Tree) -> str:
        """Return the condition of a tree; NULL means FALSE."""
        if isinstance(tree, And | Or):
            joint = " AND " if isinstance(tree, And) else " OR "
            return f"({joint.join(self.condition(operand) for operand in tree.operands)})"
        if isinstance(tree, Not):
            return f"({self.condition(tree.operand)}) IS NOT TRUE"
        return "TRUE" if isinstance(tree, Everything) else self._leaf(tree)

    def _leaf(self, leaf: Leaf) -> str:  # noqa: PLR0911 — one for each kind of field
        kind = kind_of(leaf.field)
        if kind == "value":
            return self._payload_value(leaf)
        if isinstance(leaf, IsNull | Exists):
            return self._is_there(leaf)
        if kind == "payload":
            return whole_payload_condition(leaf, self.parameters)
        if leaf.field.name == "id":
            return self._id(leaf)
        column = quote_identifier(leaf.field.name.removeprefix("metadata."))
        if kind == "integer":
            return IntegerColumn(column, UBIGINT, self.parameters).condition(leaf)
        if kind == "time":
            return self._time(column, leaf)
        return self._tags(column, leaf) if kind == "tags" else text_condition(column, leaf, self.parameters)

    def _payload_value(self, leaf: Leaf) -> str:
        """Return the condition of a path of the payload: one for each type of literals, joined by OR."""
        if not isinstance(leaf, In):
            return self._promoted.condition(leaf)
        by_type: dict[type, list[Value]] = {}
        for value in leaf.values:
            by_type.setdefault(type(value), []).append(value)
        parts = [replace(leaf, values=tuple(values)) for values in by_type.values()]
        return f"({' OR '.join(map(self._promoted.condition, parts))})"

    def _is_there(self, leaf: IsNull | Exists) -> str:
        """Return the condition of IS NULL and EXISTS outside of the payload."""
        wants_value = isinstance(leaf, Exists) or leaf.negated
        if not may_be_missing(leaf.field):
            return "TRUE" if wants_value else "FALSE"
        column = quote_identifier(leaf.field.name.removeprefix("metadata."))
        return f"{column} IS {'NOT ' if wants_value else ''}NULL"

    def _id(self, leaf: Leaf) -> str:
        """Return the condition of the id, which is not stored: one of the position, where there is one."""
        by_position = about_positions(leaf, self._log_id)
        if by_position is None:
            return text_condition_once(self._id_text(), leaf, self.parameters)
        return IntegerColumn(quote_identifier("position"), UBIGINT, self.parameters).condition(by_position)

    def _id_text(self) -> str:
        """Return the id as an expression."""
        alphabet = self.parameters.text(ALPHABET)
        digits = [
            f"({alphabet})[((position >> {5 * place}::UBIGINT) & 31::UBIGINT)::INTEGER + 1]"
            for place in reversed(range(POSITION_CHARACTERS))
        ]
        return f"concat({self.parameters.text(PREFIX + self._log_id)}, {', '.join(digits)})"

    def _time(self, column: str, leaf: Leaf) -> str:
        if isinstance(leaf, Comparison):
            return f"{column} {SQL_OPERATORS[leaf.operator]} {self._instant(leaf.value)}"
        if isinstance(leaf, In):
            values = ", ".join(map(self._instant, leaf.values))
            return f"{column} {'NOT ' if leaf.negated else ''}IN ({values})"
        assert isinstance(leaf, Between), "the checks let no other operator pass"
        low, high = self._instant(leaf.low), self._instant(leaf.high)
        return f"({column} {'NOT ' if leaf.negated else ''}BETWEEN {low} AND {high})"

    def _instant(self, value: Value) -> str:
        assert isinstance(value, Instant), "the checks let nothing else pass"
        return self.parameters.time(value.ns)

    def _tags(self, column: str, leaf: Leaf) -> str:
        assert isinstance(leaf, Contains), "the checks let no other operator pass"
        if not isinstance(leaf.value, Text):
            return "TRUE" if leaf.negated else "FALSE"
        return f"{'NOT ' if leaf.negated else ''}list_contains({column}, {self.parameters.text(leaf.value.value)})"
