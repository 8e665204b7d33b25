"""Payloads are read quickly where that cannot differ, exactly where it can."""

from decimal import Decimal

import pytest

from shared.filters.payload_document import MISSING, PayloadDocument, compact_json, path_reader, walk


@pytest.mark.parametrize(
    ("payload", "path", "value"),
    [
        ('{"a":1}', ("a",), 1),
        ('{"a":1}', ("b",), MISSING),
        ('{"a":null}', ("a",), None),
        ('{"a":1,"a":2}', ("a",), 1),
        ('{"a":1,"\\u0061":2}', ("a",), 1),
        ('{"\\u0061":2}', ("a",), 2),
        ('{"b":{"a":3},"a":1}', ("a",), 1),
        ('{"b":{"a":3}}', ("b", "a"), 3),
        ('{"b":"\\"a\\"","a":5}', ("a",), 5),
        ('{"a":[1,[2]]}', ("a", 1, 0), 2),
        ('{"a":[1]}', ("a", 1), MISSING),
        ('{"a":{"0":1}}', ("a", 0), MISSING),
        ('{"a":[1]}', ("a", "0"), MISSING),
        ('{"a":{"a":1}}', ("a", "a"), 1),
        ('{"":1}', ("",), 1),
        ('{"x\\ty":1}', ("x\ty",), 1),
        ('{"a\\/b":1}', ("a/b",), 1),
        ('{"e\\\\":1}', ("e\\",), 1),
        ('{"a":"\\ud800"}', ("a",), "\ud800"),
        ('{"a":1,"b":"\\ud800"}', ("a",), 1),
        ("no json", ("a",), MISSING),
        ("NaN", ("a",), MISSING),
        ('{"a":NaN}', ("a",), MISSING),
        ("[" * 100_000, ("a",), MISSING),
    ],
    ids=range(24),
)
def test_value_under_a_path(payload, path, value):
    """Of duplicate keys the first counts, however they are spelled; what is no JSON object has no values."""
    document = PayloadDocument(payload)
    found = path_reader(path)(document)
    assert found == value if value is not MISSING else found is MISSING
    assert walk(document.exact, path) == value


def test_exact_numbers_have_all_their_digits():
    """Whatever their size; exponents beyond all literals become infinite, or smaller than any of them."""
    document = PayloadDocument(
        '{"a":[9007199254740993.0,1e400,-1e99999999999999999999,1e-99999999999999999999,0e99999999999999999999,-0]}'
    )
    found = document.exact["a"]
    assert found[:2] == [Decimal("9007199254740993.0"), Decimal("1e400")]
    assert found[2] == Decimal("-Infinity")
    assert 0 < found[3] < Decimal("1e-10000")
    assert found[4:] == [0, 0]


@pytest.mark.parametrize(
    ("text", "compact"),
    [
        ('{ "a" : [ 1 , 2 ] }', '{"a":[1,2]}'),
        ('{"a": " b , c "}', '{"a":" b , c "}'),
        ('{"a":1.50e+1,\n\t"b":"\\u0061\\/"}', '{"a":1.50e+1,"b":"\\u0061\\/"}'),
        ('{"a": "\\ud800"}', '{"a":"\\ud800"}'),
        ('{ "q" : "say \\"x , y\\"" }', '{"q":"say \\"x , y\\""}'),
    ],
)
def test_compact_text_keeps_all_spelling(text, compact):
    """Only white space between tokens goes."""
    assert compact_json(text) == compact
    assert PayloadDocument(text).compact == compact


def test_payload_is_parsed_once():
    """The second look finds what the first one read."""
    document = PayloadDocument('{"a":{"b":1}}')
    assert path_reader(("a",))(document) is path_reader(("a",))(document)
    assert document.exact is document.exact
