"""The golden cases of the filter language hold in every evaluator."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import EventFilterException
from shared.events.timestamps import parse_timestamp
from shared.filters.batch_filter import BatchFilter
from shared.filters.event_batch import EventBatch
from shared.filters.live_event import LiveEvent
from shared.filters.parser import parse_filter
from shared.filters.predicate import compile_predicate
from shared.filters.printer import print_filter
from shared.filters.resolution import resolve_now
from shared.filters.sql import to_sql
from shared.filters.sql_functions import register_filter_functions
from shared.log.file_system import LocalFileSystem
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import SealOptions, seal_events

_FOLDER = Path(__file__).parents[1] / "golden" / "filters"
_GOLDEN: dict[str, Any] = json.loads((_FOLDER / "cases.json").read_text())
_NOW_NS = parse_timestamp(_GOLDEN["now"])
_LOG_ID = "AAAAAAAA"
_CASES = [pytest.param(case, id=case["expression"]) for case in _GOLDEN["cases"]]
_ERRORS = [
    pytest.param(error, id=error["expression"]) for error in json.loads((_FOLDER / "errors.json").read_text())["errors"]
]


def _row(event: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in event.items() if name != "metadata"} | event["metadata"]
    return flat | {name: parse_timestamp(flat[name]) for name in ("timestamp", "recorded_at")}


ROWS = [_row(event) for event in _GOLDEN["events"]]
EVENTS = pa.RecordBatch.from_pylist(ROWS, schema=EVENT_SCHEMA)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that has the events as a plain table."""
    with duckdb.connect(config={"threads": 1, "autoload_known_extensions": False}) as connection:
        register_filter_functions(connection)
        connection.register("events", pa.Table.from_batches([EVENTS]))
        yield connection


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """The events in a sealed file: its path, and its promoted columns."""
    folder = tmp_path_factory.mktemp("golden")
    segment = seal_events(
        LocalFileSystem(folder),
        first=1,
        last=len(ROWS),
        events=[EVENTS],
        log_id=_LOG_ID,
        classes=RetentionClasses(default_seconds=90, by_type={}),
        options=SealOptions(),
    )
    (file,) = segment.files
    return folder / file.name.parquet, file.metadata.promoted


def _found(database, relation: str, expression: str, promoted=()) -> list[int]:
    tree = resolve_now(parse_filter(expression), _NOW_NS)
    sql = to_sql(tree, promoted=promoted, log_id=_LOG_ID)
    statement = f"SELECT position FROM {relation} WHERE {sql.text} ORDER BY position"
    return [row[0] for row in database.execute(statement, sql.parameters).fetchall()]


@pytest.mark.parametrize("case", _CASES)
def test_case_prints_as_it_should(case):
    """An expression prints in its normal form, which reads as the same tree."""
    tree = parse_filter(case["expression"])
    assert print_filter(tree) == case["normalized"]
    assert parse_filter(case["normalized"]) == tree


@pytest.mark.parametrize("case", _CASES)
def test_case_matches_live_events(case):
    """One by one and as a batch, the events match that should."""
    tree = parse_filter(case["expression"])
    holds = compile_predicate(tree, _NOW_NS)
    assert [row["position"] for row in ROWS if holds(LiveEvent(**row))] == case["matches"]
    mask = BatchFilter(tree).mask(EventBatch(EVENTS, log_id=_LOG_ID), now_ns=_NOW_NS)
    assert [row["position"] for row, matches in zip(ROWS, mask.tolist(), strict=True) if matches] == case["matches"]


@pytest.mark.parametrize("case", _CASES)
def test_case_matches_stored_events(database, sealed, case):
    """As a plain table and as a sealed file, with promoted columns and without, the events match that should."""
    path, promoted = sealed
    assert promoted, "the file must have promoted columns for this to mean something"
    relation = f"read_parquet('{path}')"
    assert _found(database, "events", case["expression"]) == case["matches"]
    assert _found(database, relation, case["expression"]) == case["matches"]
    assert _found(database, relation, case["expression"], promoted) == case["matches"]


@pytest.mark.parametrize("error", _ERRORS)
def test_wrong_expression_is_explained(error):
    """What is no filter is refused with reason, place and what was probably meant; the message shows the place."""
    with pytest.raises(EventFilterException) as raised:
        parse_filter(error["expression"])
    refusal = raised.value
    assert refusal.reason == error["reason"]
    assert (int(refusal.metadata["line"]), int(refusal.metadata["column"])) == (error["line"], error["column"])
    assert refusal.metadata.get("suggestion", "") == error["suggestion"]
    assert "^" in str(refusal).splitlines()[-1]
