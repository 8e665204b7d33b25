"""Bounds say of a filter what can be known before a file is opened, and which files it can skip."""

from decimal import Decimal

import pyarrow as pa
import pytest

from shared.columns.schema import EVENT_SCHEMA
from shared.events.ids import format_event_id
from shared.filters.bounds import NOTHING, Bounds, TextSet
from shared.filters.bounds_extraction import extract_bounds
from shared.filters.intervals import EMPTY, UNBOUNDED, Interval, integers_that_are
from shared.filters.parser import parse_filter
from shared.log.index_sidecar import Sidecar, build_sidecar

LOG_ID = "AAAAAAAA"
DAY_NS = 86_400 * 10**9


def bounds_of(expression: str) -> Bounds:
    return extract_bounds(parse_filter(expression), LOG_ID)


def texts(*values: str, prefixes: tuple[str, ...] = ()) -> TextSet:
    return TextSet(frozenset(values), frozenset(prefixes))


@pytest.mark.parametrize(
    ("expression", "bounds"),
    [
        ("", Bounds()),
        ("payload.a = 1", Bounds()),
        ("position >= 3 AND position < 7.5", Bounds(position=Interval(3, 7))),
        ("position IN (9, 2, 5)", Bounds(position=Interval(2, 9))),
        ("position BETWEEN 2 AND 4 OR position = 9", Bounds(position=Interval(2, 9))),
        ("position = 2.5", NOTHING),
        ("position != 3", Bounds()),
        ("timestamp >= '1970-01-02' AND timestamp < '1970-01-03'", Bounds(timestamp=Interval(DAY_NS, 2 * DAY_NS - 1))),
        ("timestamp = '1970-01-02' OR timestamp = '1970-01-01'", Bounds(timestamp=Interval(0, DAY_NS))),
        (
            "NOT (timestamp < '1970-01-02' OR position > 5)",
            Bounds(timestamp=Interval(DAY_NS), position=Interval(None, 5)),
        ),
        ("recorded_at <= '1970-01-01'", Bounds(recorded_at=Interval(None, 0))),
        ("type = 'a' OR type LIKE 'b.*'", Bounds(types=texts("a", prefixes=("b.",)))),
        ("type LIKE 'b.*' AND type LIKE 'b.c*'", Bounds(types=texts(prefixes=("b.c",)))),
        ("type LIKE '*b'", Bounds()),
        ("type LIKE 'a\\*b'", Bounds(types=texts("a*b"))),
        ("type NOT LIKE 'a*' AND source IN ('x', 'y')", Bounds(sources=texts("x", "y"))),
        ("NOT source NOT IN ('x', 'y')", Bounds(sources=texts("x", "y"))),
        ("type ILIKE 'a*'", Bounds()),
        ("type = 'a' OR payload.a = 1", Bounds()),
        ("type = 'a' AND (payload.a = 1 OR source = 'b')", Bounds(types=texts("a"))),
        (
            "correlation_id = 'c' AND metadata.session_id IN ('s', 't')",
            Bounds(correlation_ids=frozenset({"c"}), session_ids=frozenset({"s", "t"})),
        ),
        ("NOT correlation_id != 'c'", Bounds()),
        ("metadata.user = 'u' OR metadata.user = 'v'", Bounds(users=frozenset({"u", "v"}))),
        ("metadata.host = 'h'", Bounds()),
    ],
)
def test_bounds_follow_from_the_whole(expression, bounds):
    """AND narrows, OR widens, NOT bounds where it turns into another comparison."""
    assert bounds_of(expression) == bounds


@pytest.mark.parametrize(
    "expression",
    [
        "type = 'a' AND type = 'b'",
        "position > 5 AND position < 4",
        "type = 1",
        "timestamp > '2024-01-02' AND timestamp < '2024-01-01'",
        "correlation_id = 'a' AND correlation_id = 'b'",
        "id = 'x' AND position > 0",
    ],
)
def test_contradictions_are_seen(expression):
    """What can hold for no event at all opens no file."""
    assert bounds_of(expression).is_empty


def test_ids_of_the_log_bound_the_position():
    """They sort like positions; ids of another log bound it to nothing."""
    second, ninth = format_event_id(LOG_ID, 2), format_event_id(LOG_ID, 9)
    assert bounds_of(f"id = '{second}'").position == Interval(2, 2)
    assert bounds_of(f"id = '{second}'").ids == frozenset({second})
    assert bounds_of(f"id > '{second}' AND id <= '{ninth}'").position == Interval(3, 9)
    assert bounds_of(f"id IN ('{second}', '{ninth}')").position == Interval(2, 9)
    # Positions start at 1.
    assert bounds_of("id = 'evt_BBBBBBBB0000000000002'").position == Interval(0, 0)
    assert bounds_of(f"id LIKE 'evt_{LOG_ID}*'").position.overlaps(1, 1)


@pytest.fixture(scope="module")
def sidecar() -> Sidecar:
    """A file with two events, a day apart, the second with all optional fields."""
    row = {"recorded_at": DAY_NS, "source": "x", "payload": "{}", "host": "h", "version": "1", "tags": []}
    rows = [
        row
        | {"position": 5, "timestamp": DAY_NS, "type": "a.b", "correlation_id": None, "user": None, "session_id": None},
        row
        | {"position": 8, "timestamp": 3 * DAY_NS, "type": "c", "correlation_id": "c", "user": "u", "session_id": "s"},
    ]
    return Sidecar.load(build_sidecar(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)))


@pytest.mark.parametrize(
    ("expression", "excluded_by"),
    [
        ("", None),
        ("position < 5", "position"),
        ("position BETWEEN 6 AND 7", None),
        ("recorded_at > '1970-01-03'", "recorded_at"),
        ("timestamp > '1970-01-05'", "timestamp"),
        ("timestamp BETWEEN '1970-01-02T02:00:00' AND '1970-01-03'", "timestamp"),
        ("type LIKE 'a*'", None),
        ("type LIKE 'b*' OR type = 'a'", "type"),
        ("source = 'y'", "source"),
        ("correlation_id = 'd'", "correlation_id"),
        ("correlation_id IN ('d', 'c')", None),
        ("metadata.session_id = 't'", "metadata.session_id"),
        ("metadata.user = 'v'", "metadata.user"),
        ("type = 'x' AND type = 'y'", "contradiction"),
    ],
)
def test_file_is_skipped_by_name_of_a_field(sidecar, expression, excluded_by):
    """By the range of positions or times, by an hour without events, by a value that the file does not have."""
    assert bounds_of(expression).exclusion(sidecar) == excluded_by
    assert bounds_of(expression).may_match(sidecar) is (excluded_by is None)


def test_sets_of_texts_are_joined():
    """A value within a prefix is kept by AND; of two prefixes the longer."""
    first, second = texts("a", "bc", prefixes=("x",)), texts("a", "xy", prefixes=("b", "xz"))
    assert first & second == texts("a", "bc", "xy", prefixes=("xz",))
    assert first | second == texts("a", "bc", "xy", prefixes=("x", "b", "xz"))
    assert texts("a", prefixes=("b",)).ranges() == [("a", "a\0"), ("b", "c")]
    assert texts().is_empty
    assert "bcd" in second


def test_intervals_are_joined():
    """AND is what both have, OR the smallest interval around both; an empty one adds nothing."""
    assert Interval(1, 5) & Interval(3, None) == Interval(3, 5)
    assert Interval(1, 2) | Interval(5, 6) == Interval(1, 6)
    assert Interval(1, 2) | UNBOUNDED == UNBOUNDED
    assert EMPTY | Interval(5, 6) == Interval(5, 6) == Interval(5, 6) | EMPTY
    assert (Interval(1, 2) & Interval(3, 4)).is_empty
    assert not EMPTY.overlaps(0, 10)


@pytest.mark.parametrize("operator", ["=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("number", ["-2.5", "-2", "0", "1", "1.5", "2"])
def test_integers_that_compare_with_a_number(operator, number):
    """The interval has exactly the integers for which the comparison holds."""
    interval = integers_that_are(operator, Decimal(number))
    for integer in range(-5, 5):
        wanted = {"=": integer == Decimal(number), "<": integer < Decimal(number), "<=": integer <= Decimal(number)}
        wanted |= {">": integer > Decimal(number), ">=": integer >= Decimal(number)}
        assert interval.overlaps(integer, integer) is wanted[operator]
