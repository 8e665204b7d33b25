"""Expressions become the trees that they mean, and errors that help."""

from decimal import Decimal

import pytest

from shared.errors import EventFilterException
from shared.filters import tree as t
from shared.filters.parser import parse_filter
from shared.filters.problems import EXCERPT_BYTES_MAX

A, B, C = (t.Comparison(t.Field("type"), "=", t.Text(text)) for text in "abc")
V = t.Field("payload", ("v",))


@pytest.mark.parametrize(
    ("expression", "tree"),
    [
        ("", t.Everything()),
        (" \n\t ", t.Everything()),
        ("type = 'a'", A),
        ("type = 'a' OR type = 'b' AND type = 'c'", t.Or((A, t.And((B, C))))),
        ("(type = 'a' OR type = 'b') AND type = 'c'", t.And((t.Or((A, B)), C))),
        ("NOT type = 'a' AND type = 'b'", t.And((t.Not(A), B))),
        ("NOT (type = 'a' AND type = 'b')", t.Not(t.And((A, B)))),
        ("NOT NOT type = 'a'", t.Not(t.Not(A))),
        ("type = 'a' and type = 'b' And type = 'c'", t.And((A, B, C))),
        ("type = 'a' AND (type = 'b' AND type = 'c')", t.And((A, t.And((B, C))))),
        ("((type = 'a'))", A),
    ],
)
def test_structure_is_read(expression, tree):
    """NOT binds more than AND, AND more than OR; parentheses leave nothing but what they group."""
    assert parse_filter(expression) == tree


@pytest.mark.parametrize(
    ("expression", "leaf"),
    [
        ("payload.v <> 1", t.Comparison(V, "!=", t.Number(Decimal(1)))),
        ("payload.v = TRUE", t.Comparison(V, "=", t.Boolean(value=True))),
        ("payload.v = 'it''s'", t.Comparison(V, "=", t.Text("it's"))),
        ('payload.v = "it\'s"', t.Comparison(V, "=", t.Text("it's"))),
        ('payload.v = "say ""hi"""', t.Comparison(V, "=", t.Text('say "hi"'))),
        ("payload.v = '2024-01-20'", t.Comparison(V, "=", t.Text("2024-01-20"))),
        ("payload.v NOT ILIKE 'a*'", t.Like(V, "a*", ignore_case=True, negated=True)),
        ("payload.v not contains 1", t.Contains(V, t.Number(Decimal(1)), negated=True)),
        ("payload.v MATCHES '^a'", t.Matches(V, "^a")),
        ("payload.v IN ('a', 1, FALSE)", t.In(V, (t.Text("a"), t.Number(Decimal(1)), t.Boolean(value=False)))),
        ("payload.v NOT BETWEEN 1 AND 2", t.Between(V, t.Number(Decimal(1)), t.Number(Decimal(2)), negated=True)),
        ("payload.v IS NOT NULL", t.IsNull(V, negated=True)),
        ("EXISTS payload.v", t.Exists(V)),
        ("timestamp > '1970-01-02'", t.Comparison(t.Field("timestamp"), ">", t.Instant(86_400 * 10**9))),
        ("recorded_at > NOW ( ) -  500ms", t.Comparison(t.Field("recorded_at"), ">", t.Now(-500 * 10**6))),
        ("timestamp < now() + 2h", t.Comparison(t.Field("timestamp"), "<", t.Now(7_200 * 10**9))),
        ("timestamp < now() - 0d", t.Comparison(t.Field("timestamp"), "<", t.Now())),
    ],
)
def test_comparison_is_read(expression, leaf):
    """Each operator and each literal, with strings in either quotes, doubled where they hold their own."""
    assert parse_filter(expression) == leaf


def test_error_says_all_that_helps():
    """Reason, place, the place shown, what was meant and what was expected; the message holds them for people."""
    with pytest.raises(EventFilterException) as raised:
        parse_filter("source = 'a'\n  AND timestmp > '2024-01-20'")
    error = raised.value
    assert error.reason == "INVALID_FILTER"
    assert list(error.metadata) == ["field", "line", "column", "suggestion", "expected", "excerpt"]
    assert (error.metadata["line"], error.metadata["column"], error.metadata["field"]) == ("2", "7", "expression")
    assert str(error) == (
        "line 2, column 7: timestmp is no field; did you mean timestamp?\n"
        "    AND timestmp > '2024-01-20'\n"
        "        ^^^^^^^^"
    )


def test_excerpt_of_a_long_line_is_cut_on_both_sides():
    """An excerpt shows the place in the middle, and marks what it leaves out."""
    with pytest.raises(EventFilterException) as raised:
        parse_filter(f"source = '{'x' * 500}' AND tpye = 'a' OR source = '{'y' * 500}'")
    shown, carets = raised.value.metadata["excerpt"].split("\n")
    assert shown.startswith("…x")
    assert shown.endswith("y…")
    assert shown[carets.index("^") : len(carets)] == "tpye"
    assert len(raised.value.metadata["excerpt"].encode()) <= EXCERPT_BYTES_MAX


def test_invisible_characters_are_shown():
    """What cannot be printed stands as one character that can, so that carets keep their place."""
    with pytest.raises(EventFilterException) as raised:
        parse_filter("type = '\x00\t\u200b' AND tpye = 'a'")
    shown, carets = raised.value.metadata["excerpt"].split("\n")
    assert shown.startswith("type = '\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}'")
    assert shown[carets.index("^") : len(carets)] == "tpye"


def test_half_a_surrogate_pair_is_refused_at_its_place():
    """It is no character: UTF-8 and so gRPC cannot carry it, but a Python string can."""
    with pytest.raises(EventFilterException) as raised:
        parse_filter("type = 'a\ud800'")
    assert raised.value.metadata["column"] == "10"
    str(raised.value).encode()


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 8_000,
        ")" * 8_000,
        "NOT " * 2_000,
        "'" * 8_191,
        "payload" + "[" * 8_000,
        "payload" + ".a" * 4_000,
        "type = 'a' AND " * 500,
        "payload.a IN (" + "1," * 4_000,
        "now() + " + "9" * 8_000 + "d",
        "1" * 8_000,
        "payload.a = " + "1" * 5_000 + "x",
        "payload.a[" + "1" * 8_000 + "] = 1",
        "timestamp > now() - " + "9" * 5_000 + "d",
    ],
)
def test_hostile_expression_is_refused_in_the_usual_way(expression):
    """No depth, length or size of a number makes the parser fail in any other way than its own."""
    with pytest.raises(EventFilterException) as raised:
        parse_filter(expression)
    assert raised.value.metadata["line"] == "1"
