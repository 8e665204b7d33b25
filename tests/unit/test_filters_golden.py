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
from shared.events.ids import format_event_id
from shared.events.timestamps import parse_timestamp
from shared.filters.batch_filter import BatchFilter
from shared.filters.event_batch import EventBatch
from shared.filters.live_event import LiveEvent
from shared.filters.parser import parse_filter
from shared.filters.predicate import compile_predicate
from shared.filters.printer import print_filter
from shared.filters.resolution import resolve_now
from shared.filters.sql_functions import register_filter_functions
from shared.log.file_system import LocalFileSystem
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import SealOptions, seal_events
from tests.support.filter_sql import find_by_sql
from tests.support.reference_filter import reference_holds

_FOLDER = Path(__file__).parents[1] / "golden" / "filters"


def _read(name: str) -> dict[str, Any]:
    return json.loads((_FOLDER / name).read_text())


_GOLDEN = _read("cases.json")
_NOW_NS, _LOG_ID = parse_timestamp(_GOLDEN["now"]), _GOLDEN["log_id"]
_CASES = [pytest.param(case, id=f"{number}-{case['expression']}") for number, case in enumerate(_GOLDEN["cases"])]
_ERRORS = [pytest.param(error, id=error["expression"]) for error in _read("errors.json")["errors"]]
_LIMITS = [
    pytest.param(limit, id=f"{number}-{limit['reason']}") for number, limit in enumerate(_read("limits.json")["limits"])
]


def _row(event: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in event.items() if name != "metadata"} | event["metadata"]
    return flat | {name: parse_timestamp(flat[name]) for name in ("timestamp", "recorded_at")}


ROWS = [_row(event) for event in _GOLDEN["events"]]
EVENTS = pa.RecordBatch.from_pylist(ROWS, schema=EVENT_SCHEMA)
LIVE = [row | {"id": format_event_id(_LOG_ID, row["position"])} for row in ROWS]


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


@pytest.fixture(scope="module")
def stored(database, sealed) -> dict[str, tuple[list[int], ...]]:
    """What each case finds: as a plain table, and as a sealed file without and with promoted columns."""
    path, promoted = sealed
    assert promoted, "the file must have promoted columns for this to mean something"
    trees = [resolve_now(parse_filter(case["expression"]), _NOW_NS) for case in _GOLDEN["cases"]]
    plain = find_by_sql(database, "events", trees, log_id=_LOG_ID)
    unpromoted = find_by_sql(database, f"read_parquet('{path}')", trees, log_id=_LOG_ID)
    with_promoted = find_by_sql(database, f"read_parquet('{path}')", trees, log_id=_LOG_ID, promoted=promoted)
    found = zip(plain, unpromoted, with_promoted, strict=True)
    return dict(zip([case["expression"] for case in _GOLDEN["cases"]], found, strict=True))


@pytest.mark.parametrize("case", _CASES)
def test_case_prints_as_it_should(case):
    """An expression prints in its normal form, which reads as the same tree."""
    tree = parse_filter(case["expression"])
    assert print_filter(tree) == case["normalized"]
    assert parse_filter(case["normalized"]) == tree


@pytest.mark.parametrize("case", _CASES)
def test_case_matches_live_events(case):
    """One by one, as a batch, and for a naive evaluator, the events match that should."""
    tree, matches = parse_filter(case["expression"]), case["matches"]
    holds = compile_predicate(tree, _NOW_NS)
    assert [row["position"] for row in LIVE if holds(LiveEvent(**row))] == matches
    mask = BatchFilter(tree).mask(EventBatch(EVENTS, log_id=_LOG_ID), now_ns=_NOW_NS)
    assert [row["position"] for row, found in zip(ROWS, mask.tolist(), strict=True) if found] == matches
    assert [row["position"] for row in LIVE if reference_holds(tree, row, _NOW_NS)] == matches


@pytest.mark.parametrize("case", _CASES)
def test_case_matches_stored_events(stored, case):
    """As a plain table and as a sealed file, with promoted columns and without, the events match that should."""
    assert stored[case["expression"]] == (case["matches"],) * 3


@pytest.mark.parametrize("error", _ERRORS)
def test_wrong_expression_is_explained(error):
    """What is no filter is refused with reason, place and what was probably meant; the excerpt shows the place."""
    with pytest.raises(EventFilterException) as raised:
        parse_filter(error["expression"])
    refusal = raised.value
    assert refusal.reason == error["reason"]
    assert (int(refusal.metadata["line"]), int(refusal.metadata["column"])) == (error["line"], error["column"])
    assert refusal.metadata.get("suggestion", "") == error["suggestion"]
    shown, carets = refusal.metadata["excerpt"].split("\n")
    assert carets.index("^") == error["column"] - 1 <= len(shown)
    assert str(refusal).endswith(f"  {shown}\n  {carets}")


@pytest.mark.parametrize("limit", _LIMITS)
def test_limit_holds_exactly(limit):
    """What is at a limit is a filter that prints and reads again; one more is refused with the limit's own reason."""
    fits, exceeds = ("".join(text * count for text, count in limit[name]) for name in ("fits", "exceeds"))
    assert parse_filter(print_filter(parse_filter(fits))) == parse_filter(fits)
    with pytest.raises(EventFilterException) as raised:
        parse_filter(exceeds)
    assert (raised.value.reason, raised.value.metadata["limit"]) == (limit["reason"], str(limit["limit"]))
    assert raised.value.metadata["line"] == "1"
