"""Finds the bounds of a filter: those of its comparisons, joined as AND and OR join them. Pure.

A NOT bounds nothing, unless it turns into another comparison. A comparison of the payload bounds nothing.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

from shared.filters.bounds import NOTHING, Bounds, Interval, TextSet, both, either
from shared.filters.fields import kind_of
from shared.filters.id_positions import about_positions
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

_NO_INTEGER = Interval(1, 0)


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
        return functools.reduce(_hull, (bounds_of("=", value) for value in leaf.values))
    if isinstance(leaf, Between) and not leaf.negated:
        return bounds_of(">=", leaf.low) & bounds_of("<=", leaf.high)
    return Interval()


def _hull(first: Interval, second: Interval) -> Interval:
    if first.is_empty or second.is_empty:
        return second if first.is_empty else first
    return first | second


def _time_bounds(operator: Operator, value: Value) -> Interval:
    assert isinstance(value, Instant), "the checks let nothing else pass"
    return _integer_bounds(operator, value.ns, is_whole=True)


def _number_bounds(operator: Operator, value: Value) -> Interval:
    if not isinstance(value, Number):
        return _NO_INTEGER
    number = value.value
    floor = int(number) - (1 if number < int(number) else 0)
    return _integer_bounds(operator, floor, is_whole=number == floor)


def _integer_bounds(operator: Operator, floor: int, *, is_whole: bool) -> Interval:
    """Return the integers that compare with a number, of which the integer at or below it is given."""
    if operator == "!=":
        return Interval()
    if operator == "=":
        return Interval(floor, floor) if is_whole else _NO_INTEGER
    if operator in {"<", "<="}:
        return Interval(None, floor - 1 if operator == "<" and is_whole else floor)
    return Interval(floor if operator == ">=" and is_whole else floor + 1, None)


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
