"""Comparisons of the numbers in JSON text with literals, as SQL conditions of three values. Pure.

DuckDB reads numbers with a point or an exponent as doubles, and gives the shortest text of each; integers
it gives exactly. Rounding keeps the order of numbers, so a double that differs from the literal's tells
the truth. Where both are equal, the condition is NULL: the payload's own text must tell.
"""

from collections.abc import Sequence
from decimal import Decimal

from shared.filters.sql_numbers import HUGEINT, IntegerColumn, shortest
from shared.filters.sql_parameters import Parameters
from shared.filters.tree import Between, Comparison, In, Number, Operator, values_of
from shared.filters.value_tests import compare_test, test_of

NumberLeaf = Comparison | In | Between

# Below, an integer that rounds to a double is that double.
_EXACT_INTEGER_MAX = 2**53
_INTEGER = "'-?[0-9]+'"


def json_number_condition(text: str, leaf: NumberLeaf, parameters: Parameters) -> str:
    """Return the condition on a JSON text, all of whose literals are numbers.

    TRUE, FALSE, or NULL where only the payload's text can tell. FALSE where the text is NULL.
    """
    if isinstance(leaf, Comparison):
        assert isinstance(leaf.value, Number)
        return _compare(text, leaf.operator, leaf.value.value, parameters)
    if isinstance(leaf, In):
        return _is_in(text, _numbers(leaf), parameters, negated=leaf.negated)
    low, high = _numbers(leaf)
    if leaf.negated:
        return f"({_compare(text, '<', low, parameters)} OR {_compare(text, '>', high, parameters)})"
    return f"({_compare(text, '>=', low, parameters)} AND {_compare(text, '<=', high, parameters)})"


def result_of_short_numbers(leaf: NumberLeaf) -> bool | None:
    """Return what holds where the condition is NULL, and the number has the value of its double's shortest text.

    None if that differs from one literal to the other.
    """
    test = test_of(leaf)
    results = {bool(test(shortest(float(number)))) for number in _numbers(leaf)}
    return results.pop() if len(results) == 1 else None


def whole_number_text(number: Decimal) -> str | None:
    """Return the JSON text of a whole number of up to 38 digits, None for another."""
    return str(int(number)) if HUGEINT.low <= number <= HUGEINT.high and number == int(number) else None


def _compare(text: str, operation: Operator, number: Decimal, parameters: Parameters) -> str:
    double = float(number)
    found, literal = f"TRY_CAST({text} AS DOUBLE)", parameters.double(double)
    equal = f"WHEN {found} = {literal} THEN {_tie(text, operation, number, parameters)}"
    if operation == "=":
        return f"CASE {equal} ELSE FALSE END"
    if operation == "!=":
        return f"CASE {equal} WHEN {found} IS NOT NULL THEN TRUE ELSE FALSE END"
    return f"CASE WHEN {found} {operation[0]} {literal} THEN TRUE {equal} ELSE FALSE END"


def _tie(text: str, operation: Operator, number: Decimal, parameters: Parameters) -> str:
    """Return the condition for a text whose double is the literal's."""
    double = float(number)
    if abs(double) < _EXACT_INTEGER_MAX:
        # Where the double is no integer, no integer is equal to it.
        holds = compare_test(operation, Number(number))(Decimal(int(double)))
        integers = "TRUE" if holds else "FALSE"
    elif HUGEINT.low < number < HUGEINT.high:
        integers = IntegerColumn(f"TRY_CAST({text} AS HUGEINT)", HUGEINT, parameters).compare(operation, number)
    else:
        return "NULL"
    return f"CASE WHEN regexp_full_match({text}, {_INTEGER}) THEN {integers} END"


def _is_in(text: str, numbers: Sequence[Decimal], parameters: Parameters, *, negated: bool) -> str:
    yes, no = ("FALSE", "TRUE") if negated else ("TRUE", "FALSE")
    found = f"TRY_CAST({text} AS DOUBLE)"
    doubles = ", ".join(parameters.double(double) for double in dict.fromkeys(map(float, numbers)))
    integers = [integer for number in numbers if (integer := whole_number_text(number)) is not None]
    whole = f"WHEN {text} IN ({', '.join(map(parameters.text, integers))}) THEN {yes}" if integers else ""
    # An integer that is none of the texts is none of the numbers, unless some are too large to have a text.
    all_small = all(HUGEINT.low <= number <= HUGEINT.high for number in numbers)
    tie = f"CASE WHEN regexp_full_match({text}, {_INTEGER}) THEN {no if all_small else 'NULL'} END"
    return f"CASE WHEN {found} IS NULL THEN FALSE {whole} WHEN {found} IN ({doubles}) THEN {tie} ELSE {no} END"


def _numbers(leaf: NumberLeaf) -> list[Decimal]:
    return [value.value for value in values_of(leaf) if isinstance(value, Number)]
