"""Any events, sealed and read back, are the same events."""

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.columns.schema import EVENT_SCHEMA
from shared.log.index_sidecar import Sidecar
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_merge import SealedSegment
from shared.log.sealed_segment import SealOptions, seal_events
from shared.log.sealed_verify import verify_sealed
from shared.log.types import Damage, PositionRange
from tests.support.memory_file_system import MemoryFileSystem

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
nanoseconds = st.integers(-(2**63), 2**63 - 1)
numbers = st.one_of(
    st.integers(-5, 5),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63]),
    st.floats(allow_nan=False, allow_infinity=False),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["x", "y", "é.", '"']), inner, max_size=2)
    ),
    max_leaves=4,
)
payloads = st.one_of(
    st.just("{}"),
    st.dictionaries(st.sampled_from(["a", "b", "c d", "e\\"]) | texts, values, max_size=4).map(json.dumps),
    st.lists(st.tuples(st.sampled_from("ab"), scalars), max_size=3).map(
        lambda pairs: "{" + " , ".join(f"{json.dumps(k)} :{json.dumps(v, ensure_ascii=False)}" for k, v in pairs) + "}"
    ),
    st.sampled_from(['{"a": 0.1000000000000000055}', '{"a":1e400}', '{"a": 1.50}', '{"a":"\\ud800"}', '{"a":-0}']),
)
events = st.fixed_dictionaries(
    {
        "recorded_at": nanoseconds,
        "timestamp": nanoseconds,
        "type": st.sampled_from(["error", "error.disk", "hook.tool", "other", "é"]) | texts,
        "source": texts,
        "correlation_id": st.none() | texts,
        "payload": payloads,
        "host": texts,
        "version": texts,
        "user": st.none() | texts,
        "session_id": st.none() | texts,
        "tags": st.lists(texts, max_size=3),
    }
)
CLASSES = RetentionClasses(default_seconds=90, by_type={"error": 365, "hook.*": 7, "?": 3})


@st.composite
def segments(draw):
    """Events with positions that leave gaps, and damage that accounts for the gaps."""
    first = draw(st.integers(1, 2**63))
    position = first
    rows = []
    damage = []
    for event in draw(st.lists(events, max_size=25)):
        gap = draw(st.sampled_from([0, 0, 0, 1, 5]))
        if gap:
            damage.append(Damage(PositionRange(position, position + gap - 1), "x.log", "lost"))
        rows.append({"position": position + gap, **event})
        position += gap + 1
    if not rows:
        damage.append(Damage(PositionRange(first, first), "x.log", "lost"))
        position += 1
    return first, position - 1, pa.RecordBatch.from_pylist(rows, EVENT_SCHEMA), damage


def joined(batches) -> pa.Table:
    return pa.Table.from_batches(list(batches), EVENT_SCHEMA).combine_chunks()


@settings(max_examples=60, deadline=None)
@given(segments(), st.integers(1, 10), st.sampled_from([2, 5, 65_536]), st.booleans(), st.data())
def test_sealed_events_come_back(segment, cut, row_group_rows, compress, data):
    """Whatever is in them: the same rows in the same order, in any range, verified, with a true index."""
    first, last, batch, damage = segment
    disk = MemoryFileSystem()
    pieces = [batch.slice(start, cut) for start in range(0, len(batch), cut)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.log.sealed_rows.ROW_GROUP_ROWS_MAX", row_group_rows)
        sealed = seal_events(
            disk,
            first=first,
            last=last,
            events=pieces,
            log_id="log",
            classes=CLASSES,
            damage=damage,
            options=SealOptions(promoted_paths=(("a",), ("b", "x")), compress=compress),
        )
    assert joined(sealed.batches(first, last + 1)).equals(joined([batch]))
    assert sealed.damage == tuple(damage)
    start = data.draw(st.integers(first - 1, last + 1))
    end = data.draw(st.integers(start, last + 2))
    positions = [p for p in batch["position"].to_pylist() if start <= p < end]
    assert joined(sealed.batches(start, end)).column("position").to_pylist() == positions
    for file in sealed.files:
        assert verify_sealed(disk, file.name.parquet) == []
        sidecar = Sidecar.load(disk.read(file.name.index))
        rows = file.table()
        assert sidecar.summary.rows == rows.num_rows
        assert all(map(sidecar.may_contain_correlation_id, rows["correlation_id"].drop_null().to_pylist()))
        assert all(map(sidecar.may_contain_session_id, rows["session_id"].drop_null().to_pylist()))
        assert all(map(sidecar.may_contain_user, rows["user"].drop_null().to_pylist()))


@settings(max_examples=40, deadline=None)
@given(segments(), st.randoms(use_true_random=False), st.booleans())
def test_damage_anywhere_is_harmless_or_reported(segment, chance, with_repair_data):
    """Any byte of any file wrong: what is read is a part of the events, and what is missing is reported."""
    first, last, batch, damage = segment
    disk = MemoryFileSystem()
    seal_events(disk, first=first, last=last, events=[batch], log_id="log", classes=CLASSES, damage=damage)
    names = list(disk.files())
    if not with_repair_data:
        for name in [name for name in names if name.endswith(".par")]:
            disk.delete(name)
            names.remove(name)
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(names)
        disk.flip(name, chance.randrange(len(disk.files()[name])), 1 << chance.randrange(8))
    sealed = SealedSegment.open(disk, [name for name in names if name.endswith(".parquet")])
    found = joined(sealed.batches(first, last + 1))
    lost = [each.positions for each in sealed.damage]
    kept = [
        number
        for number, position in enumerate(batch["position"].to_pylist())
        if position in set(found["position"].to_pylist())
    ]
    assert found.equals(joined([batch]).take(pa.array(kept, pa.int64())).combine_chunks())
    for position in set(batch["position"].to_pylist()) - set(found["position"].to_pylist()):
        assert any(each.first <= position <= each.last for each in lost)
