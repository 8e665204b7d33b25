"""Prints a tree as an expression. Pure.

Invariants:
- The parser reads what is printed as the same tree, if it is within the limits.
- Equal trees print alike, so that what is printed can stand for the tree.
"""

from decimal import Decimal

from shared.events.timestamps import format_timestamp
from shared.filters.durations import format_duration
from shared.filters.fields import print_field
from shared.filters.tree import (
    And,
    Between,
    Boolean,
    Comparison,
    Contains,
    Everything,
    Exists,
    In,
    Instant,
    IsNull,
    Like,
    Matches,
    Not,
    Number,
    Or,
    Text,
    Tree,
    Value,
)

# Numbers with exponents up to here are printed without one.
_PLAIN_EXPONENT_MAX = 30


def print_filter(tree: Tree) -> str:
    """Return the expression of a tree; "" for the one that holds for every event."""
    return "" if tree == Everything() else _print(tree)


def print_value(value: Value) -> str:
    """Return the text of a literal."""
    if isinstance(value, Text):
        return _quote(value.value)
    if isinstance(value, Number):
        return _number(value.value)
    if isinstance(value, Boolean):
        return "TRUE" if value.value else "FALSE"
    if isinstance(value, Instant):
        return f"'{format_timestamp(value.ns)}'"
    if value.offset_ns == 0:
        return "now()"
    return f"now() {'-' if value.offset_ns < 0 else '+'} {format_duration(abs(value.offset_ns))}"


def _print(tree: Tree) -> str:  # noqa: PLR0911 — one for each kind of node
    if isinstance(tree, Or):
        return " OR ".join(f"({_print(each)})" if isinstance(each, Or) else _print(each) for each in tree.operands)
    if isinstance(tree, And):
        return " AND ".join(_print_operand(each) for each in tree.operands)
    if isinstance(tree, Not):
        return f"NOT {_print_operand(tree.operand)}"
    assert not isinstance(tree, Everything), "only the whole filter can be empty"
    field = print_field(tree.field)
    if isinstance(tree, Exists):
        return f"EXISTS {field}"
    if isinstance(tree, Comparison):
        return f"{field} {tree.operator} {print_value(tree.value)}"
    if isinstance(tree, IsNull):
        return f"{field} IS{' NOT' if tree.negated else ''} NULL"
    return f"{field}{' NOT' if tree.negated else ''} {_print_condition(tree)}"


def _print_operand(tree: Tree) -> str:
    return f"({_print(tree)})" if isinstance(tree, And | Or) else _print(tree)


def _print_condition(tree: Like | Contains | Matches | In | Between) -> str:
    """Return the operator that NOT can stand before, and what follows it."""
    if isinstance(tree, Like):
        return f"{'ILIKE' if tree.ignore_case else 'LIKE'} {_quote(tree.pattern)}"
    if isinstance(tree, Contains):
        return f"CONTAINS {print_value(tree.value)}"
    if isinstance(tree, Matches):
        return f"MATCHES {_quote(tree.pattern)}"
    if isinstance(tree, In):
        return f"IN ({', '.join(map(print_value, tree.values))})"
    return f"BETWEEN {print_value(tree.low)} AND {print_value(tree.high)}"


def _quote(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _number(value: Decimal) -> str:
    """Return the shortest text of a number: equal ones print alike, whatever their zeros."""
    if value == 0:
        return "0"
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int), "literals are finite"
    zeros = len(digits) - len("".join(map(str, digits)).rstrip("0"))
    shortest = Decimal((sign, digits[: len(digits) - zeros], exponent + zeros))
    return format(shortest, "f") if abs(shortest.adjusted()) <= _PLAIN_EXPONENT_MAX else f"{shortest:E}"
