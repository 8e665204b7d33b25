"""Trees brought into the form that evaluation and planning want. Pure.

Invariant: what comes out holds for exactly the same events.
"""

from dataclasses import replace
from typing import Any

from shared.events.timestamps import NANOSECONDS_MAX, NANOSECONDS_MIN
from shared.filters.fields import kind_of, may_be_missing
from shared.filters.tree import (
    And,
    Between,
    Comparison,
    Everything,
    Exists,
    In,
    Instant,
    IsNull,
    Leaf,
    Not,
    Now,
    Number,
    Operator,
    Or,
    Text,
    Tree,
    Value,
    values_of,
)

_OPPOSITES: dict[Operator, Operator] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}

# The literals that each kind of field compares with; tags compare with all of them.
_TYPES: dict[str, Any] = {"text": Text, "payload": Text, "integer": Number, "time": Instant | Now}


def resolve_now(tree: Tree, now_ns: int) -> Tree:
    """Put a time, in nanoseconds since the epoch, in the place of now()."""
    if isinstance(tree, And | Or):
        return type(tree)(tuple(resolve_now(operand, now_ns) for operand in tree.operands))
    if isinstance(tree, Not):
        return Not(resolve_now(tree.operand, now_ns))
    if isinstance(tree, Comparison):
        return replace(tree, value=_resolved(tree.value, now_ns))
    if isinstance(tree, In):
        return replace(tree, values=tuple(_resolved(value, now_ns) for value in tree.values))
    if isinstance(tree, Between):
        return replace(tree, low=_resolved(tree.low, now_ns), high=_resolved(tree.high, now_ns))
    return tree


def push_not_down(tree: Tree, *, negated: bool = False) -> Tree:
    """Leave Not before comparisons only, and there only where the opposite operator would mean something else.

    Holds for the events of the log, which all have a type, a source, times and the like.
    """
    if isinstance(tree, Not):
        return push_not_down(tree.operand, negated=not negated)
    if isinstance(tree, And | Or):
        operands = tuple(push_not_down(operand, negated=negated) for operand in tree.operands)
        return (Or if isinstance(tree, And) == negated else And)(operands)
    if not negated:
        return tree
    return Not(tree) if isinstance(tree, Everything) else _opposite(tree)


def _opposite(leaf: Leaf) -> Tree:
    if isinstance(leaf, IsNull):
        return replace(leaf, negated=not leaf.negated)
    if isinstance(leaf, Exists) or may_be_missing(leaf.field) or not _compares(leaf):
        return Not(leaf)
    if isinstance(leaf, Comparison):
        return replace(leaf, operator=_OPPOSITES[leaf.operator])
    return replace(leaf, negated=not leaf.negated)


def _compares(leaf: Leaf) -> bool:
    """Return whether a literal has the type of a field that is never missing: if not, all comparisons are false."""
    wanted = _TYPES.get(kind_of(leaf.field))
    values = values_of(leaf)
    return wanted is None or not values or any(isinstance(value, wanted) for value in values)


def _resolved(value: Value, now_ns: int) -> Value:
    if not isinstance(value, Now):
        return value
    return Instant(min(max(now_ns + value.offset_ns, NANOSECONDS_MIN), NANOSECONDS_MAX))
