"""Sharing chains among consumers: stable, even, and with little movement."""

import numpy as np
import pyarrow as pa

from stream_service.slots import CONSUMERS_MAX, SLOTS, owners_of, slots_of


def positions(count):
    """Positions from 1 on."""
    return np.arange(1, count + 1, dtype=np.uint64)


def test_a_chain_has_one_slot():
    """Events of one correlation id have one slot, whatever stands around them."""
    ids = pa.array(["a", "b", "a", "", None, "a", "x" * 255])
    slots = slots_of(positions(7), ids)
    assert slots[0] == slots[2] == slots[5]
    assert slots_of(positions(1), pa.array(["x" * 255]))[0] == slots[6]
    assert slots_of(positions(2), ids.slice(1, 2)).tolist() == [slots[1], slots[2]]


def test_slots_are_frozen():
    """The slot of a chain is the same in every version: consumers of two versions share a group."""
    ids = pa.array(["pipe_0000abcd", "pipe_0000abce", "x", None])
    assert slots_of(positions(4), ids).tolist() == slots_of(positions(4), ids).tolist()
    assert len(set(slots_of(positions(4), ids).tolist())) > 1


def test_events_without_a_chain_are_spread():
    """Events without a correlation id, null or empty, are spread over all slots."""
    none = slots_of(positions(20_000), pa.nulls(20_000, pa.string()))
    empty = slots_of(positions(20_000), pa.array([""] * 20_000))
    assert (none == empty).all()
    assert len(np.unique(none)) == SLOTS


def test_chains_are_spread():
    """Chains that differ in a digit only are spread over the slots."""
    slots = slots_of(positions(20_000), pa.array([f"pipe_{number:08x}" for number in range(20_000)]))
    assert len(np.unique(slots)) == SLOTS
    assert np.bincount(slots).max() < 60


def test_consumers_share_evenly():
    """Each of eight consumers has about an eighth of the slots."""
    counts = np.bincount(owners_of([f"consumer {number}" for number in range(8)]))
    assert counts.min() > SLOTS / 8 * 0.6
    assert counts.max() < SLOTS / 8 * 1.4


def test_only_slots_of_who_comes_or_goes_move():
    """When a consumer joins, slots move to it only; when it leaves, they go back."""
    before = np.array(["a", "b", "c"])[owners_of(["a", "b", "c"])]
    after = np.array(["a", "b", "c", "d"])[owners_of(["a", "b", "c", "d"])]
    moved = before != after
    assert moved.any()
    assert set(after[moved]) == {"d"}


def test_as_many_consumers_as_allowed():
    """The largest group has a slot for each of its consumers."""
    names = [f"consumer {number}" for number in range(CONSUMERS_MAX)]
    assert len(np.unique(owners_of(names))) == CONSUMERS_MAX
