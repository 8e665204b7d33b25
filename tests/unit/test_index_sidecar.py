"""The index sidecar: exact counts and bounds, no false negatives, no trust in damaged bytes."""

import random

import pyarrow as pa
import pytest

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.log.bloom_filter import BloomFilter, hash_column
from shared.log.file_system import LocalFileSystem
from shared.log.index_sidecar import Sidecar, SidecarBuilder, build_sidecar, rebuild_sidecar
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import SealOptions, seal_events
from tests.support.reference_events import event_batch, reference_batch

CLASSES = RetentionClasses(default_seconds=90, by_type={})


def table(*batches: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches(batches, EVENT_SCHEMA)


def test_summary_is_exact():
    """Rows, bounds and counts are those of the events."""
    hour = 3_600 * 10**9
    events = event_batch(
        [
            {"type": "a", "source": "s", "timestamp": 5 * hour, "recorded_at": 7},
            {"type": "b", "source": "s", "timestamp": -1, "recorded_at": 8},
            {"type": "a", "source": "t", "timestamp": 6 * hour - 1, "recorded_at": 9},
        ],
        first_position=2**60,
    )
    summary = Sidecar.load(build_sidecar(table(events))).summary
    assert summary.rows == 3
    assert summary.position is not None
    assert (summary.position.first, summary.position.last) == (2**60, 2**60 + 2)
    assert summary.recorded_at is not None
    assert (summary.recorded_at.first, summary.recorded_at.last) == (7, 9)
    assert summary.timestamp is not None
    assert (summary.timestamp.first, summary.timestamp.last) == (-1, 6 * hour - 1)
    assert (summary.by_type.by_value, summary.by_type.cut) == ({"a": 2, "b": 1}, False)
    assert summary.by_source.by_value == {"s": 2, "t": 1}
    assert summary.by_hour == {5: 2, -1: 1}


def test_no_events_have_no_bounds():
    """The sidecar of a file without rows says that nothing can be in it."""
    sidecar = Sidecar.load(build_sidecar(table()))
    assert sidecar.summary.rows == 0
    assert sidecar.summary.position is None
    assert sidecar.summary.timestamp is None
    assert not sidecar.may_contain_user("anyone")


def test_every_value_may_be_contained():
    """The filters have no false negatives."""
    events = reference_batch(20_000, 3, 1)
    sidecar = Sidecar.load(build_sidecar(table(events)))
    assert all(sidecar.may_contain_correlation_id(v) for v in events["correlation_id"].unique().to_pylist())
    assert all(sidecar.may_contain_session_id(v) for v in events["session_id"].unique().to_pylist())
    assert all(sidecar.may_contain_user(v) for v in events["user"].unique().to_pylist())


def test_strange_values_may_be_contained():
    """Empty strings, non-ASCII and null characters are found; null is no value."""
    values = ["", "é", "\U0001f600", "a\0b", "\n", None, "x" * 10_000]
    events = event_batch([{"correlation_id": value} for value in values])
    sidecar = Sidecar.load(build_sidecar(table(events)))
    assert all(sidecar.may_contain_correlation_id(value) for value in values if value is not None)
    assert not sidecar.may_contain_correlation_id("absent")
    assert not sidecar.may_contain_session_id("")


def test_absent_values_are_mostly_excluded():
    """About one absent value in a hundred seems to be there."""
    present = BloomFilter.of(pa.array([f"pipe_{n}" for n in range(20_000)]))
    wrong = sum(present.may_contain(f"absent_{n}") for n in range(5_000))
    assert wrong < 100
    assert len(present.bitmap) == 25_000


def test_hash_of_a_column_is_that_of_single_values():
    """Whatever lies beside a value, and however the column is cut: the hash is FNV-1a, mixed."""
    values = ["", "a", "é", "\0", "pipe_0000abcd", "x" * 255, "a"]
    expected = [_hash(value.encode()) for value in values]
    assert hash_column(pa.array(values)).tolist() == expected
    assert hash_column(pa.array(["before", *values, "after"]).slice(1, len(values))).tolist() == expected
    assert hash_column(pa.chunked_array([values[:2], values[2:]])).tolist() == expected
    assert hash_column(pa.array([], pa.string())).tolist() == []


def _hash(data: bytes) -> int:
    """FNV-1a with 64 bits, then the finaliser of splitmix64."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    found = (found ^ (found >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    found = (found ^ (found >> 27)) * 0x94D049BB133111EB % 2**64
    return found ^ (found >> 31)


def test_sidecar_is_the_same_however_the_events_come():
    """Built of all events at once or row group by row group: the same bytes."""
    events = table(reference_batch(5000, 3, 1))
    builder = SidecarBuilder()
    for start in range(0, 5000, 777):
        builder.add(events.slice(start, 777))
    assert builder.finish() == build_sidecar(events)


def test_long_lists_are_cut_and_say_so():
    """Of more than 10,000 sources the most frequent are kept, with a flag."""
    sources = [*(f"source{n:05}" for n in range(10_001)), "often", "often"]
    summary = Sidecar.load(build_sidecar(table(event_batch([{"source": s} for s in sources])))).summary
    assert summary.by_source.cut
    assert len(summary.by_source.by_value) == 10_000
    assert summary.by_source.by_value["often"] == 2


def test_damaged_sidecar_is_refused():
    """Any flipped bit, any cut and anything appended raises ValueError."""
    data = build_sidecar(table(reference_batch(300, 1, 1)))
    for bit in [*range(8 * 40), *random.Random(1).sample(range(8 * len(data)), 300)]:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="index"):
            Sidecar.load(bytes(damaged))
    for wrong in [b"", b"x", data[:-1], data[:28], data + b"\0"]:
        with pytest.raises(ValueError, match="index"):
            Sidecar.load(wrong)


def test_rebuilt_sidecar_is_the_same(tmp_path):
    """A sidecar made anew from the sealed file is byte for byte the one that sealing wrote."""
    fs = LocalFileSystem(tmp_path)
    events = reference_batch(1000, 1, 1)
    (file,) = seal_events(fs, first=1, last=1000, events=[events], log_id="log", classes=CLASSES).files
    before = fs.read(file.name.index)
    fs.remove(file.name.index)
    assert rebuild_sidecar(fs, file.name.parquet) == file.name.index
    assert fs.read(file.name.index) == before
    assert rebuild_sidecar(fs, file.name.parquet) == file.name.index


def test_damaged_file_gets_no_sidecar(tmp_path):
    """Rebuilding the index of a file with unreadable rows is refused, for it would hide them for ever."""
    fs = LocalFileSystem(tmp_path)
    events = reference_batch(100, 1, 1)
    options = SealOptions(write_index=False)
    (file,) = seal_events(fs, first=1, last=100, events=[events], log_id="log", classes=CLASSES, options=options).files
    fs.remove(file.name.repair)
    data = bytearray(fs.read(file.name.parquet))
    data[50] ^= 1
    fs.path(file.name.parquet).write_bytes(data)
    with pytest.raises(LogCorrupted):
        rebuild_sidecar(fs, file.name.parquet)
    assert file.name.index not in fs.list("segments")
