"""Segments as columns: what changed on disk since it was looked at hides nothing and misleads nobody."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from shared.errors import LogCorrupted
from shared.log import tail_columns
from shared.log.frame import HEADER_BYTES
from shared.log.log_reader import LocalLogReader
from shared.log.names import SEGMENTS
from shared.log.segment_columns import ArrowColumns, ColumnReader, ParquetColumns
from shared.log.segment_scan import SEGMENT_HEADER_BYTES
from shared.log.types import Position
from tests.support.small_logs import SegmentPlan, SmallLog, flip, seal, write_log


def _event(number: int, event_type: str = "a") -> dict[str, object]:
    fields = {"timestamp": number, "type": event_type, "source": "", "correlation_id": None, "host": "", "user": None}
    return fields | {"payload": json.dumps({"n": number}), "version": "1", "session_id": None, "tags": []}


def _log(directory: Path, *, sealed: bool) -> SmallLog:
    """Two segments of four frames of two events each."""
    frames = [[_event(2 * frame), _event(2 * frame + 1, "error")] for frame in range(4)]
    plan = [SegmentPlan(frames, sealed=sealed, damaged=None), SegmentPlan(frames, sealed=False, damaged=None)]
    return write_log(directory, plan)


class _Reader:
    """Reads the first segment as columns."""

    def __init__(self, log: SmallLog) -> None:
        self.reader = LocalLogReader(log.fs)
        self.columns = ColumnReader(log.fs, self.reader, tail_bytes_max=1 << 20, use_sidecars=True)

    def read(self, first: int = 1, until: int = 9) -> tuple[list[int], int]:
        """Positions of the events in memory of [first, until), and how far."""
        committed = self.reader.committed()
        segment = self.columns.describe(self.columns.span_of(Position(first), committed), committed)
        names = [file.name for file in segment.files]
        found, reached = self.columns.columns(
            segment, names, from_position=Position(first), until=Position(until), committed=committed
        )
        tables = [each.events for each in found if isinstance(each, ArrowColumns)]
        assert len(tables) == len(found), "all of them in memory"
        return [p for table in tables for p in table.column("position").to_pylist()], reached


def test_a_frame_damaged_since_it_was_indexed_is_told(tmp_path: Path) -> None:
    """What lies before it is given, then its positions are told, and reading goes on behind."""
    log = _log(tmp_path, sealed=False)
    reader = _Reader(log)
    assert reader.columns.segments(reader.reader.committed())
    reader.read(1, 2)
    path = log.fs.path(f"{SEGMENTS}/{1:020d}.log")
    data = path.read_bytes()
    at = SEGMENT_HEADER_BYTES
    for _ in range(2):
        at += HEADER_BYTES + int.from_bytes(data[at + 20 : at + 24], "little")
    flip(path, at + HEADER_BYTES + 3)
    reader.columns.blocks.keep_only(lambda _: False)
    assert reader.read() == ([1, 2, 3, 4], 5)
    with pytest.raises(LogCorrupted) as damage:
        reader.read(5)
    assert (damage.value.metadata["first_position"], damage.value.metadata["last_position"]) in {(5, 6), ("5", "6")}
    assert reader.read(7) == ([7, 8], 9)


def test_a_sealed_file_of_another_segment_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """Somebody has copied a file over this one: intact as it is, its events are not at these positions."""
    log = _log(tmp_path, sealed=True)
    seal(log.fs, 9, 17)
    (mine,) = (tmp_path / SEGMENTS).glob(f"{1:020d}-*.default.parquet")
    (other,) = (tmp_path / SEGMENTS).glob(f"{9:020d}-*.default.parquet")
    mine.write_bytes(other.read_bytes())
    mine.with_suffix(".par").unlink()
    with pytest.raises(LogCorrupted):
        _Reader(log).read()


def test_sealed_files_are_offered_once_all_of_their_bytes_were_checked(tmp_path: Path) -> None:
    """A flipped bit that can be repaired is: then the events are in memory, and no file is offered."""
    log = _log(tmp_path, sealed=True)
    reader = _Reader(log)
    committed = reader.reader.committed()
    segment = reader.columns.describe(reader.columns.span_of(Position(1), committed), committed)
    names = [file.name for file in segment.files]
    bounds = {"from_position": Position(1), "until": Position(9), "committed": committed}
    found, reached = reader.columns.columns(segment, names, **bounds)
    assert (len(found), reached) == (2, 9)
    assert all(isinstance(each, ParquetColumns) for each in found)
    flip(log.fs.path(names[0]), 200)
    assert reader.read() == (list(range(1, 9)), 9)


def test_blocks_that_were_forgotten_are_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed where they were closed before, whatever part is asked for first."""
    monkeypatch.setattr(tail_columns, "BLOCK_ROWS", 4)
    log = _log(tmp_path, sealed=False)
    reader = _Reader(log)
    for first, until in ((1, 9), (3, 4), (6, 9), (1, 2), (5, 6)):
        assert reader.read(first, until) == (list(range(first, until)), until)
        reader.columns.blocks.keep_only(lambda key: key[1] != 5)
    assert reader.columns.blocks.weight > 0
    assert isinstance(reader.columns.blocks.get((f"{SEGMENTS}/{1:020d}.log", Position(1))).events, pa.Table)  # type: ignore[union-attr]


def test_what_was_sealed_is_forgotten_when_the_next_segment_is_read(tmp_path: Path) -> None:
    """Its events in memory are of no more use."""
    log = _log(tmp_path, sealed=False)
    reader = _Reader(log)
    reader.read()
    seal(log.fs, 1, 9)
    assert reader.columns.blocks.weight > 0
    reader.read(9, 17)
    assert reader.columns.blocks.get((f"{SEGMENTS}/{1:020d}.log", Position(1))) is None
