"""Finds the bounds of a filter: those of its comparisons, joined as AND and OR join them. Pure.

A NOT bounds nothing, unless it turns into another comparison. A comparison of the payload bounds nothing.
"""

import functools
import operator
from collections.abc import Callable
from dataclasses import replace

from shared.filters.bounds import NOTHING, Bounds, TextSet, both, either
from shared.filters.fields import kind_of
from shared.filters.id_positions import about_positions
from shared.filters.intervals import EMPTY, UNBOUNDED, Interval, integers_that_are
from shared.filters.patterns import exact_text, literal_prefix
from shared.filters.resolution import push_not_down
from shared.filters.tree import (
    And,
    Between,
    Comparison,
    Everything,
    Exists,
    FieldName,
    In,
    Instant,
    IsNull,
    Leaf,
    Like,
    Not,
    Number,
    Operator,
    Or,
    Text,
    Tree,
    Value,
    uses_now,
)


def extract_bounds(tree: Tree, log_id: str) -> Bounds:
    """Return the bounds of a tree without now(), for the events of the log of this id."""
    assert not uses_now(tree), "resolve_now comes first"
    return _bounds(push_not_down(tree), log_id)


def _bounds(tree: Tree, log_id: str) -> Bounds:
    if isinstance(tree, And | Or):
        parts = [_bounds(operand, log_id) for operand in tree.operands]
        return functools.reduce(both if isinstance(tree, And) else either, parts)
    if isinstance(tree, Not):
        return NOTHING if tree.operand == Everything() else Bounds()
    return Bounds() if isinstance(tree, Everything) else _leaf(tree, log_id)


def _leaf(leaf: Leaf, log_id: str) -> Bounds:
    kind = kind_of(leaf.field)
    name = leaf.field.name
    if isinstance(leaf, Exists | IsNull) or kind in {"value", "payload", "tags"}:
        return Bounds()
    if kind == "time":
        interval = _interval(leaf, _time_bounds)
        return Bounds(timestamp=interval) if name == "timestamp" else Bounds(recorded_at=interval)
    if kind == "integer":
        return Bounds(position=_interval(leaf, _number_bounds))
    if name == "id":
        return _id(leaf, log_id)
    texts = _texts(leaf)
    if texts is None:
        return Bounds()
    return _text_bounds(name, texts)


def _text_bounds(name: FieldName, texts: TextSet) -> Bounds:
    if name == "type":
        return Bounds(types=texts)
    if name == "source":
        return Bounds(sources=texts)
    if texts.prefixes:
        return Bounds()
    if name == "correlation_id":
        return Bounds(correlation_ids=texts.values)
    if name == "metadata.session_id":
        return Bounds(session_ids=texts.values)
    return Bounds(users=texts.values) if name == "metadata.user" else Bounds()


def _interval(leaf: Leaf, bounds_of: Callable[[Operator, Value], Interval]) -> Interval:
    """Return the interval of a comparison of integers or times."""
    if isinstance(leaf, Comparison):
        return bounds_of(leaf.operator, leaf.value)
    if isinstance(leaf, In) and not leaf.negated:
        return functools.reduce(operator.or_, (bounds_of("=", value) for value in leaf.values))
    if isinstance(leaf, Between) and not leaf.negated:
        return bounds_of(">=", leaf.low) & bounds_of("<=", leaf.high)
    return UNBOUNDED


def _time_bounds(operation: Operator, value: Value) -> Interval:
    assert isinstance(value, Instant), "the checks let nothing else pass"
    return integers_that_are(operation, value.ns)


def _number_bounds(operation: Operator, value: Value) -> Interval:
    return integers_that_are(operation, value.value) if isinstance(value, Number) else EMPTY


def _id(leaf: Leaf, log_id: str) -> Bounds:
    by_position = about_positions(leaf, log_id)
    position = Bounds() if by_position is None else _leaf(by_position, log_id)
    texts = _texts(leaf)
    return position if texts is None or texts.prefixes else replace(position, ids=texts.values)


def _texts(leaf: Leaf) -> TextSet | None:
    """Return the texts for which a comparison of a string can hold, None if that is not known."""
    if isinstance(leaf, Comparison):
        if not isinstance(leaf.value, Text):
            return TextSet()
        return TextSet(frozenset({leaf.value.value})) if leaf.operator == "=" else None
    if isinstance(leaf, In):
        texts = frozenset(value.value for value in leaf.values if isinstance(value, Text))
        return None if leaf.negated and texts else TextSet(texts)
    if isinstance(leaf, Like) and not leaf.negated and not leaf.ignore_case:
        if (text := exact_text(leaf.pattern)) is not None:
            return TextSet(frozenset({text}))
        prefix = literal_prefix(leaf.pattern)
        return TextSet(prefixes=frozenset({prefix})) if prefix else None
    return None
