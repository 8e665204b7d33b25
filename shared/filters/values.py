"""Comparing one value with literals, as functions compiled once. Pure.

A test takes a value: str, bool, int, Decimal, float, None, dict, list or MISSING, and tells whether the
comparison holds. A value of another type than the literal's gives False, also for `!=`.

A float is a double next to a number whose exact value is not at hand. A test that cannot tell by it
returns None; it is asked again with the exact value.
"""

import math
import operator
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, TypeAlias

from shared.filters.tree import Boolean, Instant, Now, Number, Operator, Text, Value

Test: TypeAlias = Callable[[Any], bool | None]

_OPERATORS: dict[Operator, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare_test(operation: Operator, value: Value) -> Test:
    """Return the test of one comparison. An Instant compares with nanoseconds."""
    holds = _OPERATORS[operation]
    if isinstance(value, Number):
        return _number_test(operation, value.value)
    assert not isinstance(value, Now), "now() is resolved before"
    wanted_type = {Text: str, Boolean: bool, Instant: int}[type(value)]
    wanted = value.ns if isinstance(value, Instant) else value.value
    return lambda found: type(found) is wanted_type and holds(found, wanted)
