"""Tests of one value against literals, compiled once to functions. Pure.

A test takes what was found: str, bool, int, Decimal, float, None, dict, list or MISSING, and tells
whether the comparison holds. What has another type than the literal gives False, also for `!=`.

A float stands for a number whose double it is. A test that cannot tell by it returns None, and is asked
again with the exact number.
"""

import operator
from collections.abc import Callable, Collection
from decimal import Decimal
from typing import Any, TypeAlias

from shared.filters.patterns import like_matcher
from shared.filters.regular_expressions import finder
from shared.filters.tree import (
    Between,
    Boolean,
    Comparison,
    Contains,
    In,
    Instant,
    Leaf,
    Like,
    Matches,
    Number,
    Operator,
    Text,
    Value,
)

Test: TypeAlias = Callable[[Any], bool | None]

_OPERATORS: dict[Operator, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBERS = frozenset({int, float, Decimal})


def test_of(leaf: Leaf) -> Test:
    """Return the test of any comparison but IS NULL and EXISTS. Of the whole payload it tests the compact text."""
    if isinstance(leaf, Comparison):
        return compare_test(leaf.operator, leaf.value)
    if isinstance(leaf, In):
        return _in_test(leaf.values, negated=leaf.negated)
    if isinstance(leaf, Between):
        return _between_test(leaf.low, leaf.high, negated=leaf.negated)
    if isinstance(leaf, Contains):
        return _contains_test(leaf.value, negated=leaf.negated)
    if isinstance(leaf, Like):
        return _text_test(like_matcher(leaf.pattern, ignore_case=leaf.ignore_case), negated=leaf.negated)
    assert isinstance(leaf, Matches)
    return _text_test(finder(leaf.pattern), negated=leaf.negated)


def compare_test(operation: Operator, value: Value) -> Test:
    """Return the test of a comparison. An Instant is compared with int, nanoseconds since the epoch."""
    holds = _OPERATORS[operation]
    if isinstance(value, Number):
        return _number_test(holds, value.value)
    wanted_type, wanted = _plain(value)
    return lambda found: type(found) is wanted_type and holds(found, wanted)


def _in_test(values: Collection[Value], *, negated: bool) -> Test:
    """Return the test of IN: it equals one of some literals. Negated: it has the type of one, and equals none."""
    numbers = {value.value for value in values if isinstance(value, Number)}
    doubles = {float(number) for number in numbers}
    others = {_plain(value) for value in values if not isinstance(value, Number)}
    types = {each for each, _ in others} | (_NUMBERS if numbers else set())

    def test(found: Any) -> bool | None:
        kind = type(found)
        if kind not in types:
            return False
        if kind is float:
            return None if found in doubles else negated
        # An int is a number or a time, which no field can both be compared with.
        return ((kind, found) in others or (kind in _NUMBERS and found in numbers)) is not negated

    return test


def _between_test(low: Value, high: Value, *, negated: bool) -> Test:
    """Return the test of BETWEEN two literals of the same type, both included."""
    if negated:
        below, above = compare_test("<", low), compare_test(">", high)
        return lambda found: _either(below(found), above(found))
    from_low, to_high = compare_test(">=", low), compare_test("<=", high)
    return lambda found: _both(from_low(found), to_high(found))


def _contains_test(value: Value, *, negated: bool) -> Test:
    """Return the test of CONTAINS: a string holds a string, or an array has an element that equals the literal."""
    equals = compare_test("=", value)
    text = value.value if isinstance(value, Text) else None

    def test(found: Any) -> bool | None:
        if type(found) is list:
            unknown = False
            for element in found:
                result = equals(element)
                if result:
                    return not negated
                unknown = unknown or result is None
            return None if unknown else negated
        return text is not None and type(found) is str and (text in found) is not negated

    return test


def _text_test(holds: Callable[[str], bool], *, negated: bool) -> Test:
    """Return the test that a string has a property."""
    if negated:
        return lambda found: type(found) is str and not holds(found)
    return lambda found: type(found) is str and holds(found)


def _number_test(holds: Callable[[Any, Any], bool], number: Decimal) -> Test:
    double = float(number)
    # Integers compare with each other ten times faster than with Decimals.
    whole = int(number) if abs(number) < 1 << 64 and number == number.to_integral_value() else number

    def test(found: Any) -> bool | None:
        kind = type(found)
        if kind is int:
            return holds(found, whole)
        if kind is float:
            # Rounding keeps the order, but may make equal what is not.
            return None if found == double else holds(found, double)
        return kind is Decimal and holds(found, number)

    return test


def _plain(value: Value) -> tuple[type, Any]:
    """Return the Python type and value of a literal that is no number."""
    if isinstance(value, Text):
        return str, value.value
    if isinstance(value, Boolean):
        return bool, value.value
    assert isinstance(value, Instant), "now() is resolved before"
    return int, value.ns


def _both(first: bool | None, second: bool | None) -> bool | None:  # noqa: FBT001 — results of tests
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def _either(first: bool | None, second: bool | None) -> bool | None:  # noqa: FBT001 — results of tests
    if first or second:
        return True
    return None if first is None or second is None else False
