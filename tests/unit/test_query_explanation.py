"""Explanations of filters, also of logs that are not whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from query_service.database import Database
from query_service.explanation import Explanation, explain, promoted_paths
from query_service.question import Question
from query_service.reading import Engine
from shared.filters.parser import parse_filter
from shared.log.log_reader import LocalLogReader
from shared.log.names import SEGMENTS
from shared.log.segment_columns import ColumnReader
from shared.log.types import Position
from tests.support.filter_strategies import LOG_ID
from tests.support.small_logs import SegmentPlan, SmallLog, write_log


@pytest.fixture
def log(tmp_path: Path) -> SmallLog:
    """Three segments of three events; all but the last are sealed."""
    fields = {"source": "", "correlation_id": None, "host": "", "version": "1", "user": None, "session_id": None}
    plans = []
    for segment in range(3):
        events = [
            {"timestamp": segment * 100 + n, "type": f"t{segment}", "payload": f'{{"a":{n}}}', "tags": []} | fields
            for n in range(3)
        ]
        plans.append(SegmentPlan([events], sealed=True, damaged=None))
    return write_log(tmp_path, plans)


@pytest.fixture
def engine(log: SmallLog) -> Iterator[Engine]:
    """An engine over the log; explaining does not open its database."""
    with Database(log.fs.path(SEGMENTS), threads=1, memory_bytes_max=1 << 28) as database:
        reader = ColumnReader(log.fs, LocalLogReader(log.fs), tail_bytes_max=1 << 20, use_sidecars=True)
        yield Engine(database, reader)


def _explained(log: SmallLog, engine: Engine, expression: str) -> Explanation:
    question = Question(LOG_ID, parse_filter(expression), None, Position(10))
    return explain(engine, question, LocalLogReader(log.fs).committed())


def test_each_segment_is_read_or_not_for_a_reason(log: SmallLog, engine: Engine) -> None:
    """By types, by timestamps, by positions, or because the filter cannot hold at all."""
    for expression, read, why in (
        ("type = 't1'", [False, True, True], "type"),
        ("timestamp >= '1970-01-01T00:00:00.000000100Z'", [False, True, True], "timestamps"),
        ("position > 3", [False, True, True], "positions"),
        ("payload.a = 1", [True, True, True], "does not rule it out"),
        ("position > 3 AND position < 2", [False, False, False], "contradicts"),
    ):
        explained = _explained(log, engine, expression)
        assert [each.read for each in explained.segments] == read, expression
        assert why in explained.segments[0].why


def test_a_hole_in_the_log_is_explained_around(log: SmallLog, engine: Engine) -> None:
    """What no segment holds needs no decision."""
    for path in log.fs.path(SEGMENTS).glob(f"{4:020d}-*"):
        path.unlink()
    explained = _explained(log, engine, "payload.a = 1")
    assert [each.first for each in explained.segments] == [1, 7]


def test_the_tree_is_drawn_and_the_sql_has_no_values(log: SmallLog, engine: Engine) -> None:
    """A line a node; parameters are question marks."""
    explained = _explained(log, engine, "NOT (type = 'x' OR payload.a > 5) AND source = 'secret'")
    lines = explained.tree.splitlines()
    assert lines[0] == "AND"
    assert lines[1].endswith("NOT")
    assert "OR" in lines[2]
    assert "?" in explained.sql
    assert "secret" not in explained.sql
    assert "$" not in explained.sql


def test_frequent_paths_are_those_of_the_newest_sealed_segment(log: SmallLog, engine: Engine) -> None:
    """An export takes its columns from them."""
    assert promoted_paths(engine, LocalLogReader(log.fs).committed()) == (("a",),)
