"""Filters as Python functions on live events: a tree of closures, compiled once. Pure.

Invariant: the function says of an event what the SQL of the same tree says of it.
"""

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from shared.filters.fields import kind_of
from shared.filters.live_event import LiveEvent
from shared.filters.payload_document import MISSING, path_reader, walk
from shared.filters.regular_expressions import finder
from shared.filters.resolution import resolve_now
from shared.filters.tree import (
    And,
    Comparison,
    Contains,
    Everything,
    Exists,
    Field,
    IsNull,
    Leaf,
    Matches,
    Not,
    Or,
    Text,
    Tree,
)
from shared.filters.value_tests import test_of

Predicate: TypeAlias = Callable[[LiveEvent], bool]


def compile_predicate(tree: Tree, now_ns: int) -> Predicate:
    """Return the function that tells whether the filter holds for an event.

    now_ns is what now() means: nanoseconds since the epoch. Where `uses_now(tree)`, compile for each batch
    anew; all else of it is cheap beside regular expressions, which are kept. Not for several threads at
    once on the same event.
    """
    return _compile(resolve_now(tree, now_ns))


def _compile(tree: Tree) -> Predicate:
    if isinstance(tree, And):
        return _all([_compile(operand) for operand in tree.operands])
    if isinstance(tree, Or):
        return _any([_compile(operand) for operand in tree.operands])
    if isinstance(tree, Not):
        holds = _compile(tree.operand)
        return lambda event: not holds(event)
    if isinstance(tree, Everything):
        return lambda _event: True
    kind = kind_of(tree.field)
    if kind == "payload":
        return _whole_payload(tree)
    return _payload_value(tree) if kind == "value" else _column(tree)


def _all(predicates: list[Predicate]) -> Predicate:
    if len(predicates) == 2:
        first, second = predicates
        return lambda event: first(event) and second(event)

    def holds(event: LiveEvent) -> bool:
        for predicate in predicates:  # noqa: SIM110 — a generator costs more than the predicates
            if not predicate(event):
                return False
        return True

    return holds


def _any(predicates: list[Predicate]) -> Predicate:
    if len(predicates) == 2:
        first, second = predicates
        return lambda event: first(event) or second(event)

    def holds(event: LiveEvent) -> bool:
        for predicate in predicates:  # noqa: SIM110 — a generator costs more than the predicates
            if predicate(event):
                return True
        return False

    return holds


def _column(leaf: Leaf) -> Predicate:
    """Compile a comparison of a field outside of the payload."""
    get: Callable[[LiveEvent], Any] = operator.attrgetter(leaf.field.name.removeprefix("metadata."))
    if isinstance(leaf, Exists | IsNull):
        wanted = isinstance(leaf, Exists) or leaf.negated
        return lambda event: (get(event) is not None) is wanted
    if isinstance(leaf, Comparison) and leaf.operator == "=" and isinstance(leaf.value, Text):
        text = leaf.value.value
        return lambda event: bool(get(event) == text)
    test = test_of(leaf)
    # What is not from a payload is exact: the test knows.
    return lambda event: bool(test(get(event)))


def _payload_value(leaf: Leaf) -> Predicate:
    """Compile a comparison of a value inside of the payload."""
    path = leaf.field.path
    read = path_reader(path)
    if isinstance(leaf, Exists):
        return lambda event: read(event.payload) is not MISSING
    if isinstance(leaf, IsNull):
        return _null_in_payload(leaf.field, negated=leaf.negated)
    test = test_of(leaf)

    def holds(event: LiveEvent) -> bool:
        result = test(read(event.payload))
        return bool(test(walk(event.payload.exact, path))) if result is None else result

    return holds


def _null_in_payload(field: Field, *, negated: bool) -> Predicate:
    read = path_reader(field.path)

    def holds(event: LiveEvent) -> bool:
        found = read(event.payload)
        return (found is None or found is MISSING) is not negated

    return holds


def _whole_payload(leaf: Leaf) -> Predicate:
    """Compile a comparison of the payload's text."""
    if isinstance(leaf, Exists | IsNull):
        always = isinstance(leaf, Exists) or leaf.negated
        return lambda _event: always
    if isinstance(leaf, Matches):
        find, wanted = finder(leaf.pattern), not leaf.negated
        return lambda event: find(event.payload.compact) is wanted
    assert isinstance(leaf, Contains)
    assert isinstance(leaf.value, Text), "the checks let no other literal pass"
    text, wanted = leaf.value.value, not leaf.negated
    return lambda event: (text in event.payload.compact) is wanted
