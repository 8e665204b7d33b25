"""The bounds of a filter never exclude an event for which it holds, nor a file that has such an event."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.columns.schema import EVENT_SCHEMA
from shared.filters import tree as t
from shared.filters.bounds import Bounds
from shared.filters.bounds_extraction import extract_bounds
from shared.filters.printer import print_filter
from shared.filters.resolution import push_not_down, resolve_now
from shared.log.index_sidecar import Sidecar, build_sidecar
from tests.support import filter_strategies as fs
from tests.support.reference_filter import reference_holds

# What bounds can come from; comparisons of the payload only dilute it.
columns = fs.leaves().filter(lambda leaf: leaf.field.name != "payload")
trees = st.recursive(columns | columns | fs.leaves(), fs.branches, max_leaves=6)


def sidecar_of(events) -> Sidecar:
    rows = [{name: event[name] for name in EVENT_SCHEMA.names} for event in events]
    return Sidecar.load(build_sidecar(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)))


def inside(bounds: Bounds, event) -> bool:
    """Whether an event is within every bound."""
    equalities = [
        (bounds.ids, event["id"]),
        (bounds.correlation_ids, event["correlation_id"]),
        (bounds.session_ids, event["session_id"]),
        (bounds.users, event["user"]),
        (bounds.types, event["type"]),
        (bounds.sources, event["source"]),
    ]
    intervals = [
        (bounds.position, event["position"]),
        (bounds.timestamp, event["timestamp"]),
        (bounds.recorded_at, event["recorded_at"]),
    ]
    return all(values is None or value in values for values, value in equalities) and all(
        interval.overlaps(number, number) for interval, number in intervals
    )


@settings(max_examples=80)
@given(fs.event_lists(), trees)
def test_pruning_never_changes_an_answer(events, tree):
    """An event for which a filter holds is within its bounds, and its file may match."""
    bounds = extract_bounds(resolve_now(tree, fs.NOW_NS), fs.LOG_ID)
    matching = [event for event in events if reference_holds(tree, event, fs.NOW_NS)]
    for event in matching:
        assert inside(bounds, event), print_filter(tree)
    if matching:
        assert not bounds.is_empty
        assert bounds.may_match(sidecar_of(events)), print_filter(tree)
        assert bounds.may_match(sidecar_of(matching[:1])), print_filter(tree)


@settings(max_examples=120)
@given(fs.event_lists(), trees)
def test_pushing_not_down_never_changes_an_answer(events, tree):
    """A tree whose NOTs are pushed down to the comparisons holds for the same events of the log."""
    pushed = push_not_down(tree)
    for event in events:
        assert reference_holds(pushed, event, fs.NOW_NS) == reference_holds(tree, event, fs.NOW_NS), print_filter(tree)


@given(trees)
def test_not_stays_before_comparisons_only(tree):
    """After pushing down, NOT stands before comparisons only."""
    stack = [push_not_down(tree)]
    while stack:
        node = stack.pop()
        if isinstance(node, t.Not):
            assert not isinstance(node.operand, t.And | t.Or | t.Not)
        elif isinstance(node, t.And | t.Or):
            stack.extend(node.operands)
