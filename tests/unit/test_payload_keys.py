"""Which keys the payloads of a file have, and what is said of paths that no event has."""

import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.columns.arrow import StringArray
from shared.columns.schema import EVENT_SCHEMA
from shared.log.file_system import LocalFileSystem
from shared.log.payload_keys import KEY_BYTES_MAX, KEYS_MAX, PayloadKeys, absent_columns
from shared.log.promoted_columns import JsonExtractor
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import seal_events
from shared.log.types import Position
from tests.support.filter_strategies import LOG_ID

_keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def _found(*chunks: list[str]) -> tuple[str, ...] | None:
    with JsonExtractor() as extractor:
        keys = PayloadKeys(extractor)
        for texts in chunks:
            keys.add(_texts(texts))
        return keys.found


def _texts(texts: list[str]) -> StringArray:
    return pa.array(texts, pa.string())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(_keys, st.none() | st.integers() | st.dictionaries(_keys, st.booleans())), min_size=1))
def test_every_key_at_the_root_is_found_and_no_other(payloads):
    """Whatever characters it has, escaped or not, and in whichever chunk it comes."""
    texts = [json.dumps(payload, ensure_ascii=bool(number % 2)) for number, payload in enumerate(payloads)]
    expected = {key for payload in payloads for key in payload}
    assert _found(texts[:2], texts[2:]) == tuple(sorted(expected))


def test_an_escaped_key_is_found_as_what_it_means() -> None:
    """As json_extract finds its value."""
    assert _found(['{"le\\u0076el": 1}']) == ("level",)


@pytest.mark.parametrize(
    "texts",
    [
        [json.dumps({f"key{number}": 1}) for number in range(KEYS_MAX + 1)],
        [json.dumps({"x" * (KEY_BYTES_MAX + 1): 1})],
        ['{"a": "\\ud800"}'],
    ],
)
def test_nothing_is_said_of_a_file_with_too_many_keys_or_payloads_that_cannot_be_read(texts: list[str]) -> None:
    """Also when readable ones come before and after; then no path is absent."""
    assert _found(['{"a": 1}'], texts, ['{"b": 1}']) is None
    assert absent_columns([("zzz",)], None) == ()


def test_paths_below_an_absent_key_are_absent() -> None:
    """A path below a key that occurs may or may not be there: nothing is said of it."""
    columns = absent_columns([("a",), ("b", "c"), ("a", "c")], ("a",))
    assert [column.path for column in columns] == [("b", "c")]
    assert all(column.only and column.complete and not column.column for column in columns)


def test_a_sealed_file_names_the_keys_of_its_payloads() -> None:
    """Those of all of its events."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [_row(number, f'{{"k{number % 3}": 1}}') for number in range(1, 8)]
        batch = pa.RecordBatch.from_pylist(rows, schema=EVENT_SCHEMA)
        classes = RetentionClasses(default_seconds=90, by_type={})
        sealed = seal_events(
            LocalFileSystem(Path(folder)),
            first=Position(1),
            last=Position(7),
            events=[batch],
            log_id=LOG_ID,
            classes=classes,
        )
        (file,) = sealed.files
        assert file.metadata is not None
        assert file.metadata.payload_keys == ("k0", "k1", "k2")


def _row(position: int, payload: str) -> dict[str, object]:
    fields = {"position": position, "recorded_at": position, "timestamp": position, "type": "a", "source": "s"}
    texts = {"correlation_id": None, "payload": payload, "host": "", "version": "1", "user": None, "session_id": None}
    return fields | texts | {"tags": []}
