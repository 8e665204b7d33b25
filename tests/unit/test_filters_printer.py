"""Trees print as people would write them, and equal trees alike."""

from decimal import Decimal

import pytest

from shared.filters import tree as t
from shared.filters.parser import parse_filter
from shared.filters.printer import print_filter, print_value


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("type='a'or(source='b'and id='c')", "type = 'a' OR source = 'b' AND id = 'c'"),
        ("(type='a' or source='b')and id='c'", "(type = 'a' OR source = 'b') AND id = 'c'"),
        ("type='a' or (source='b' or id='c')", "type = 'a' OR (source = 'b' OR id = 'c')"),
        ("not(type='a')", "NOT type = 'a'"),
        ("not(type='a' and id='b')", "NOT (type = 'a' AND id = 'b')"),
        ('payload."a b"."c"[0] <> "x"', "payload.\"a b\".c[0] != 'x'"),
        ('payload."say ""a""" is null', 'payload."say ""a""" IS NULL'),
        (
            "timestamp>'2024-01-20' AND timestamp<now()-90m",
            "timestamp > '2024-01-20T00:00:00Z' AND timestamp < now() - 90m",
        ),
        ("timestamp > now() + 86400s", "timestamp > now() + 1d"),
        ("timestamp > now() - 1500ms", "timestamp > now() - 1500ms"),
        ("metadata.tags contains 'it''s'", "metadata.tags CONTAINS 'it''s'"),
    ],
)
def test_expression_prints_in_its_normal_form(expression, printed):
    """Parentheses only where they are needed, keywords in capitals, one way to write each literal."""
    assert print_filter(parse_filter(expression)) == printed


@pytest.mark.parametrize(
    ("texts", "printed"),
    [
        (("0", "-0", "0.000", "0e50"), "0"),
        (("1", "1.0", "100e-2", "0.1e1"), "1"),
        (("1500", "1.5e3", "1500.00"), "1500"),
        (("-0.25", "-25e-2"), "-0.25"),
        (("9007199254740993", "9007199254740993.0"), "9007199254740993"),
        (("1e400", "10e399", "1000e397"), "1E+400"),
        (("12.50e-40",), "1.25E-39"),
        (("123456789012345678901234567890123456789.5",), "1.234567890123456789012345678901234567895E+38"),
    ],
)
def test_equal_numbers_print_alike(texts, printed):
    """However many zeros they were written with, and without rounding."""
    assert {print_value(t.Number(Decimal(text))) for text in texts} == {printed}
    assert Decimal(printed) == Decimal(texts[0])
