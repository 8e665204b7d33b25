"""Columns of payload paths for the tail: extracted for a path asked for again, exact, bounded, forgotten in time."""

import json
from collections.abc import Sequence

import pyarrow as pa
import pytest

from shared.columns.schema import EVENT_SCHEMA
from shared.log.sealed_metadata import TimeBounds
from shared.log.tail_columns import TailBlock
from shared.log.tail_payloads import PATHS_KEPT_MAX, TailPayloads
from shared.log.types import Position
from tests.support.reference_events import event_batch

_MIB = 1024 * 1024


def _block(payloads: Sequence[str], first: int = 1) -> TailBlock:
    events = event_batch([{"payload": text} for text in payloads], first).select(EVENT_SCHEMA.names)
    until = Position(first + len(payloads))
    table = pa.Table.from_batches([events])
    return TailBlock(Position(first), until, closed=True, events=table, timestamps=TimeBounds(0, 1), hashes={})


def _found(payloads: Sequence[object], path: tuple[str, ...] = ("n",)) -> dict[str, tuple[bool, list[object]]]:
    """Kinds of the columns, whether the path has no other kind, and their values."""
    columns = TailPayloads(_MIB)
    promoted, values = columns.of("a.log", _block([json.dumps(each) for each in payloads]), [path])
    columns.close()
    assert all(column.complete and column.path == path for column in promoted)
    return {column.kind: (column.only, array.to_pylist()) for column, array in zip(promoted, values, strict=True)}


@pytest.mark.parametrize(
    ("payloads", "expected"),
    [
        ([{"n": 1}, {"n": -2}, {}], {"integer": (True, [1, -2, None])}),
        ([{"n": 1}, {"n": "1"}], {"integer": (False, [1, None]), "string": (False, [None, "1"])}),
        ([{"n": 0.5}, {"n": 2}], {"double": (True, [0.5, 2.0])}),
        ([{"n": True}, {"n": None}], {"boolean": (False, [True, None])}),
        ([{"n": 10**30}, {"n": 0.5}], {}),
        ([{"n": [1]}, {"n": {"m": 1}}], {}),
        ([{}, {"m": 1}], {"string": (True, [None, None])}),
    ],
)
def test_columns_hold_what_is_exact(payloads: list[object], expected: dict[str, object]) -> None:
    """By kind; what has no exact place is left to the text; a path that nobody has is told by an empty column."""
    assert _found(payloads) == expected


def test_a_payload_that_duckdb_cannot_parse_is_left_to_the_text() -> None:
    """Half a surrogate pair is JSON to some."""
    columns = TailPayloads(_MIB)
    assert columns.of("a.log", _block(['{"n": "\\ud800"}', '{"n": 1}']), [("n",)]) == ((), [])
    columns.close()


def test_only_paths_that_are_asked_for_again_are_extracted() -> None:
    """Of those the newest so many are known; paths that DuckDB has no expression for never are."""
    columns = TailPayloads(_MIB)
    assert columns.worth_extracting([("a",), ("b",)]) == ()
    assert columns.worth_extracting([("b",), ("c",), ("b",)]) == (("b",),)
    for number in range(PATHS_KEPT_MAX):
        columns.worth_extracting([(f"other{number}",)])
    assert columns.worth_extracting([("a",), ("b",), ("c",)]) == ()
    assert columns.worth_extracting([("",)]) == columns.worth_extracting([("",)]) == ()


def test_what_is_kept_is_bounded_and_forgotten_with_its_segment() -> None:
    """In bytes, over all segments."""
    block = _block(['{"n": 1}'] * 1000)
    columns = TailPayloads(10_000)
    for name in ("a.log", "b.log"):
        (promoted, values) = columns.of(name, block, [("n",)])
        assert (len(promoted), len(values[0])) == (1, 1000)
    assert 8_000 <= columns.cache.weight <= 10_000
    columns.of("b.log", block, [("n",)])
    assert columns.cache.hits == 1
    columns.keep_only(lambda name: name == "a.log")
    assert columns.cache.weight == 0
    columns.close()
