"""Filters over batches of live events: for each row at once whether the filter holds. Pure.

A comparison of an event's field is made once for each distinct value in the batch, a number in the payload is compared
as a column; payloads are read once for all filters that look at the same `EventBatch`.

Invariant: the mask says of each row what the predicate of the same tree says of the event.
"""

import operator
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from shared.filters.event_batch import EventBatch, Mask
from shared.filters.fields import kind_of
from shared.filters.payload_document import MISSING, walk
from shared.filters.predicate import test_of
from shared.filters.regular_expressions import finder
from shared.filters.resolution import resolve_now
from shared.filters.tree import (
    And,
    Comparison,
    Contains,
    Everything,
    Exists,
    In,
    IsNull,
    Leaf,
    Matches,
    Not,
    Number,
    Operator,
    Or,
    Text,
    Tree,
    leaves,
    uses_now,
)

_Masker: TypeAlias = Callable[[EventBatch], Mask]

_OPERATORS: dict[Operator, Callable[..., Mask]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class BatchFilter:
    """A filter, compiled once; now() is asked for each batch. Several threads may use it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._uses_now = uses_now(tree)
        self._masker = None if self._uses_now else _compile(tree)

    def mask(self, events: EventBatch, *, now_ns: int) -> Mask:
        """Return whether the filter holds, one for each row. now_ns: what now() means."""
        masker = self._masker or _compile(resolve_now(self._tree, now_ns))
        return masker(events)


def _compile(tree: Tree) -> _Masker:
    if isinstance(tree, And | Or):
        # What is cheap goes first: it may decide all rows.
        operands = [_compile(operand) for operand in sorted(tree.operands, key=_reads_payload)]
        return _all(operands) if isinstance(tree, And) else _any(operands)
    if isinstance(tree, Not):
        masker = _compile(tree.operand)
        return lambda events: ~masker(events)
    if isinstance(tree, Everything):
        return lambda events: np.ones(len(events), np.bool_)
    kind = kind_of(tree.field)
    if kind == "payload":
        return _whole_payload(tree)
    return _payload_value(tree) if kind == "value" else _column(tree)


def _reads_payload(tree: Tree) -> bool:
    return any(leaf.field.name == "payload" for leaf in leaves(tree))


def _all(operands: list[_Masker]) -> _Masker:
    def mask(events: EventBatch) -> Mask:
        found = operands[0](events)
        for operand in operands[1:]:
            if not found.any():
                break
            found = found & operand(events)
        return found

    return mask


def _any(operands: list[_Masker]) -> _Masker:
    def mask(events: EventBatch) -> Mask:
        found = operands[0](events)
        for operand in operands[1:]:
            if found.all():
                break
            found = found | operand(events)
        return found

    return mask


def _column(leaf: Leaf) -> _Masker:
    """Compile a comparison of a field outside of the payload."""
    if isinstance(leaf, Exists | IsNull):
        wanted = isinstance(leaf, Exists) or leaf.negated
        return lambda events: _by_value(events, leaf, lambda value: (value is not None) is wanted)
    texts = _looked_up(leaf)
    if texts is not None:
        return lambda events: _is_one_of(events, leaf, texts)
    test = test_of(leaf)
    return lambda events: _by_value(events, leaf, lambda value: bool(test(value)))


def _looked_up(leaf: Leaf) -> list[str] | None:
    """Return the texts of which a column must have one, None if the comparison is another."""
    if kind_of(leaf.field) != "text" or leaf.field.name == "id":
        return None
    if isinstance(leaf, Comparison) and leaf.operator == "=":
        return [leaf.value.value] if isinstance(leaf.value, Text) else []
    if isinstance(leaf, In) and not leaf.negated:
        return [value.value for value in leaf.values if isinstance(value, Text)]
    return None


def _is_one_of(events: EventBatch, leaf: Leaf, texts: list[str]) -> Mask:
    values = events.column(leaf.field)
    places = [values.places[text] for text in texts if text in values.places]
    if len(places) == 1:
        found: Mask = values.codes == places[0]
        return found
    return np.isin(values.codes, places)


def _by_value(events: EventBatch, leaf: Leaf, holds: Callable[[object], bool]) -> Mask:
    values = events.column(leaf.field)
    return np.array([holds(value) for value in values.distinct], np.bool_)[values.codes]


def _payload_value(leaf: Leaf) -> _Masker:
    """Compile a comparison of a value inside of the payload."""
    path = leaf.field.path
    if isinstance(leaf, Exists):
        return lambda events: _mask(value is not MISSING for value in events.path(path))
    if isinstance(leaf, IsNull):
        wanted = not leaf.negated
        return lambda events: _mask((value is None or value is MISSING) is wanted for value in events.path(path))
    if isinstance(leaf, Comparison) and isinstance(leaf.value, Number):
        return _number(leaf, leaf.operator, leaf.value)
    return lambda events: _exactly(events, leaf, range(len(events)))


def _number(leaf: Leaf, operation: Operator, number: Number) -> _Masker:
    """Compare doubles: rounding keeps the order. Where they are equal, the exact numbers decide."""
    double = float(number.value)
    holds = _OPERATORS[operation]

    def mask(events: EventBatch) -> Mask:
        numbers = events.numbers(leaf.field.path)
        found = holds(numbers, double) & ~np.isnan(numbers)
        equal = np.flatnonzero(numbers == double)
        if len(equal):
            found[equal] = _exactly(events, leaf, equal.tolist())
        return found

    return mask


def _exactly(events: EventBatch, leaf: Leaf, rows: range | list[int]) -> Mask:
    """Test what lies under the path of the payload in some rows."""
    test, path = test_of(leaf), leaf.field.path
    values, documents = events.path(path), events.documents

    def holds(row: int) -> bool:
        result = test(values[row])
        return bool(test(walk(documents[row].exact, path))) if result is None else result

    return np.array([holds(row) for row in rows], np.bool_)


def _whole_payload(leaf: Leaf) -> _Masker:
    """Compile a comparison of the payload's text."""
    if isinstance(leaf, Exists | IsNull):
        always = isinstance(leaf, Exists) or leaf.negated
        return lambda events: np.full(len(events), always)
    if isinstance(leaf, Matches):
        find, wanted = finder(leaf.pattern), not leaf.negated
        return lambda events: _mask(find(document.compact) is wanted for document in events.documents)
    assert isinstance(leaf, Contains)
    assert isinstance(leaf.value, Text), "the checks let no other literal pass"
    text, contained = leaf.value.value, not leaf.negated
    return lambda events: _mask((text in document.compact) is contained for document in events.documents)


def _mask(holds: Iterable[bool]) -> Mask:
    return np.fromiter(holds, np.bool_)
