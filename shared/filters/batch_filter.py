"""Filters over batches of live events: for each row at once whether the filter holds. Pure.

Columns are compared as wholes, or once for each distinct value; what lies in the payload is read only for the rows
that the rest of the filter has not decided. Both are done once for all filters that look at the same `EventBatch`.

Invariant: the mask says of each row what the predicate of the same tree says of the event.
"""

import operator
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from shared.filters.event_batch import EventBatch, Mask
from shared.filters.fields import kind_of
from shared.filters.intervals import Interval, integers_that_are
from shared.filters.payload_document import MISSING, walk
from shared.filters.resolution import resolve_now
from shared.filters.tree import (
    And,
    Between,
    Comparison,
    Contains,
    Everything,
    Exists,
    Instant,
    IsNull,
    Leaf,
    Like,
    Matches,
    Not,
    Number,
    Operator,
    Or,
    Tree,
    leaves,
    uses_now,
    values_of,
)
from shared.filters.value_masks import by_value, comparer, looked_up_texts, text_search
from shared.filters.value_tests import test_of

# Says for which of the wanted rows a filter holds. What it says of other rows means nothing.
_Masker: TypeAlias = Callable[[EventBatch, Mask], Mask]

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
        self._masker = None if uses_now(tree) else _compile(tree)

    def mask(self, events: EventBatch, *, now_ns: int) -> Mask:
        """Return whether the filter holds, one for each row. now_ns: what now() means."""
        masker = self._masker or _compile(resolve_now(self._tree, now_ns))
        return masker(events, np.ones(len(events), np.bool_))


def _compile(tree: Tree) -> _Masker:
    if isinstance(tree, And | Or):
        # What is cheap goes first: it may decide all rows.
        operands = [_compile(operand) for operand in sorted(tree.operands, key=_reads_payload)]
        return _all(operands) if isinstance(tree, And) else _any(operands)
    if isinstance(tree, Not):
        masker = _compile(tree.operand)
        return lambda events, wanted: ~masker(events, wanted)
    if isinstance(tree, Everything):
        return lambda _events, wanted: wanted
    kind = kind_of(tree.field)
    if kind == "payload":
        return _whole_payload(tree)
    if kind == "value":
        return _payload_value(tree)
    compare = _column(tree)
    return lambda events, _: events.mask_of(tree, compare)


def _reads_payload(tree: Tree) -> bool:
    return any(leaf.field.name == "payload" for leaf in leaves(tree))


def _all(operands: list[_Masker]) -> _Masker:
    def mask(events: EventBatch, wanted: Mask) -> Mask:
        for operand in operands:
            if not wanted.any():
                break
            wanted = wanted & operand(events, wanted)
        return wanted

    return mask


def _any(operands: list[_Masker]) -> _Masker:
    def mask(events: EventBatch, wanted: Mask) -> Mask:
        undecided = wanted
        for operand in operands:
            if not undecided.any():
                break
            undecided = undecided & ~operand(events, undecided)
        return wanted & ~undecided

    return mask


def _column(leaf: Leaf) -> Callable[[EventBatch], Mask]:
    """Compile a comparison of a field outside of the payload, for every row."""
    if isinstance(leaf, Exists | IsNull):
        wants_value = isinstance(leaf, Exists) or leaf.negated
        return lambda events: by_value(events.values(leaf.field), lambda value: (value is not None) is wants_value)
    if kind_of(leaf.field) in {"integer", "time"} and isinstance(leaf, Comparison | Between):
        return _integers(leaf)
    compare = comparer(leaf)
    return lambda events: compare(events.values(leaf.field))


def _integers(leaf: Comparison | Between) -> Callable[[EventBatch], Mask]:
    """Compare integers or times with the bounds of those that the comparison holds for."""
    numbers = [_number_of(value) for value in values_of(leaf) if isinstance(value, Number | Instant)]
    if not numbers:
        return lambda events: np.zeros(len(events), np.bool_)
    if isinstance(leaf, Between):
        negated = leaf.negated
        interval = integers_that_are(">=", numbers[0]) & integers_that_are("<=", numbers[1])
    else:
        negated = leaf.operator == "!="
        interval = integers_that_are("=" if negated else leaf.operator, numbers[0])
    if negated:
        return lambda events: ~_is_within(events.integers(leaf.field), interval)
    return lambda events: _is_within(events.integers(leaf.field), interval)


def _number_of(value: Number | Instant) -> Decimal | int:
    return value.ns if isinstance(value, Instant) else value.value


def _is_within(integers: npt.NDArray[Any], interval: Interval) -> Mask:
    found: Mask = np.ones(len(integers), np.bool_)
    if interval.first is not None:
        found &= integers >= interval.first
    if interval.last is not None:
        found &= integers <= interval.last
    return found


def _payload_value(leaf: Leaf) -> _Masker:
    """Compile a comparison of a value inside of the payload."""
    path = leaf.field.path
    if isinstance(leaf, Exists):
        return lambda events, wanted: by_value(events.path_values(path, wanted), lambda value: value is not MISSING)
    if isinstance(leaf, IsNull):
        return lambda events, wanted: by_value(
            events.path_values(path, wanted), lambda value: (value is None or value is MISSING) is not leaf.negated
        )
    if isinstance(leaf, Comparison) and isinstance(leaf.value, Number):
        return _number(leaf, leaf.operator, leaf.value)
    if isinstance(leaf, Between) and isinstance(leaf.low, Number):
        return _compile(_as_comparisons(leaf))
    if isinstance(leaf, Like | Matches) or looked_up_texts(leaf) is not None:
        compare = comparer(leaf)
        return lambda events, wanted: compare(events.path_values(path, wanted))
    holds = _exact_test(leaf)

    def mask(events: EventBatch, wanted: Mask) -> Mask:
        values = events.path_values(path, wanted)
        table = np.array([holds(events, *each) for each in zip(values.distinct, values.rows, strict=True)], np.bool_)
        found: Mask = table[values.codes]
        return found

    return mask


def _number(leaf: Leaf, operation: Operator, number: Number) -> _Masker:
    """Compare doubles: rounding keeps the order. Where they are equal, the numbers themselves decide."""
    double = float(number.value)
    compare, holds = _OPERATORS[operation], _exact_test(leaf)

    def mask(events: EventBatch, wanted: Mask) -> Mask:
        values = events.path_values(leaf.field.path, wanted)
        found: Mask = compare(values.numbers, double) & ~np.isnan(values.numbers)
        for row in np.flatnonzero(wanted & (values.numbers == double)).tolist():
            found[row] = holds(events, values.distinct[values.codes[row]], row)
        return found

    return mask


def _as_comparisons(leaf: Between) -> Tree:
    if leaf.negated:
        return Or((Comparison(leaf.field, "<", leaf.low), Comparison(leaf.field, ">", leaf.high)))
    return And((Comparison(leaf.field, ">=", leaf.low), Comparison(leaf.field, "<=", leaf.high)))


def _exact_test(leaf: Leaf) -> Callable[[EventBatch, Any, int], bool]:
    """Return the test of a value in a row, which reads the payload exactly where a rounded number cannot tell."""
    test, path = test_of(leaf), leaf.field.path

    def holds(events: EventBatch, value: Any, row: int) -> bool:
        result = test(value)
        return bool(test(walk(events.documents[row].exact, path))) if result is None else result

    return holds


def _whole_payload(leaf: Leaf) -> _Masker:
    """Compile a comparison of the payload's text."""
    if isinstance(leaf, Exists | IsNull):
        always = isinstance(leaf, Exists) or leaf.negated
        return lambda _events, wanted: np.full_like(wanted, always)
    assert isinstance(leaf, Contains | Matches), "the checks let no other operator pass"
    search = text_search(leaf)

    def mask(events: EventBatch, wanted: Mask) -> Mask:
        found = np.zeros_like(wanted)
        texts = events.compact_payloads
        found[wanted] = search([texts[row] for row in np.flatnonzero(wanted).tolist()])
        return found

    return mask
