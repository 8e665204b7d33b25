"""Damaged files of sealed segments: the answer is identical or the damage is reported, never anything else."""

import io
import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import EventStorageException
from shared.log import sealed_rows
from shared.log.promoted_columns import JsonExtractor
from shared.log.repair_data import BLOCK_BYTES
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_merge import SealedSegment
from shared.log.sealed_reader import read_sealed
from shared.log.sealed_segment import seal_events
from shared.log.sealed_verify import repair_sealed, verify_sealed
from shared.log.types import PositionRange
from tests.support.memory_file_system import MemoryFileSystem
from tests.support.reference_events import reference_batch

CLASSES = RetentionClasses(default_seconds=90, by_type={})
ROWS = 400
GROUP_ROWS = 100
FIRST = 1000
STEM = f"segments/{FIRST:020}-{FIRST + ROWS - 1:020}.default"


@pytest.fixture
def disk(monkeypatch) -> MemoryFileSystem:
    """A sealed segment of 400 events in four row groups."""
    monkeypatch.setattr(sealed_rows, "ROW_GROUP_ROWS_MAX", GROUP_ROWS)
    fs = MemoryFileSystem()
    last = FIRST + ROWS - 1
    seal_events(fs, first=FIRST, last=last, events=[events()], log_id="log", classes=CLASSES)
    return fs


def events() -> pa.RecordBatch:
    return reference_batch(ROWS, 1, FIRST)


def bits_to_flip(size: int, count: int) -> list[int]:
    """Bits all over a file: many in its first and last bytes, the others anywhere."""
    edges = [*range(64), *range(8 * size - 8 * 40, 8 * size)]
    return [*edges, *random.Random(size).sample(range(8 * size), count)]


def flip(disk: MemoryFileSystem, name: str, bit: int) -> None:
    disk.flip(name, bit // 8, 1 << bit % 8)


def expect_identical_or_reported(disk: MemoryFileSystem) -> int:
    """Check that all events are there as they were sealed, or missing and reported. Return how many are there."""
    file = read_sealed(disk, f"{STEM}.parquet")
    found = {row["position"]: row for row in rows_of(pa.Table.from_batches(file.batches(0, 2**63), EVENT_SCHEMA))}
    lost = [damaged.positions for damaged in file.damage]
    for row in rows_of(pa.Table.from_batches([events()])):
        position = row["position"]
        assert found.pop(position, None) == row or any(r.first <= position <= r.last for r in lost)
    assert not found
    return file.table().num_rows


def rows_of(table: pa.Table) -> list[dict[str, object]]:
    for name in ("recorded_at", "timestamp"):
        number = table.schema.get_field_index(name)
        table = table.set_column(number, name, table.column(name).cast(pa.int64()))
    return table.to_pylist()


def test_flipped_bit_is_repaired(disk):
    """With repair data any wrong bit of the Parquet file, footer included, changes nothing."""
    original = disk.read(f"{STEM}.parquet")
    for bit in bits_to_flip(len(original), 60):
        flip(disk, f"{STEM}.parquet", bit)
        file = read_sealed(disk, f"{STEM}.parquet")
        assert (file.data, file.damage) == (original, ())
        assert (file.intact_on_disk, file.repaired_blocks) == (False, 1)
        disk.put(f"{STEM}.parquet", original)
    flip(disk, f"{STEM}.parquet", 5000)
    assert expect_identical_or_reported(disk) == ROWS


def test_flipped_bit_without_repair_data_costs_one_row_group_or_is_harmless(disk):
    """Without repair data a wrong bit is always noticed, and costs a row group, or all if it is in the footer."""
    disk.delete(f"{STEM}.par")
    original = disk.read(f"{STEM}.parquet")
    kept = set()
    for bit in bits_to_flip(len(original), 200):
        flip(disk, f"{STEM}.parquet", bit)
        kept.add(expect_identical_or_reported(disk))
        assert not read_sealed(disk, f"{STEM}.parquet").intact_on_disk
        disk.put(f"{STEM}.parquet", original)
    assert {0, ROWS - GROUP_ROWS} <= kept <= {0, ROWS - GROUP_ROWS, ROWS}


def test_damaged_row_group_is_reported_with_its_positions(disk):
    """The damage names the positions of the row group; the rows of the others are read."""
    disk.delete(f"{STEM}.par")
    group = read_sealed(disk, f"{STEM}.parquet")
    assert [each.positions for each in group.row_groups][1] == PositionRange(FIRST + 100, FIRST + 199)
    chunk = _second_row_group_start(disk)
    disk.flip(f"{STEM}.parquet", chunk + 50)
    segment = SealedSegment.open(disk, [f"{STEM}.parquet"])
    assert [damaged.positions for damaged in segment.damage] == [PositionRange(FIRST + 100, FIRST + 199)]
    assert not segment.complete
    positions = [p for batch in segment.batches(0, 10**6) for p in batch["position"].to_pylist()]
    assert positions == [*range(FIRST, FIRST + 100), *range(FIRST + 200, FIRST + ROWS)]
    assert list(segment.batches(FIRST + 100, FIRST + 200)) == []


def _second_row_group_start(disk) -> int:
    column = pq.read_metadata(io.BytesIO(disk.read(f"{STEM}.parquet"))).row_group(1).column(0)
    return column.dictionary_page_offset or column.data_page_offset


@pytest.mark.parametrize("with_repair_data", [True, False])
def test_cut_file_is_repaired_or_reported(disk, with_repair_data):
    """A file cut anywhere, or with something behind it, is put right or reported as a whole."""
    if not with_repair_data:
        disk.delete(f"{STEM}.par")
    original = disk.read(f"{STEM}.parquet")
    sizes = [0, 1, 4, 7, 8, 11, 12, *random.Random(1).sample(range(len(original)), 25), len(original) - 1]
    for damaged in [*(original[:size] for size in sizes), original + b"x", bytes(len(original))]:
        disk.put(f"{STEM}.parquet", damaged)
        kept = expect_identical_or_reported(disk)
        if with_repair_data and damaged in (original[:-1], original + b"x"):
            assert kept == ROWS
        if kept == 0:
            (reported,) = read_sealed(disk, f"{STEM}.parquet").damage
            assert reported.positions == PositionRange(FIRST, FIRST + ROWS - 1)


def test_garbage_is_reported(disk):
    """Random bytes, also between the marks of a Parquet file and with absurd lengths, are damage, not a crash."""
    disk.delete(f"{STEM}.par")
    chance = random.Random(7)
    for size in (0, 3, 12, 13, 100, 5000):
        for length in (0, 1, 4, size, 2**31 - 1, 2**32 - 1):
            data = b"PAR1" + chance.randbytes(size) + length.to_bytes(4, "little") + b"PAR1"
            disk.put(f"{STEM}.parquet", data)
            assert expect_identical_or_reported(disk) == 0
            assert verify_sealed(disk, f"{STEM}.parquet")


def test_damaged_repair_data_harms_nothing(disk):
    """With a wrong bit in the repair data the events read as before, and verification says so."""
    original = disk.read(f"{STEM}.par")
    for bit in bits_to_flip(len(original), 30):
        flip(disk, f"{STEM}.par", bit)
        file = read_sealed(disk, f"{STEM}.parquet")
        assert file.intact_on_disk
        assert file.damage == ()
        disk.put(f"{STEM}.par", original)
    disk.flip(f"{STEM}.par", 20)
    (note,) = verify_sealed(disk, f"{STEM}.parquet")
    assert (note.file, note.positions.count) == (f"{STEM}.par", 0)


def test_damage_in_both_files_is_repaired_or_reported(disk):
    """Wrong bits in the Parquet file and in its repair data together yield no wrong event."""
    originals = disk.files()
    chance = random.Random(3)
    for _ in range(60):
        for name in (f"{STEM}.parquet", f"{STEM}.par"):
            flip(disk, name, chance.randrange(8 * len(originals[name])))
        expect_identical_or_reported(disk)
        for name, content in originals.items():
            disk.put(name, content)


def test_repair_data_of_another_file_harms_nothing(disk):
    """Repair data that is not that of the file is not believed."""
    other = MemoryFileSystem()
    batch = reference_batch(ROWS, 2, FIRST)
    seal_events(other, first=FIRST, last=FIRST + ROWS - 1, events=[batch], log_id="log", classes=CLASSES)
    disk.put(f"{STEM}.par", other.read(f"{STEM}.par"))
    assert expect_identical_or_reported(disk) == ROWS
    disk.flip(f"{STEM}.parquet", 5000)
    expect_identical_or_reported(disk)


def test_damaged_index_harms_nothing(disk):
    """A wrong bit in the index changes no answer; verification says that it is damaged."""
    for offset in (0, 9, 40, -1):
        disk.flip(f"{STEM}.idx", offset)
        assert expect_identical_or_reported(disk) == ROWS
        (note,) = verify_sealed(disk, f"{STEM}.parquet")
        assert (note.file, note.positions.count) == (f"{STEM}.idx", 0)
        disk.flip(f"{STEM}.idx", offset)


def test_whole_files_verify_without_findings(disk):
    """Nothing is wrong with what was just sealed; a missing index is no finding, missing repair data is."""
    assert verify_sealed(disk, f"{STEM}.parquet") == []
    disk.delete(f"{STEM}.idx")
    assert verify_sealed(disk, f"{STEM}.parquet") == []
    disk.delete(f"{STEM}.par")
    (note,) = verify_sealed(disk, f"{STEM}.parquet")
    assert note.file == f"{STEM}.par"


def test_repair_puts_the_file_back(disk):
    """Repairing writes the whole file back, durably; afterwards nothing is found."""
    before = disk.files()
    disk.flip(f"{STEM}.parquet", 3 * BLOCK_BYTES)
    (note,) = verify_sealed(disk, f"{STEM}.parquet")
    assert (note.file, note.positions.count) == (f"{STEM}.parquet", 0)
    assert repair_sealed(disk, f"{STEM}.parquet")
    assert disk.files() == before
    assert disk.is_durable()
    disk.flip(f"{STEM}.par", 20)
    assert repair_sealed(disk, f"{STEM}.parquet")
    assert disk.files() == before


def test_repair_leaves_what_it_cannot_repair(disk):
    """A file with lost rows stays as it is: what is left of it may be all there is."""
    disk.delete(f"{STEM}.par")
    disk.flip(f"{STEM}.parquet", 5000)
    before = disk.files()
    assert not repair_sealed(disk, f"{STEM}.parquet")
    assert disk.files() == before


def test_verification_finds_a_promoted_column_that_differs(disk, monkeypatch):
    """A promoted column that does not hold what the payloads say is reported."""
    real = read_sealed(disk, f"{STEM}.parquet").metadata.promoted
    swapped = [replace(column, path=("items_processed",)) for column in real[:1]] + list(real[1:])
    extract = JsonExtractor.extract_columns
    monkeypatch.setattr(JsonExtractor, "extract_columns", lambda self, payloads, _: extract(self, payloads, swapped))
    found = verify_sealed(disk, f"{STEM}.parquet")
    assert len(found) == ROWS // GROUP_ROWS
    assert "promoted columns differ from the payloads: 'duration_ms' as integer" in found[0].problem


def test_other_names_are_refused(disk):
    """A name that is not that of a sealed file raises EventStorageException, a missing file OSError."""
    for name in ("segments/x.parquet", f"{STEM}.idx", f"{STEM}.parquet.tmp", "", "segments/" + "0" * 20 + "-1.a"):
        with pytest.raises(EventStorageException, match="not the name"):
            read_sealed(disk, name)
    with pytest.raises(FileNotFoundError):
        read_sealed(disk, f"{STEM.replace('default', 'gone')}.parquet")
