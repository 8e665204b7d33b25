"""Sealing a segment: what is in the files, what is refused, and what a crash leaves."""

import io
import json

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted, UnsupportedFormat
from shared.log import sealed_metadata
from shared.log.file_system import LocalFileSystem
from shared.log.index_sidecar import Sidecar
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_reader import read_sealed
from shared.log.sealed_segment import SealedSegment, SealOptions, seal_events
from shared.log.sealed_verify import verify_sealed
from shared.log.types import Damage, PositionRange
from tests.support.memory_file_system import MemoryFileSystem, PowerLoss
from tests.support.reference_events import event_batch, reference_batch

ONE_CLASS = RetentionClasses(default_seconds=90, by_type={})
CLASSES = RetentionClasses(default_seconds=90, by_type={"error": 365, "hook.*": 7})


def seal(fs, batches, *, classes=CLASSES, first=1, last=None, damage=(), options=None):
    options = options or SealOptions()
    last = last if last is not None else first - 1 + sum(len(batch) for batch in batches)
    return seal_events(
        fs, first=first, last=last, events=batches, log_id="abcd1234", classes=classes, damage=damage, options=options
    )


def table(batches) -> pa.Table:
    return pa.Table.from_batches(list(batches), EVENT_SCHEMA).combine_chunks()


def mixed_events(count: int) -> pa.RecordBatch:
    types = ["error.disk", "hook.tool", "other"]
    return event_batch([{"type": types[n * n % 7 % 3], "payload": json.dumps({"n": n})} for n in range(count)])


def test_events_come_back_as_they_were(tmp_path):
    """Reading the segment gives the sealed events with every column, in batches with the schema of events."""
    fs = LocalFileSystem(tmp_path)
    events = reference_batch(3000, 1, 1)
    segment = seal(fs, [events.slice(0, 7), events.slice(7)], classes=ONE_CLASS)
    batches = list(segment.batches(1, 3001))
    assert all(batch.schema.equals(EVENT_SCHEMA) for batch in batches)
    assert table(batches).equals(table([events]))
    assert segment.complete
    assert segment.damage == ()


def test_each_class_has_its_files(tmp_path):
    """Every class that occurs gets three files whose names carry the segment's positions."""
    fs = LocalFileSystem(tmp_path)
    seal(fs, [mixed_events(100)], last=100)
    stem = "segments/00000000000000000001-00000000000000000100"
    names = [file.name.retention_class for file in SealedSegment.open(fs, parquet_names(fs)).files]
    assert len(names) == 3
    assert fs.list("segments") == sorted(f"{stem}.{n}.{e}" for n in names for e in ("idx", "par", "parquet"))


def parquet_names(fs):
    return [name for name in fs.list("segments") if name.endswith(".parquet")]


def test_classes_merge_in_order_of_position(tmp_path):
    """Events of several classes come back in the order of their positions, each once, for any range."""
    events = mixed_events(1000)
    segment = seal(LocalFileSystem(tmp_path), [events])
    assert len(segment.files) == 3
    assert table(segment.batches(1, 1001)).equals(table([events]))
    for start, end in [(1, 2), (500, 501), (17, 900), (1000, 2000), (0, 2**70)]:
        inside = table([events.slice(max(0, start - 1), min(end, 1001) - max(1, start))])
        assert table(segment.batches(start, end)).equals(inside)
    assert list(segment.batches(1001, 2000)) == []
    assert list(segment.batches(5, 5)) == []


def test_wanted_columns_are_read(tmp_path):
    """A reader gets the columns it names, in its order, also without the position."""
    events = mixed_events(50)
    segment = seal(LocalFileSystem(tmp_path), [events])
    found = pa.Table.from_batches(segment.batches(1, 51, ["type", "tags"]))
    assert found.combine_chunks().equals(pa.Table.from_batches([events.select(["type", "tags"])]))


def test_large_segments_merge_across_row_groups(tmp_path):
    """Row groups of several classes, one much larger than the others, merge in order."""
    events = reference_batch(250_000, 5, 10**12)
    classes = RetentionClasses(default_seconds=1, by_type={"hook.*": 2, "pipeline.failed": 3})
    options = SealOptions(compress=False, write_index=False)
    segment = seal(LocalFileSystem(tmp_path), [events], first=10**12, classes=classes, options=options)
    assert max(len(file.row_groups) for file in segment.files) >= 2
    batches = list(segment.batches(10**12, 10**12 + 250_000))
    assert max(len(batch) for batch in batches) <= 65_536
    assert table(batches).equals(table([events]))


def test_metadata_tells_about_the_segment(tmp_path):
    """Each file names its log, its segment, all classes with their rows, its times, and earlier damage."""
    fs = LocalFileSystem(tmp_path)
    events = event_batch([{"type": "error", "timestamp": 5, "recorded_at": 70}, {"type": "a", "timestamp": 3}])
    damaged = Damage(PositionRange(3, 4), "segments/1.log", "bad checksum")
    segment = seal(fs, [events], last=4, damage=[damaged])
    metadata = {file.name.retention_class: file.metadata for file in segment.files}
    error = metadata["error"]
    assert (error.log_id, error.positions, error.rows) == ("abcd1234", PositionRange(1, 4), 1)
    assert [(each.name, each.pattern, each.seconds, each.rows) for each in error.classes] == [
        ("default", "*", 90, 1),
        ("error", "error", 365, 1),
    ]
    assert (error.timestamp.first_ns, error.recorded_at.last_ns) == (5, 70)
    assert metadata["default"].timestamp.last_ns == 3
    assert segment.damage == (damaged,)
    assert segment.complete
    assert table(segment.batches(1, 5)).equals(table([events]))


def test_segment_without_readable_events_is_recorded(tmp_path):
    """If every position is damaged, one file without rows keeps the segment and its damage."""
    fs = LocalFileSystem(tmp_path)
    damaged = Damage(PositionRange(1, 9), "segments/1.log", "bad checksum")
    segment = seal(fs, [], last=9, damage=[damaged])
    assert [file.name.retention_class for file in segment.files] == ["default"]
    assert list(segment.batches(1, 10)) == []
    assert segment.damage == (damaged,)
    assert verify_sealed(fs, segment.files[0].name.parquet) == []
    assert duckdb.sql(f"SELECT count(*) FROM '{fs.path(segment.files[0].name.parquet)}'").fetchall() == [(0,)]


@pytest.mark.parametrize("missing", [0, 1, 4, 9])
def test_gap_that_nothing_explains_is_refused(tmp_path, missing):
    """A missing position without damage raises LogCorrupted, names it, and nothing is written."""
    fs = LocalFileSystem(tmp_path)
    events = mixed_events(10)
    kept = [events.slice(0, missing), events.slice(missing + 1)]
    with pytest.raises(LogCorrupted) as raised:
        seal(fs, kept, last=10)
    assert raised.value.metadata == {"first_position": str(missing + 1), "last_position": str(missing + 1)}
    assert fs.list("segments") == []


def test_events_out_of_order_are_refused(tmp_path):
    """Descending, repeated and foreign positions raise ValueError."""
    fs = LocalFileSystem(tmp_path)
    events = mixed_events(10)
    for batches in ([events.slice(5), events.slice(0, 5)], [events, events.slice(9)]):
        with pytest.raises(ValueError, match="out of order"):
            seal(fs, batches, last=10)
    with pytest.raises(ValueError, match="out of order"):
        seal(fs, [events], last=9)


def test_other_programs_read_the_files(tmp_path):
    """DuckDB and plain pyarrow read the columns, the promoted ones, and use filters and checksums."""
    fs = LocalFileSystem(tmp_path)
    events = reference_batch(2000, 1, 1)
    (file,) = seal(fs, [events], classes=ONE_CLASS).files
    path = str(fs.path(file.name.parquet))
    column = next(c.column for c in file.metadata.promoted if c.path == ("duration_ms",))
    total = sum(json.loads(text)["duration_ms"] for text in events["payload"].to_pylist())
    assert duckdb.sql(f"SELECT sum({column}), count(*) FROM '{path}'").fetchall() == [(total, 2000)]
    wanted = events["correlation_id"][77].as_py()
    found = duckdb.sql(f"SELECT count(*) FROM '{path}' WHERE correlation_id = ?", params=[wanted]).fetchall()
    assert found == [(events["correlation_id"].to_pylist().count(wanted),)]
    query = f"SELECT path_in_schema FROM parquet_metadata('{path}') WHERE bloom_filter_offset IS NOT NULL"
    assert {row[0] for row in duckdb.sql(query).fetchall()} == {"correlation_id", "session_id", "user"}
    plain = pq.ParquetFile(path, page_checksum_verification=True).read(columns=EVENT_SCHEMA.names)
    assert plain.cast(EVENT_SCHEMA).combine_chunks().equals(table([events]))
    assert plain.schema.field("timestamp").type == pa.timestamp("ns", "UTC")


def test_compression_and_index_can_be_left_out(tmp_path):
    """Without compression and index the events are the same and there is no sidecar."""
    fs = LocalFileSystem(tmp_path)
    events = reference_batch(500, 1, 1)
    segment = seal(fs, [events], classes=ONE_CLASS, options=SealOptions(compress=False, write_index=False))
    assert table(segment.batches(1, 501)).equals(table([events]))
    assert not [name for name in fs.list("segments") if name.endswith(".idx")]
    column = pq.read_metadata(io.BytesIO(fs.read(segment.files[0].name.parquet))).row_group(0).column(0)
    assert column.compression == "UNCOMPRESSED"


def test_declared_paths_are_promoted(tmp_path):
    """A declared path gets a column however rare it is."""
    events = event_batch([{"payload": '{"rare": 1}' if n == 500 else "{}"} for n in range(1000)])
    fs = LocalFileSystem(tmp_path)
    (plain,) = seal(fs, [events]).files
    assert plain.metadata.promoted == ()
    (declared,) = seal(fs, [events], options=SealOptions(promoted_paths=(("rare",),))).files
    assert [(c.path, c.kind, c.only) for c in declared.metadata.promoted] == [(("rare",), "integer", True)]
    assert declared.table(["p0_integer"]).column(0).null_count == 999


@pytest.mark.parametrize(
    ("late", "kinds"),
    [
        ('{"a": 1}', {"integer"}),
        ('{"a": 1.5}', {"double"}),
        ('{"a": 0.1000000000000000055}', set()),
        ('{"a": "\\ud800"}', set()),
        ('{"rare": true, "a": 2}', {"integer", "boolean"}),
    ],
)
def test_a_late_row_group_that_does_not_fit_makes_the_file_anew(tmp_path, monkeypatch, late, kinds):
    """Columns are chosen by the first row group; in the end they hold for all, and no other class is concerned."""
    monkeypatch.setattr("shared.log.sealed_rows.ROW_GROUP_ROWS_MAX", 100)
    payloads = ['{"a": 1}'] * 250 + [late] + ['{"a": 3}'] * 100
    events = event_batch([{"type": "error" if n % 2 else "t", "payload": text} for n, text in enumerate(payloads)])
    fs = LocalFileSystem(tmp_path)
    segment = seal(fs, [events], options=SealOptions(promoted_paths=(("rare",),)))
    default, error = segment.files
    assert {column.kind for column in default.metadata.promoted} == kinds
    assert {column.kind for column in error.metadata.promoted} == {"integer"}
    assert len(default.row_groups) == 2
    assert table(segment.batches(1, 352)).equals(table([events]))
    assert [verify_sealed(fs, file.name.parquet) for file in segment.files] == [[], []]
    assert Sidecar.load(fs.read(default.name.index)).summary.rows == 176


def test_hurry_costs_bytes_and_nothing_else(tmp_path):
    """A segment that is sealed in a hurry holds the same events and columns."""
    events = reference_batch(20_000, 1, 1)
    (calm,) = seal(LocalFileSystem(tmp_path / "calm"), [events], classes=ONE_CLASS).files
    (hurried,) = seal(
        LocalFileSystem(tmp_path / "hurried"), [events], classes=ONE_CLASS, options=SealOptions(hurry=True)
    ).files
    assert hurried.table().equals(calm.table())
    assert hurried.metadata == calm.metadata
    assert 1.02 < len(hurried.data) / len(calm.data) < 1.2


def test_texts_that_look_like_checksums_are_harmless(tmp_path):
    """Events that hold the key of the checksums, also as statistics, seal and read back."""
    nasty = "eventlog.checksums\x18\x20crc32c " + "0" * 40
    payload = json.dumps({nasty: 1, "a": nasty})
    fs = LocalFileSystem(tmp_path)
    events = event_batch([{"source": nasty, "type": nasty, "payload": payload, "correlation_id": nasty}] * 3)
    classes = RetentionClasses(default_seconds=1, by_type={nasty: 5})
    segment = seal_events(fs, first=1, last=3, events=[events], log_id=nasty, classes=classes)
    assert table(segment.batches(1, 4)).equals(table([events]))
    assert verify_sealed(fs, segment.files[0].name.parquet) == []


def test_incomplete_set_of_files_is_told(tmp_path):
    """With the file of a class gone, the segment says which one and that it is not complete."""
    fs = LocalFileSystem(tmp_path)
    seal(fs, [mixed_events(50)])
    names = parquet_names(fs)
    fs.remove(names[0])
    segment = SealedSegment.open(fs, names[1:])
    assert not segment.complete
    assert [each.name for each in segment.missing_classes] == ["default"]
    rest = table(segment.batches(1, 51))
    assert rest.num_rows == 50 - segment.missing_classes[0].rows


def test_file_of_another_segment_is_refused(tmp_path):
    """A file under a name that is not its own raises LogCorrupted on opening and is found by verification."""
    fs = LocalFileSystem(tmp_path)
    seal(fs, [mixed_events(50)])
    name = parquet_names(fs)[0]
    wrong = name.replace("050.", "051.")
    fs.rename(name, wrong)
    with pytest.raises(LogCorrupted, match="does not belong"):
        SealedSegment.open(fs, [wrong])
    assert any("give it back its name" in damage.problem for damage in verify_sealed(fs, wrong))


def test_newer_format_is_refused(tmp_path, monkeypatch):
    """A file of a newer version raises UnsupportedFormat, not damage."""
    fs = LocalFileSystem(tmp_path)
    monkeypatch.setattr("shared.log.sealed_segment.FORMAT_VERSION", sealed_metadata.FORMAT_VERSION + 1)
    with pytest.raises(UnsupportedFormat, match="newer"):
        seal(fs, [mixed_events(5)])
    with pytest.raises(UnsupportedFormat, match="newer"):
        read_sealed(fs, parquet_names(fs)[0])


def undisturbed() -> tuple[dict[str, bytes], pa.RecordBatch]:
    disk = MemoryFileSystem()
    events = event_batch([{"type": f"{kind}.x"} for kind in ("error", "other") * 10])
    seal(disk, [events])
    return disk.files(), events


def disk_with_log() -> MemoryFileSystem:
    """A disk with the .log, request ids of the same segment, and another segment's leftovers."""
    disk = MemoryFileSystem()
    disk.put("segments/00000000000000000001.log", b"log")
    disk.put("segments/00000000000000000001-00000000000000000020.requests", b"requests")
    disk.put("segments/00000000000000000021-00000000000000000022.default.parquet.tmp", b"other")
    return disk


def count_operations(events) -> int:
    disk = disk_with_log()
    seal(disk, [events])
    return disk.operations


@pytest.mark.parametrize("keep", ["nothing", "random", "all"])
def test_sealing_again_after_a_power_loss_gives_the_same_files(keep):
    """Whatever operation the power goes at, sealing again ends in the same files and nothing else."""
    expected, events = undisturbed()
    before = disk_with_log().files()
    for number in range(1, count_operations(events) + 1):
        for part in (0.0, 1.0):
            disk = disk_with_log()
            disk.lose_power_at(number, part=part)
            with pytest.raises(PowerLoss):
                seal(disk, [events])
            after = disk.crash(keep, seed=number)
            segment = seal(after, [events])
            assert after.files() == before | expected
            assert after.is_durable()
            assert table(segment.batches(1, 21)).equals(table([events]))


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_sealing_again_after_an_error_gives_the_same_files(part):
    """Whatever operation fails, the error is told or does no harm, and sealing again ends in the same files."""
    expected, events = undisturbed()
    before = disk_with_log().files()
    for number in range(1, count_operations(events) + 1):
        disk = disk_with_log()
        disk.fail_nth(number, part=part)
        try:
            seal(disk, [events])
        except OSError:
            disk.heal()
            seal(disk, [events])
        assert disk.files() == before | expected
        assert disk.is_durable()


def test_returned_segment_is_durable_and_complete():
    """When sealing returns, a loss of power changes nothing."""
    disk = disk_with_log()
    seal(disk, [mixed_events(20)])
    assert disk.crash("nothing").files() == disk.files()


def test_leftovers_of_another_configuration_are_replaced():
    """A class of an earlier attempt that the present configuration does not have is removed, with its companions."""
    disk = MemoryFileSystem()
    events = mixed_events(20)
    seal(disk, [events])
    segment = seal(disk, [events], classes=ONE_CLASS)
    stem = "segments/00000000000000000001-00000000000000000020.default"
    assert sorted(disk.files()) == [f"{stem}.idx", f"{stem}.par", f"{stem}.parquet"]
    assert table(segment.batches(1, 21)).equals(table([events]))
    assert verify_sealed(disk, f"{stem}.parquet") == []
    assert Sidecar.load(disk.read(f"{stem}.idx")).summary.rows == 20


def test_stale_temporary_files_are_removed():
    """What earlier attempts left under temporary names goes, also of other classes and another last position."""
    disk = disk_with_log()
    kept = disk.files()
    for stale in ("20.gone.parquet", "20.gone.par", "19.default.idx"):
        disk.put(f"segments/00000000000000000001-000000000000000000{stale}.tmp", b"x")
    seal(disk, [mixed_events(20)], classes=ONE_CLASS)
    stem = "segments/00000000000000000001-00000000000000000020.default"
    assert disk.files().keys() == kept.keys() | {f"{stem}.{end}" for end in ("idx", "par", "parquet")}


def test_tables_are_sealed_as_batches_are():
    """A table gives the same files as its batches, however they are cut."""
    events = mixed_events(100)
    first, second = MemoryFileSystem(), MemoryFileSystem()
    seal(first, [events.slice(0, 33), events.slice(33, 0), events.slice(33)])
    seal_events(second, first=1, last=100, events=table([events]), log_id="abcd1234", classes=CLASSES)
    assert first.files() == second.files()
