"""Masks over batches say what predicates say one by one, and read no payload that decides nothing."""

import pyarrow as pa
import pytest

from shared.columns.schema import EVENT_SCHEMA
from shared.events.ids import format_event_id
from shared.filters.batch_filter import BatchFilter
from shared.filters.event_batch import EventBatch
from shared.filters.live_event import LiveEvent
from shared.filters.parser import parse_filter
from shared.filters.predicate import compile_predicate
from shared.filters.printer import print_filter
from tests.support import filter_strategies as fs

ALPHABET = ("a", "B", "é", "\u212a", "\n", ".", "*", "\x00", "\U0001f600")
# So many different texts that they are searched as a column.
MANY = [first + second + third for first in ALPHABET for second in ALPHABET for third in ALPHABET[:2]]


def rows(payloads: list[str], types: list[str] | None = None) -> list[dict]:
    return [
        {
            "position": position,
            "recorded_at": fs.NOW_NS,
            "timestamp": fs.NOW_NS + position,
            "type": types[position - 1] if types else "a",
            "source": "b",
            "correlation_id": None,
            "payload": payload,
            "host": "h",
            "version": "1",
            "user": None,
            "session_id": None,
            "tags": [],
        }
        for position, payload in enumerate(payloads, start=1)
    ]


def batch(events: list[dict]) -> EventBatch:
    return EventBatch(pa.RecordBatch.from_pylist(events, schema=EVENT_SCHEMA), log_id=fs.LOG_ID)


def agree(expression: str, events: list[dict], *, on: EventBatch | None = None) -> list[bool]:
    tree = parse_filter(expression)
    holds = compile_predicate(tree, fs.NOW_NS)
    mask = BatchFilter(tree).mask(on or batch(events), now_ns=fs.NOW_NS).tolist()
    lives = [LiveEvent(**event, id=format_event_id(fs.LOG_ID, event["position"])) for event in events]
    assert mask == [holds(live) for live in lives], expression
    return mask


@pytest.mark.parametrize("pattern", [*fs.REGEXES, "(?i)B", "^..$", "\\n", "[[:^alpha:]]{2}"])
@pytest.mark.parametrize("negation", ["", "NOT "])
def test_regular_expressions_find_the_same_in_columns(pattern, negation):
    """Of many texts at once, in a field, in the payload and in the payload as a whole."""
    spelled = [text.replace("\n", "\\n").replace("\x00", "\\u0000") for text in MANY]
    events = rows([f'{{"a": "{text}"}}' for text in spelled], MANY)
    quoted = pattern.replace("'", "''")
    for field in ("type", "payload.a", "payload"):
        agree(f"{field} {negation}MATCHES '{quoted}'", events)


@pytest.mark.parametrize(
    "pattern", ["*", "a*", "*a", "*?", "a?*", "??", "*B*", "*\\**", "é?a", "*k*", "\\?", "*\U0001f600*"]
)
@pytest.mark.parametrize("operator", ["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"])
def test_patterns_fit_the_same_in_columns(pattern, operator):
    """LIKE and ILIKE of many texts at once."""
    agree(f"type {operator} '{pattern}'", rows(["{}"] * len(MANY), MANY))


@pytest.mark.parametrize(
    "comparison", ["= 3", "!= 3", "> 2.5", "<= 1e9999", "> -1e9999", "= 3.5", "< 18446744073709551616"]
)
def test_positions_compare_with_any_number(comparison):
    """Also with fractions and with numbers that no position can be."""
    agree(f"position {comparison}", rows(["{}"] * 5))


def test_times_ids_and_now_are_compared():
    """Times by nanoseconds, ids as text, now() at each batch."""
    events = rows(["{}"] * 5)
    assert agree("timestamp > now() + 0s", events) == [True] * 5
    assert agree("timestamp NOT BETWEEN '2024-01-20' AND now()", events) == [True] * 5
    assert agree(f"id = '{format_event_id(fs.LOG_ID, 2)}'", events) == [False, True, False, False, False]
    assert agree("id LIKE '*3' OR id > 'z'", events) == [False, False, True, False, False]
    moving = BatchFilter(parse_filter("timestamp > now()"))
    assert moving.mask(batch(events), now_ns=fs.NOW_NS + 3).tolist() == [False, False, False, True, True]


def test_exact_numbers_decide_where_doubles_are_equal():
    """Also in lists, in arrays and between bounds."""
    events = rows([f'{{"a":{text},"b":[{text}]}}' for text in ("9007199254740992", "9007199254740993", "1e400", '"x"')])
    assert agree("payload.a = 9007199254740993", events) == [False, True, False, False]
    assert agree("payload.a IN (9007199254740993, 'x')", events) == [False, True, False, True]
    assert agree("payload.a BETWEEN 9007199254740993 AND 1e400", events) == [False, True, True, False]
    assert agree("payload.a NOT BETWEEN 9007199254740993 AND 1e400", events) == [True, False, False, False]
    assert agree("payload.b CONTAINS 9007199254740993", events) == [False, True, False, False]


def test_filters_share_what_was_read():
    """Two filters on one batch: what the first left unread, the second still finds."""
    events = rows(['{"a":1}', '{"a":"x"}', '{"b":1}', '{"a":"x"}'], ["t", "t", "u", "u"])
    shared = batch(events)
    agree("type = 'u' AND payload.a = 'x'", events, on=shared)
    agree("payload.a = 'x' OR payload.a >= 1", events, on=shared)
    agree("NOT (type = 't' AND payload.a IS NULL)", events, on=shared)
    # Comparisons of columns are kept, whatever is made of them.
    agree("type = 'u'", events, on=shared)
    agree("NOT type = 'u'", events, on=shared)
    agree("type = 'u' OR payload.b = 1", events, on=shared)


def test_payload_is_read_only_where_it_decides():
    """A payload that cannot matter is not looked at: what is cheap is asked first, wherever it stands."""
    events = rows(['{"a":1}', '{"a":2}', '{"a":1}'], ["t", "u", "u"])
    for expression, expected in (
        ("payload.a = 1 AND type = 'u'", [False, True, True]),
        ("payload.a = 1 OR type = 'u'", [True, False, False]),
        ("NOT (payload.a = 1 AND type = 't')", [True, False, False]),
        ("type = 'v' AND payload.a > 0", [False, False, False]),
    ):
        events_of = batch(events)
        tree = parse_filter(expression)
        BatchFilter(tree).mask(events_of, now_ns=0)
        read = [document is not None for document in events_of.documents._documents]
        assert read == expected, print_filter(tree)


def test_empty_batch_has_an_empty_mask():
    """No event, no answer, and no error."""
    for expression in (
        "",
        "type = 'a'",
        "payload.a > 1",
        "payload.a CONTAINS 1",
        "payload MATCHES 'x'",
        "position > 1",
    ):
        assert agree(expression, []) == []
