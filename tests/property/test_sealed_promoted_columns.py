"""Promoted columns say what the payloads say, read by another JSON parser with exact numbers."""

import json
from decimal import Decimal

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.promoting import promote

keys = st.sampled_from(["a", "b", "c.d", 'q"', "0", "*", "e\\", ","]) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4
)
number_texts = st.one_of(
    st.integers(-(2**65), 2**65).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda d: f"{d:e}"),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,22})?([eE][-+]?[0-9]{1,3})?", fullmatch=True),
)
scalar_texts = st.one_of(
    number_texts,
    st.sampled_from(["true", "false", "null", "[1]", "[]"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).map(json.dumps),
)


def object_of(values):
    return st.lists(st.tuples(keys, values), max_size=4).map(
        lambda pairs: "{" + ",".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"
    )


payloads = object_of(scalar_texts | object_of(scalar_texts))


def exact(text: str):
    """Parse a payload: numbers as decimals, of duplicate keys the first."""
    return json.loads(
        text, parse_int=Decimal, parse_float=Decimal, object_pairs_hook=lambda pairs: dict(reversed(pairs))
    )


def value_at(document, path):
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return None, False
        document = document[key]
    return document, True


def kind_of(value) -> str:
    return {str: "string", bool: "boolean", Decimal: "number"}.get(type(value), "other")


@settings(max_examples=150, deadline=None)
@given(st.lists(payloads, min_size=1, max_size=12))
@example(['{"a": 9007199254740993.0}', '{"a": 1.5}'])
@example(['{"a": 0.1000000000000000055}'])
@example(['{"\\u0061": 0.1000000000000000055, "b": {"a": 0.1}}'])
def test_columns_say_what_the_payloads_say(texts):
    """Each column holds exactly the values of its kind; `only` holds; numbers are all there or not at all."""
    half = len(texts) // 2
    promoted = promote([pa.array(texts[:half], pa.string()), pa.array(texts[half:], pa.string())], [])
    documents = [exact(text) for text in texts]
    for column, arrays in zip(promoted.columns, promoted.arrays, strict=True):
        kind = "number" if column.kind in {"integer", "double"} else column.kind
        held = [value for array in arrays for value in array.to_pylist()]
        for document, value in zip(documents, held, strict=True):
            expected, exists = value_at(document, column.path)
            if exists and kind_of(expected) == kind:
                shortest = Decimal(repr(value)) if kind == "number" else value
                assert shortest == expected
                assert column.kind != "integer" or type(value) is int
            else:
                assert value is None
                assert not (exists and column.only)
        assert column.only == all(
            kind_of(value) == kind for value, exists in (value_at(d, column.path) for d in documents) if exists
        )
    paths = [(column.path, column.kind in {"integer", "double"}) for column in promoted.columns]
    assert all(paths.count((path, numeric)) == 1 for path, numeric in paths if numeric)
