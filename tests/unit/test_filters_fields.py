"""Names of fields are read and printed."""

import pytest

from shared.filters.fields import FIELD_NAMES, FieldProblem, kind_of, may_be_missing, print_field, read_field
from shared.filters.tree import Field


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("payload", ()),
        ("payload.a", ("a",)),
        ("payload.a.b-c.$d.@e.0", ("a", "b-c", "$d", "@e", "0")),
        ("payload.items[0].price", ("items", 0, "price")),
        ("payload[3][2147483647]", (3, 2147483647)),
        ('payload."a b"."c.d"[1]', ("a b", "c.d", 1)),
        ('payload.""."say ""hi"""', ("", 'say "hi"')),
        ('payload."line\nbreak"', ("line\nbreak",)),
        ("payload.größe.日本", ("größe", "日本")),
    ],
)
def test_path_is_read_and_printed(text, path):
    """Keys as they are where they can be, in quotes where they must be; indexes in brackets."""
    field = Field("payload", path)
    assert read_field(text) == field
    assert read_field(print_field(field)) == field


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("payloads", FieldProblem.UNKNOWN),
        ("metadata", FieldProblem.UNKNOWN),
        ("metadata.a", FieldProblem.UNKNOWN),
        ("type.a", FieldProblem.UNKNOWN),
        ("TYPE", FieldProblem.UNKNOWN),
        ("payload[-1]", FieldProblem.NEGATIVE_INDEX),
        ("payload.a[2147483648]", FieldProblem.LARGE_INDEX),
        (f"payload[{'9' * 5_000}]", FieldProblem.LARGE_INDEX),
    ],
)
def test_what_is_no_field_is_told(text, problem):
    """Names are exact; elements are counted from the start, up to 2^31 - 1."""
    assert read_field(text) is problem


def test_every_name_reads_as_itself():
    """And says what it holds, and whether an event may lack it."""
    fields = [read_field(name) for name in FIELD_NAMES]
    assert fields == [Field(name) for name in FIELD_NAMES]
    assert {name for name in FIELD_NAMES if may_be_missing(Field(name))} == {
        "correlation_id",
        "metadata.user",
        "metadata.session_id",
    }
    kinds = {name: kind_of(Field(name)) for name in FIELD_NAMES}
    assert {name for name, kind in kinds.items() if kind != "text"} == {
        "position",
        "timestamp",
        "recorded_at",
        "metadata.tags",
        "payload",
    }
    assert kind_of(Field("payload", ("a",))) == "value"
