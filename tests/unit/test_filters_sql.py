"""SQL compares columns plainly, asks promoted columns first, and holds nothing of a filter but parameters."""

import duckdb
import pyarrow as pa
import pytest

from shared.columns.schema import EVENT_SCHEMA
from shared.filters import tree as t
from shared.filters.parser import parse_filter
from shared.filters.resolution import push_not_down, resolve_now
from shared.filters.sql import to_sql
from shared.filters.sql_functions import register_filter_functions
from shared.filters.sql_parameters import COMPACT_FUNCTION, HOLDS_FUNCTION, quote_identifier
from shared.log.promoted_columns import PromotedColumn

LOG_ID = "AAAAAAAA"
PROMOTED = [
    PromotedColumn(("a",), "integer", "p0_integer", complete=True, only=False),
    PromotedColumn(("a",), "string", "p0_string", complete=True, only=False),
    PromotedColumn(("b",), "double", "p1_double", complete=True, only=True),
    PromotedColumn(("c",), "boolean", "p2_boolean", complete=False, only=False),
]


def sql_of(expression: str, *, promoted=()) -> tuple[str, list]:
    sql = to_sql(parse_filter(expression), promoted=promoted, log_id=LOG_ID)
    return sql.text, list(sql.parameters.values())


@pytest.mark.parametrize(
    ("expression", "text", "values"),
    [
        ("", "TRUE", []),
        ("type = 'a'", '"type" = $f0::VARCHAR', ["a"]),
        ("NOT type = 'a'", '"type" <> $f0::VARCHAR', ["a"]),
        ("type LIKE 'a.*'", '("type" >= $f0::VARCHAR AND "type" < $f1::VARCHAR)', ["a.", "a/"]),
        ("source IN ('a', 'b', 3)", '"source" IN ($f0::VARCHAR, $f1::VARCHAR)', ["a", "b"]),
        ("type = 5", "FALSE", []),
        ("position > 2.5", '"position" >= $f0::UBIGINT', [3]),
        ("position < -1", "FALSE", []),
        ("id = 'evt_AAAAAAAA0000000000003'", '"position" = $f0::UBIGINT', [3]),
        ("timestamp >= '1970-01-01'", '"timestamp" >= make_timestamp_ns($f0::BIGINT)::TIMESTAMPTZ_NS', [0]),
        ("correlation_id IS NULL", '"correlation_id" IS NULL', []),
        ("type IS NULL", "FALSE", []),
        ("NOT correlation_id = 'a'", '("correlation_id" = $f0::VARCHAR) IS NOT TRUE', ["a"]),
        (
            "type = 'a' AND (source = 'a' OR position = 1)",
            '("type" = $f0::VARCHAR AND ("source" = $f0::VARCHAR OR "position" = $f1::UBIGINT))',
            ["a", 1],
        ),
    ],
)
def test_fields_are_compared_as_columns(expression, text, values):
    """So that DuckDB compares them with the bounds of row groups; each value is one parameter."""
    assert sql_of(expression) == (text, values)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("payload.a = 1", '"p0_integer" = $f0::BIGINT'),
        ("payload.a > 1.5", '"p0_integer" >= $f0::BIGINT'),
        ("payload.a = 'x'", '"p0_string" = $f0::VARCHAR'),
        ("payload.a IN (1, 'x')", '("p0_integer" IN ($f0::BIGINT) OR "p0_string" IN ($f1::VARCHAR))'),
        ("payload.b < 0.5", '"p1_double" < $f0::DOUBLE'),
        ("payload.b IS NULL", '("p1_double" IS NULL)'),
        ("EXISTS payload.b", '("p1_double" IS NOT NULL)'),
        ("payload.b = 'x'", "FALSE"),
    ],
)
def test_promoted_columns_answer_alone(expression, text):
    """Where a file has the column of the literal's kind, its payloads are not read."""
    assert sql_of(expression, promoted=PROMOTED)[0] == text


@pytest.mark.parametrize(
    "expression", ["payload.a = TRUE", "payload.a CONTAINS 1", "payload.c = TRUE", "payload.d = 1", "payload.a.b = 1"]
)
def test_payload_answers_what_columns_cannot(expression):
    """Another kind, arrays, a column that lacks some values, a path without a column."""
    assert "json_extract(payload" in sql_of(expression, promoted=PROMOTED)[0]


@pytest.mark.parametrize(
    "hostile",
    [
        "x' OR 1=1 --",
        'x"; DROP TABLE events; --',
        "$f0",
        "$.a[*]",
        "'); COPY events TO 'x'; --",
        "*",
        "\\",
        "a\x00b",
        "/* x */",
    ],
)
def test_nothing_of_a_filter_is_in_the_text(hostile):
    """Keys, strings and what Python is asked are parameters."""

    def shape(key: str, text: str) -> str:
        field, words = t.Field("payload", ("k", key)), t.Text(text)
        tree = t.And(
            (
                t.Comparison(field, ">", words),
                t.Contains(t.Field("payload"), words),
                t.Contains(t.Field("type"), words),
                t.In(t.Field("source"), (words,)),
            )
        )
        return to_sql(tree, log_id=LOG_ID).text

    text = shape(hostile, hostile)
    for piece in ("1=1", "DROP", "COPY", "--", ";", "/*"):
        assert piece not in text
    with duckdb.connect(config={"threads": 1}) as connection:
        register_filter_functions(connection)
        connection.register("events", pa.Table.from_pylist([], schema=EVENT_SCHEMA))
        tree = t.Or(
            (
                t.Comparison(t.Field("payload", (hostile,)), "=", t.Text(hostile)),
                t.Contains(t.Field("payload"), t.Text(hostile)),
            )
        )
        sql = to_sql(tree, log_id=LOG_ID)
        assert connection.execute(f"SELECT count(*) FROM events WHERE {sql.text}", sql.parameters).fetchone() == (0,)


def test_names_of_columns_are_quoted():
    """Also one that holds a quotation mark."""
    assert quote_identifier('a"b') == '"a""b"'


def test_functions_tell_what_duckdb_cannot():
    """Exact numbers, and text without white space."""
    with duckdb.connect(config={"threads": 1}) as connection:
        register_filter_functions(connection)
        asked = f"SELECT {HOLDS_FUNCTION}($payload, $expression), {COMPACT_FUNCTION}($payload)"
        values = {"payload": '{ "a" : 9007199254740993.0 }', "expression": "payload.a = 9007199254740993"}
        assert connection.execute(asked, values).fetchone() == (True, '{"a":9007199254740993.0}')


def test_now_is_resolved_within_the_range_of_times():
    """What would lie beyond the range is its end."""
    tree = parse_filter(
        "timestamp > now() + 36525d OR timestamp BETWEEN now() - 1s AND now() OR recorded_at IN (now())"
    )
    resolved = resolve_now(tree, 2**63 - 1)
    assert resolved == t.Or(
        (
            t.Comparison(t.Field("timestamp"), ">", t.Instant(2**63 - 1)),
            t.Between(t.Field("timestamp"), t.Instant(2**63 - 1 - 10**9), t.Instant(2**63 - 1)),
            t.In(t.Field("recorded_at"), (t.Instant(2**63 - 1),)),
        )
    )


@pytest.mark.parametrize(
    ("expression", "pushed"),
    [
        ("NOT (type = 'a' AND source LIKE 'b*')", "type != 'a' OR source NOT LIKE 'b*'"),
        ("NOT (position < 3 OR NOT type IN ('a'))", "position >= 3 AND type IN ('a')"),
        ("NOT payload.a = 1", "NOT payload.a = 1"),
        ("NOT payload.a IS NULL", "payload.a IS NOT NULL"),
        ("NOT correlation_id = 'a'", "NOT correlation_id = 'a'"),
        ("NOT type = 5", "NOT type = 5"),
        ("NOT NOT type = 'a'", "type = 'a'"),
    ],
)
def test_not_turns_into_the_opposite_where_there_is_one(expression, pushed):
    """For a field that every event has, compared with a literal of its type."""
    assert push_not_down(parse_filter(expression)) == parse_filter(pushed)
