"""Comparisons of values inside the payload by promoted columns, where a file has them. Pure.

A condition is TRUE exactly where the comparison holds, and FALSE or NULL elsewhere. Promoted columns
answer what they can by themselves; the payload's text answers the rest.
"""

from collections.abc import Sequence

from shared.filters.sql_json import json_condition
from shared.filters.sql_numbers import BIGINT, DoubleColumn, IntegerColumn, NumberColumn
from shared.filters.sql_parameters import Parameters, promoted_sql
from shared.filters.sql_text import SQL_OPERATORS, text_condition
from shared.filters.tree import (
    Between,
    Boolean,
    Comparison,
    Contains,
    Exists,
    In,
    IsNull,
    Leaf,
    Number,
    Text,
    Value,
    values_of,
)
from shared.log.promoted_columns import PromotedColumn

_KINDS = {"string": Text, "integer": Number, "double": Number, "boolean": Boolean}


class PromotedColumns:
    """The promoted columns of a file."""

    def __init__(self, columns: Sequence[PromotedColumn], parameters: Parameters) -> None:
        self._by_path: dict[tuple[str | int, ...], list[PromotedColumn]] = {}
        for column in columns:
            if column.complete:
                self._by_path.setdefault(column.path, []).append(column)
        self._parameters = parameters

    def condition(self, leaf: Leaf) -> str:
        """Return the condition of a comparison of a path of the payload. All of its literals have one type."""
        columns = self._by_path.get(leaf.field.path, [])
        if not columns:
            return json_condition(leaf, self._parameters)
        only = next((column for column in columns if column.only), None)
        if isinstance(leaf, IsNull | Exists):
            return self._is_there(leaf, only, columns)
        values = values_of(leaf)
        wanted = type(values[0]) if values else Text
        column = next((each for each in columns if _KINDS[each.kind] is wanted), None)
        if isinstance(leaf, Contains):
            return self._contains(leaf, column, only)
        if column is not None:
            return self._compare(leaf, column)
        # Where every value under the path has another type, the comparison is false.
        return "FALSE" if only is not None else json_condition(leaf, self._parameters)

    def _is_there(self, leaf: IsNull | Exists, only: PromotedColumn | None, columns: list[PromotedColumn]) -> str:
        wants_value = isinstance(leaf, Exists) or leaf.negated
        known = [only] if only is not None else columns
        if wants_value:
            conditions = [f"{promoted_sql(column)} IS NOT NULL" for column in known]
        else:
            conditions = [f"{promoted_sql(column)} IS NULL" for column in known]
        if only is None:
            conditions.append(json_condition(leaf, self._parameters))
        return f"({(' OR ' if wants_value else ' AND ').join(conditions)})"

    def _contains(self, leaf: Contains, column: PromotedColumn | None, only: PromotedColumn | None) -> str:
        """Look into strings by their column; arrays are in no column."""
        if column is None or column.kind != "string":
            return "FALSE" if only is not None else json_condition(leaf, self._parameters)
        name = promoted_sql(column)
        in_string = text_condition(name, leaf, self._parameters)
        if column.only:
            return in_string
        return f"CASE WHEN {name} IS NOT NULL THEN {in_string} ELSE {json_condition(leaf, self._parameters)} END"

    def _compare(self, leaf: Leaf, column: PromotedColumn) -> str:
        name = promoted_sql(column)
        if column.kind == "string":
            return text_condition(name, leaf, self._parameters)
        if column.kind == "boolean":
            return _boolean(name, leaf)
        numbers: NumberColumn
        if column.kind == "integer":
            numbers = IntegerColumn(name, BIGINT, self._parameters)
        else:
            numbers = DoubleColumn(name, self._parameters)
        return numbers.condition(leaf)


def _boolean(name: str, leaf: Leaf) -> str:
    if isinstance(leaf, Comparison):
        return f"{name} {SQL_OPERATORS[leaf.operator]} {_literal(leaf.value)}"
    negation = "NOT " if isinstance(leaf, In | Between) and leaf.negated else ""
    if isinstance(leaf, In):
        return f"{name} {negation}IN ({', '.join(map(_literal, leaf.values))})"
    assert isinstance(leaf, Between)
    return f"({name} {negation}BETWEEN {_literal(leaf.low)} AND {_literal(leaf.high)})"


def _literal(value: Value) -> str:
    assert isinstance(value, Boolean)
    return "TRUE" if value.value else "FALSE"
