"""Random filters and random events that have something to do with each other, for hypothesis.

Both draw from the same small pools, which hold what evaluators disagree about: numbers that round to the
same double, integers beyond 64 bits, texts that JSON spells in several ways, duplicate keys, JSON null.
"""

import functools
import json
from decimal import Decimal

import re2  # type: ignore[import-untyped]
from hypothesis import strategies as st

from shared.events.ids import format_event_id
from shared.filters import tree as t
from shared.filters.fields import kind_of
from shared.filters.patterns import escape_pattern

LOG_ID = "7Q2M4XKD"
NOW_NS = 1_705_746_600_123_456_789

NUMBERS = [
    *("0", "0.0", "1", "1.0", "1e0", "-1", "2.5", "2.50", "-2.5", "10", "1e1", "0.1", "0.10", "1e22", "1e23", "1e-7"),
    *("9007199254740991", "9007199254740992", "9007199254740993", "9007199254740993.0", "-9007199254740993"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
    *("18446744073709551615", "18446744073709551616", "18446744073709551616.0", "123456789012345678901234567890"),
    *("170141183460469231731687303715884105727", "170141183460469231731687303715884105728", "1" + 60 * "0"),
    *("0.1000000000000000055", "0.30000000000000004", "0.3", "123456.7890123456789", "5e-324", "4.94e-324"),
    *("1e-400", "1e308", "1e400", "1E400", "-1e400", "100000000000000000000000", "99999999999999999999999"),
]
# Numbers that no literal can be.
EXTREME_NUMBERS = [
    "-0",
    "-0.0",
    "0e99999999999999999999",
    "1e99999999999999999999",
    "-1e99999999999999999999",
    "9" * 5000,
]
EXTREME_NUMBERS += ["1e-99999999999999999999"]
TEXTS = [
    *("", "a", "ab", "abc", "A", "é", "É", "e\u0301", "k", "\u212a", "a%b", "a_b", "a\\b", "a*b", "aab", "line\nbreak"),
    *(
        "\x00",
        "tab\t",
        "\x1f",
        "\x7f",
        '"',
        "x, y: z",
        " a ",
        "\U0001f600",
        "\uffff",
        "\U00010000",
        "5",
        "null",
        "true",
    ),
    *("{", "[1, 2]", "a:b", "'", "/", "2024-01-20T10:30:00Z", "--", "; DROP TABLE events", "$f0", "?"),
]
KEYS = ["a", "b", "c", "é", "a b", "0", 'q"', "*", "e\\", "a.b", "", "/", "x\ty", "a[0]", '0"']
TYPES = ["a", "ab", "pipeline.started", "pipeline.failed", "hook.tool", "é", ""]
REGEXES = [
    *("", "a", "^a", "b$", "a.b", "(?s)a.b", "(?i)É", "(?i)k", "[0-9]+", "[^a]", "(a|b)+c", "\\pL", "(?i)\\x{e9}", ":"),
    *("\\.", '"a":', "a$", "(?m)^break", "\\s", "1,", "^\\{", "\\x00", "started|failed", "'", "1 "),
]

any_texts = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
any_numbers = st.one_of(
    st.sampled_from(NUMBERS),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)


def _few(strategy, key: str):
    """Draw from the same few values all over an example, so that events and literals meet."""
    return st.shared(st.lists(strategy, min_size=1, max_size=3), key=key).flatmap(st.sampled_from)


few_texts = _few(any_texts, "texts")
few_numbers = _few(any_numbers, "numbers")
texts = few_texts | few_texts | any_texts
nanoseconds = st.sampled_from([NOW_NS, NOW_NS - 1, NOW_NS + 1, 0, -1, 2**63 - 1, 2**63 - 2, -(2**63), 1 - 2**63])
positions = st.integers(1, 12) | st.sampled_from([2**53, 2**53 + 1, 2**63, 2**64 - 1])


_SPELLINGS = st.sampled_from([(False, False), (False, False), (True, False), (True, True)])


@st.composite
def _json_strings(draw, values=texts):
    """A string as JSON, with one of its spellings."""
    ensure_ascii, respelled = draw(_SPELLINGS)
    special = {"a": "\\u0061", "/": "\\/"} if respelled else {}
    spelled = [special.get(each) or json.dumps(each, ensure_ascii=ensure_ascii)[1:-1] for each in draw(values)]
    return f'"{"".join(spelled)}"'


_scalars = st.one_of(
    few_numbers,
    few_numbers,
    st.sampled_from(NUMBERS + EXTREME_NUMBERS),
    any_numbers,
    _json_strings(few_texts),
    _json_strings(few_texts),
    _json_strings(),
    st.sampled_from(["true", "false", "null"]),
)
_spaces = st.sampled_from(["", "", "", " ", "\n\t", "  "])


_keys = _json_strings(st.one_of(st.just("a"), st.just("a"), st.sampled_from(KEYS[:3]), st.sampled_from(KEYS)))


def _objects(inner):
    """Objects with white space around keys and values."""
    pairs = st.tuples(_spaces, _keys, _spaces, inner, _spaces).map(
        lambda each: f"{each[0]}{each[1]}:{''.join(each[2:])}"
    )
    return st.lists(pairs, max_size=4).map(lambda each: "{" + ",".join(each) + "}")


def _containers(inner):
    elements = st.tuples(_spaces, inner, _spaces).map("".join)
    return st.lists(elements, max_size=3).map(lambda each: "[" + ",".join(each) + "]") | _objects(inner)


payloads = st.one_of(
    _scalars.map(lambda scalar: f'{{"a":{scalar}}}'),
    st.lists(_scalars, max_size=4).map(lambda scalars: f'{{"a": [{",".join(scalars)}]}}'),
    _objects(_scalars),
    _objects(st.recursive(_scalars, _containers, max_leaves=4)),
    st.sampled_from(["{}", ' {"a" : 1}\n', '{"a":"x","a":1}', '{"b":{"a":1,"a":2}}', '{"a":[1,"1",null,[1]]}']),
)
# What the log refuses, and yet may meet: half a surrogate pair.
hostile_payloads = payloads | st.sampled_from(['{"a":1,"b":"\\ud800"}', '{"\\udc00":1,"a":"a"}', '{"a":"\\ud83dx"}'])


# Strategies are made once: making and validating them costs more than drawing.
_optional = st.none() | st.sampled_from(TEXTS[:6])
_types = st.sampled_from(TYPES)
_tags = st.lists(st.sampled_from(TEXTS[:6]), max_size=3)
_places = st.sets(positions, min_size=1, max_size=8)


@st.composite
def event_lists(draw, payload=payloads):
    """Events as rows of EVENT_SCHEMA with times in nanoseconds, ascending by position, with their ids."""
    return [
        {
            "id": format_event_id(LOG_ID, position),
            "position": position,
            "recorded_at": draw(nanoseconds),
            "timestamp": draw(nanoseconds),
            "type": draw(_types),
            "source": draw(texts),
            "correlation_id": draw(_optional),
            "payload": draw(payload),
            "host": draw(texts),
            "version": "1",
            "user": draw(_optional),
            "session_id": draw(_optional),
            "tags": draw(_tags),
        }
        for position in sorted(draw(_places))
    ]


_paths = st.lists(st.sampled_from(KEYS[:3]) | st.sampled_from(KEYS) | st.integers(0, 2), min_size=1, max_size=3)
fields = st.one_of(
    _paths.map(lambda path: t.Field("payload", tuple(path))),
    st.just(t.Field("payload", ("a",))),
    st.just(t.Field("payload", ("a",))),
    st.sampled_from(KEYS[:3]).map(lambda key: t.Field("payload", (key,))),
    st.sampled_from(
        [
            "id",
            "position",
            "timestamp",
            "recorded_at",
            "type",
            "source",
            "correlation_id",
            "metadata.user",
            "metadata.tags",
        ]
    ).map(t.Field),
    st.just(t.Field("payload")),
)
_texts = st.one_of(
    texts.map(t.Text),
    few_texts.flatmap(lambda text: st.sampled_from(_around(text))).map(t.Text),
    st.sampled_from(TYPES).map(t.Text),
)
_numbers = (few_numbers | few_numbers | any_numbers).map(Decimal).map(t.Number)
_ids = positions.map(lambda position: t.Text(format_event_id(LOG_ID, position)))
_foreign_ids = st.sampled_from(["evt_", "evt_7Q2M4XKD", "evt_7Q2M4XKE0000000000001", "z", ""]).map(t.Text)
_booleans = st.booleans().map(t.Boolean)
_times = nanoseconds.map(t.Instant) | st.sampled_from([0, -60 * 10**9, 86_400 * 10**9, 5 * 10**6]).map(t.Now)
_likes = st.one_of(
    st.sampled_from(
        ["*", "a*", "*b", "*a*", "a?b", "?", "*?*", "a*b*c", "a\\*b", "A*", "pipeline.*", "*.failed", "\\?"]
    ),
    st.text(st.sampled_from("aAbé*?.\nk"), max_size=5),
    few_texts.flatmap(lambda text: st.sampled_from([escape_pattern(each) for each in _around(text)])),
    few_texts.map(lambda text: f"{escape_pattern(text[:1])}*"),
    few_texts.map(lambda text: f"*{escape_pattern(text[-1:])}"),
    few_texts.map(lambda text: f"*{escape_pattern(text[1:])}*"),
)


def _around(text: str) -> list[str]:
    return [text, text.upper(), text.lower(), text[:1], text[1:]]


_operators = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
_regexes = st.sampled_from(REGEXES) | few_texts.map(lambda text: re2.escape(text[:2]))
_negations = st.booleans()
_OPERATIONS = {
    "tags": ["contains", "null"],
    "payload": ["contains text", "matches", "null"],
    "integer": ["compare", "in", "between", "null"],
    "time": ["compare", "in", "between", "null"],
}
_ANY_OPERATION = ["compare", "compare", "in", "between", "like", "contains", "contains", "matches", "null"]


@functools.cache
def _operations(kind: str):
    return st.sampled_from(_OPERATIONS.get(kind, _ANY_OPERATION))


@functools.cache
def _values(kind: str):
    """Literals for a field: mostly of its type."""
    if kind == "time":
        return _times
    likely = {
        "id": _ids | _foreign_ids,
        "integer": positions.map(lambda p: t.Number(Decimal(p))),
        "value": _numbers | _texts,
    }.get(kind, _texts)
    return st.one_of(likely, likely, _numbers, _booleans, _texts)


@functools.cache
def _lists(kind: str):
    return st.lists(_values(kind), min_size=1, max_size=4).map(tuple)


@functools.cache
def _ends(kind: str):
    """Two literals of one type."""
    return st.tuples(_values(kind), _values(kind)).filter(lambda ends: kind == "time" or type(ends[0]) is type(ends[1]))


@st.composite
def leaves(draw):
    """One comparison that makes sense."""
    field = draw(fields)
    kind, negated = kind_of(field), draw(_negations)
    values = "id" if field.name == "id" else kind
    match draw(_operations(kind)):
        case "compare":
            return t.Comparison(field, draw(_operators), draw(_values(values)))
        case "in":
            return t.In(field, draw(_lists(values)), negated)
        case "between":
            return t.Between(field, *draw(_ends(values)), negated)
        case "like":
            return t.Like(field, draw(_likes), draw(_negations), negated)
        case "contains":
            return t.Contains(field, draw(_values(values)), negated)
        case "contains text":
            return t.Contains(field, draw(_texts), negated)
        case "matches":
            return t.Matches(field, draw(_regexes), negated)
        case _:
            return t.IsNull(field, negated) if draw(_negations) else t.Exists(field)


def branches(inner):
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(inner.map(t.Not), several.map(t.And), several.map(t.Or))


trees = st.recursive(leaves(), branches, max_leaves=5)
