"""Expressions of analyses: they parse, they find the values that they were written for, and no other texts."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from analysis_service.expressions import all_of, between, equals, one_of
from shared.filters.limits import EXPRESSION_BYTES_MAX
from shared.filters.live_event import LiveEvent
from shared.filters.parser import parse_filter
from shared.filters.predicate import compile_predicate

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_VALUES = st.one_of(_TEXTS, st.integers(-(10**20), 10**20), st.floats(-1e15, 1e15), st.booleans())


def _text(value: object) -> str:
    """A value as a scan gives it."""
    return value if isinstance(value, str) else json.dumps(value)


def _finds(expression: str, value: object) -> bool:
    texts = {"type": "t", "source": "s", "host": "h", "version": "1", "user": None, "session_id": None}
    event = LiveEvent(
        position=7,
        timestamp=1,
        recorded_at=1,
        correlation_id=None,
        payload=json.dumps({"a": {"b": value}}),
        tags=[],
        **texts,
    )
    return compile_predicate(parse_filter(expression), 0)(event)


@given(st.lists(_VALUES, min_size=1, max_size=20), _VALUES)
@example(["-007.5"], -7.5)
@example(["1E5"], 1e5)
def test_values_of_payloads_are_found_whatever_they_are(values, other):
    """Texts, numbers and truth values; another value only where it has the same text."""
    expression = one_of("payload.a.b", map(_text, values))
    assert all(_finds(expression, value) for value in values)
    numbers = {float(_text(value)) for value in values if _is_number(_text(value))}
    same = _text(other) in map(_text, values) or (not isinstance(other, str | bool) and float(other) in numbers)
    assert _finds(expression, other) <= same


def _is_number(text: str) -> bool:
    try:
        return isinstance(json.loads(text), int | float) and text not in {"true", "false"}
    except ValueError:
        return False


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5_000), min_size=1, max_size=200))
@example(["'" * 255] * 3)
@example(["x" * 10_000])
def test_expressions_fit_whatever_is_named(values):
    """A pattern's expression has types, cases and a time range, and is well below the limit of the language."""
    keys = one_of("payload.a.b", values)
    types = one_of("type", [f"type.{number}.{'x' * 190}" for number in range(200)])
    expression = all_of(types, keys, between(0, 1))
    assert len(expression.encode()) < EXPRESSION_BYTES_MAX - 500
    parse_filter(expression)


def test_what_cannot_be_named_is_found_among_others():
    """Lists, objects and long texts of payloads."""
    for value in ([1, 2], {"a": 1}, "x" * 5_000):
        assert equals("payload.a.b", _text(value)) == "payload.a.b IS NOT NULL"
        assert _finds(equals("payload.a.b", _text(value)), value)
    assert equals("payload.a.b", "[ERROR] it's late") == "payload.a.b = '[ERROR] it''s late'"
    assert not _finds(equals("payload.a.b", None), 1)


def test_positions_and_times_are_named_as_filters_take_them():
    """The texts that columns have for them are no literals."""
    assert _finds(one_of("position", ["7", "8"]), 1)
    assert _finds(equals("timestamp", "1970-01-01 00:00:00.000000001Z"), 1)
