"""Tests of query_service.exporters.registry: built-in formats, added ones, and what is wrong with others."""

from importlib.metadata import EntryPoint

import pytest

from query_service.exporters import ExportContext, ExportFormats, export_pieces
from query_service.exporters.registry import GROUP
from shared.errors import EventException, EventValidationException
from tests.support.reference_events import event_batch


def entry(name: str, value: str) -> EntryPoint:
    """An entry point as an installed package declares it."""
    return EntryPoint(name, value, GROUP)


def test_formats_of_installed_packages_are_found():
    """The built-in formats are there by themselves, and have their endings."""
    formats = ExportFormats()
    assert {"csv", "json", "parquet"} <= set(formats.names)
    assert [formats.find(name).file_ending for name in ("json", "csv", "parquet")] == [".jsonl", ".csv", ".parquet"]


def test_added_format_exports_like_a_built_in_one():
    """A format that an entry point names is listed and used, also compressed."""
    formats = ExportFormats([entry("types", "tests.support.types_format:TYPES")])
    assert formats.names == ["csv", "json", "parquet", "types"]
    exporter = formats.exporter("types", ExportContext("TESTKEG1"))
    events = event_batch([{"type": "a.b"}, {"type": "c"}])
    assert b"".join(piece.data for piece in export_pieces(exporter, [events])) == b"# log TESTKEG1\na.b\nc\n# end\n"


def test_built_in_format_cannot_be_replaced():
    """An entry point with the name of a built-in format is passed over."""
    formats = ExportFormats([entry("json", "tests.support.types_format:TYPES")])
    assert formats.find("json").name == "json"


def test_unknown_format_is_refused_with_the_names_there_are():
    """The error names the field, what there is, and what was probably meant."""
    with pytest.raises(EventValidationException, match=r"csv, json, parquet") as caught:
        ExportFormats(()).find("parket")
    assert caught.value.reason == "INVALID_FIELD"
    assert caught.value.violations[0].field == "format"
    assert "parquet?" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("tests.support.no_such_module:TYPES", "ModuleNotFoundError"),
        ("tests.support.types_format:MISSING", "AttributeError"),
        ("tests.support.types_format:NO_FORMAT", "it is a str"),
    ],
)
def test_broken_format_fails_those_who_ask_for_it_only(value, problem):
    """The error says what is wrong with the package; other formats go on working."""
    formats = ExportFormats([entry("broken", value)])
    with pytest.raises(EventException, match=problem) as caught:
        formats.find("broken")
    assert caught.value.reason == "INTERNAL"
    assert formats.find("csv").name == "csv"
