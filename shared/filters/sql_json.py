"""Comparisons of values inside the payload as SQL conditions on its JSON text. Pure.

A condition is TRUE or FALSE, never NULL. The text is parsed once: what lies under the path goes into a
lambda, whose condition is TRUE, FALSE, or NULL where DuckDB's functions cannot tell:
- a number whose double is the literal's: its own digits decide;
- a payload that DuckDB does not parse, such as one with half a surrogate pair.
Only for those rows a Python function looks at the payload (`sql_functions`).
"""

from collections.abc import Sequence

from shared.filters.printer import print_filter
from shared.filters.sql_json_numbers import json_number_condition, result_of_short_numbers, whole_number_text
from shared.filters.sql_parameters import HOLDS_FUNCTION, Parameters
from shared.filters.sql_text import SQL_OPERATORS, is_portable_leaf, text_condition_once
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
    values_of,
)
from shared.filters.value_tests import test_of
from shared.log.json_path import duckdb_path

_VALUE = "eventlog_value"
# Its JSON text, NULL if there is nothing.
_TEXT = f"{_VALUE}::VARCHAR"
_UNQUOTED = f"({_VALUE}->>'$')"
_IS_STRING = f"""starts_with({_TEXT}, '"')"""
_IS_ARRAY = f"starts_with({_TEXT}, '[')"
_ELEMENTS = f"json_extract({_VALUE}, '$[*]')::VARCHAR[]"

# In a payload without it, each number has the value of its double's shortest text.
_LONG_NUMBER = r"[0-9.]{16}|[0-9][eE][-+]?[0-9]{3}"


def json_condition(leaf: Leaf, parameters: Parameters) -> str:
    """Return the condition of a comparison of a path of the payload. All of its literals have one type."""
    expression = path_expression(leaf.field.path)
    ask_python = f"{HOLDS_FUNCTION}(payload, {parameters.text(print_filter(leaf))})"
    if expression is None or not is_portable_leaf(leaf):
        return ask_python
    found = f"TRY(json_extract(payload, [{parameters.text(expression)}]))"
    condition = _value_condition(leaf, parameters)
    return f"COALESCE(list_transform({found}, lambda {_VALUE}: {condition})[1], {_otherwise(leaf, ask_python)})"


def path_expression(path: Sequence[str | int]) -> str | None:
    """Return the expression for json_extract, None if DuckDB has none that finds exactly this path."""
    keys = tuple(segment for segment in path if isinstance(segment, str))
    expression = duckdb_path(keys)
    if len(keys) == len(path) or expression is None:
        return expression
    # A pointer would take the index for a key, too.
    if not expression.startswith("$"):
        return None
    return "$" + "".join(f'."{segment}"' if isinstance(segment, str) else f"[{segment}]" for segment in path)


def _value_condition(leaf: Leaf, parameters: Parameters) -> str:  # noqa: PLR0911 — one for each kind of node
    """Return the condition of the lambda. It is FALSE where there is nothing, for IS NULL and EXISTS as they say."""
    if isinstance(leaf, Exists):
        return f"{_VALUE} IS NOT NULL"
    if isinstance(leaf, IsNull):
        return f"COALESCE({_TEXT} <> 'null', FALSE)" if leaf.negated else f"COALESCE({_TEXT} = 'null', TRUE)"
    if isinstance(leaf, Contains):
        return _contains(leaf, parameters)
    if isinstance(leaf, Comparison | In | Between):
        kind = type(values_of(leaf)[0])
        if kind is Number:
            return json_number_condition(_TEXT, leaf, parameters)
        if kind is Boolean:
            return _boolean(leaf)
        if (quick := _equals_text(leaf, parameters)) is not None:
            return quick
    return f"CASE WHEN {_IS_STRING} THEN {text_condition_once(_UNQUOTED, leaf, parameters)} ELSE FALSE END"


def _equals_text(leaf: Comparison | In | Between, parameters: Parameters) -> str | None:
    """Return the condition of = and IN for strings, which need not be unescaped; None for another."""
    if isinstance(leaf, Between) or (isinstance(leaf, Comparison) and leaf.operator not in {"=", "!="}):
        return None
    texts = [parameters.json_string(value.value) for value in values_of(leaf) if isinstance(value, Text)]
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    if isinstance(leaf, In):
        equal, negated = f"{_TEXT} {'NOT ' if leaf.negated else ''}IN ({', '.join(known)})", leaf.negated
    else:
        equal, negated = f"{_TEXT} {SQL_OPERATORS[leaf.operator]} {known[0]}", leaf.operator == "!="
    condition = f"{_IS_STRING} AND {equal}" if negated else equal
    return f"COALESCE({condition}, FALSE)"


def _boolean(leaf: Comparison | In | Between) -> str:
    """Return the condition of a comparison with TRUE or FALSE: it names the values for which it holds."""
    test = test_of(leaf)
    holding = [text for text, value in (("'true'", True), ("'false'", False)) if test(value)]
    return f"COALESCE({_TEXT} IN ({', '.join(holding)}), FALSE)" if holding else "FALSE"


def _contains(leaf: Contains, parameters: Parameters) -> str:
    yes, no = ("FALSE", "TRUE") if leaf.negated else ("TRUE", "FALSE")
    value = leaf.value
    if isinstance(value, Number):
        literal = parameters.double(float(value.value))
        same_double = f"list_contains(TRY_CAST({_ELEMENTS} AS DOUBLE[]), {literal})"
        whole = whole_number_text(value.value)
        same = f"WHEN list_contains({_ELEMENTS}, {parameters.text(whole)}) THEN {yes}" if whole is not None else ""
        return f"CASE WHEN {_IS_ARRAY} THEN CASE {same} WHEN {same_double} THEN NULL ELSE {no} END ELSE FALSE END"
    if isinstance(value, Boolean):
        has = f"list_contains({_ELEMENTS}, {'true' if value.value else 'false'!r})"
        return f"CASE WHEN {_IS_ARRAY} THEN CASE WHEN {has} THEN {yes} ELSE {no} END ELSE FALSE END"
    assert isinstance(value, Text), "the checks let no time pass"
    quoted = parameters.json_string(value.value)
    # No other element than a string has control characters in its text.
    elements = _ELEMENTS if quoted is not None else f"json_extract_string({_VALUE}, '$[*]')"
    has = f"list_contains({elements}, {quoted or parameters.text(value.value)})"
    in_array = f"WHEN {_IS_ARRAY} THEN CASE WHEN {has} THEN {yes} ELSE {no} END"
    in_string = f"WHEN {_IS_STRING} THEN {text_condition_once(_UNQUOTED, leaf, parameters)}"
    return f"CASE {in_string} {in_array} ELSE FALSE END"


def _otherwise(leaf: Leaf, ask_python: str) -> str:
    """Return the condition for rows where the lambda's is NULL."""
    if not isinstance(leaf, Comparison | In | Between) or not isinstance(values_of(leaf)[0], Number):
        return ask_python
    result = result_of_short_numbers(leaf)
    if result is None:
        return ask_python
    doubtful = f"regexp_matches(payload, '{_LONG_NUMBER}') OR NOT json_valid(payload)"
    return f"CASE WHEN {doubtful} THEN {ask_python} ELSE {'TRUE' if result else 'FALSE'} END"
