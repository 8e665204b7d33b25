"""The SQL of a filter, its predicate, its mask, and a naive evaluator agree on every event, however it is stored."""

import itertools
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_service.question import paths_of_keys
from shared.columns.schema import EVENT_SCHEMA
from shared.filters import tree as t
from shared.filters.batch_filter import BatchFilter
from shared.filters.event_batch import EventBatch
from shared.filters.live_event import LiveEvent
from shared.filters.predicate import compile_predicate
from shared.filters.printer import print_filter
from shared.filters.resolution import resolve_now
from shared.filters.sql_functions import register_filter_functions
from shared.log.file_system import LocalFileSystem
from shared.log.payload_keys import absent_columns
from shared.log.promoted_columns import PromotedColumn
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import SealOptions, seal_events
from shared.log.types import Damage, PositionRange
from tests.support import filter_strategies as fs
from tests.support.filter_sql import find_by_sql
from tests.support.reference_filter import reference_holds

CLASSES = RetentionClasses(default_seconds=90, by_type={})
OPTIONS = SealOptions(promoted_paths=(("a",), ("b",), ("b", "a"), ("é",)), write_index=False)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    config = {"threads": 1, "autoload_known_extensions": False, "autoinstall_known_extensions": False}
    with duckdb.connect(config=config) as connection:
        register_filter_functions(connection)
        yield connection


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sealed")


def live(event) -> LiveEvent:
    return LiveEvent(**event)


def batch_of(events) -> pa.RecordBatch:
    rows = [{name: event[name] for name in EVENT_SCHEMA.names} for event in events]
    return pa.RecordBatch.from_pylist(rows, schema=EVENT_SCHEMA)


def found(database, relation: str, trees: list[t.Tree], promoted: tuple[PromotedColumn, ...] = ()) -> list[list[int]]:
    resolved = [resolve_now(tree, fs.NOW_NS) for tree in trees]
    return find_by_sql(database, relation, resolved, log_id=fs.LOG_ID, promoted=promoted)


def expected(tree: t.Tree, events) -> list[int]:
    return [event["position"] for event in events if reference_holds(tree, event, fs.NOW_NS)]


def predicted(tree: t.Tree, events) -> list[int]:
    holds = compile_predicate(tree, fs.NOW_NS)
    return [event["position"] for event in events if holds(live(event))]


def masked(tree: t.Tree, batch: EventBatch, events) -> list[int]:
    mask = BatchFilter(tree).mask(batch, now_ns=fs.NOW_NS)
    return [event["position"] for event, holds in zip(events, mask.tolist(), strict=True) if holds]


def compare(database, events, trees: list[t.Tree]) -> None:
    """Compare all evaluators on a plain table, without promoted columns."""
    events_batch = batch_of(events)
    database.register("events", pa.Table.from_batches([events_batch]))
    batch = EventBatch(events_batch, log_id=fs.LOG_ID)
    for tree, in_sql in zip(trees, found(database, "events", trees), strict=True):
        wanted = expected(tree, events)
        assert predicted(tree, events) == wanted, print_filter(tree)
        assert masked(tree, batch, events) == wanted, print_filter(tree)
        assert in_sql == wanted, print_filter(tree)


@settings(max_examples=120)
@given(fs.event_lists(), st.lists(fs.trees, min_size=4, max_size=8))
def test_predicate_mask_and_sql_agree_with_the_reference(database, events, trees):
    """Some thousand pairs of a filter and an event."""
    compare(database, events, trees)


@settings(max_examples=12)
@given(fs.event_lists(payload=fs.hostile_payloads), st.lists(fs.trees, min_size=4, max_size=8))
def test_payloads_that_the_log_refuses_are_read_alike(database, events, trees):
    """Half surrogate pairs, which DuckDB does not parse, change nothing for other keys."""
    compare(database, events, trees)


@settings(max_examples=30)
@given(fs.event_lists(), st.lists(fs.trees, min_size=1, max_size=5))
def test_promoted_columns_never_change_an_answer(database, folder, events, trees):
    """On a sealed file as DuckDB reads it, with its promoted columns and those of absent paths, and without."""
    first, last = events[0]["position"], events[-1]["position"]
    places = [event["position"] for event in events]
    damage = [
        Damage(PositionRange(one + 1, other - 1), "x.log", "lost")
        for one, other in itertools.pairwise(places)
        if other > one + 1
    ]
    disk = LocalFileSystem(folder)
    sealed = seal_events(
        disk,
        first=first,
        last=last,
        events=[batch_of(events)],
        log_id=fs.LOG_ID,
        classes=CLASSES,
        options=OPTIONS,
        damage=damage,
    )
    (file,) = sealed.files
    relation = f"read_parquet('{folder / file.name.parquet}')"
    paths = paths_of_keys(leaf.field for tree in trees for leaf in t.leaves(tree))
    absent = absent_columns(paths, file.metadata.payload_keys)
    promoted = found(database, relation, trees, file.metadata.promoted + absent)
    plain = found(database, relation, trees)
    for tree, by_promoted, by_json in zip(trees, promoted, plain, strict=True):
        wanted = expected(tree, events)
        assert by_promoted == wanted, print_filter(tree)
        assert by_json == wanted, print_filter(tree)
