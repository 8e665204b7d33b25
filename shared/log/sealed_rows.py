"""Sorts the events of a segment into the row groups of the files they are sealed into, as they come.

Invariants: the rows of a class keep the order of their positions; a row group has at most 131,072 rows,
and at most 32 MiB before compression unless it is a single row, so that a reader's memory is bounded; what
waits for its row group to fill takes at most 128 MiB; every position of the segment is either among the
events or was reported as damaged, else sorting fails: sealing never hides a gap.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import compute as pc
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.log.limits import MIB
from shared.log.retention_classes import RetentionClasses
from shared.log.types import Damage, PositionRange

ROW_GROUP_ROWS_MAX = 131_072
ROW_GROUP_BYTES_MAX = 32 * MIB
WAITING_BYTES_MAX = 128 * MIB
# Frames of few events are joined up to here, so that what is done for each batch is done rarely.
_WORTH_SORTING_ROWS = 8_192
_WORTH_SORTING_BYTES = 4 * MIB

# Some class can always make room.
assert ROW_GROUP_BYTES_MAX < WAITING_BYTES_MAX


def sort_into_row_groups(
    events: Iterable[pa.RecordBatch], *, classes: RetentionClasses, positions: PositionRange, damage: Sequence[Damage]
) -> Iterator[tuple[str, pa.Table]]:
    """Yield the row groups of all retention classes that occur, each with the name of its class.

    The row groups of a class come in order. Raises LogCorrupted at the end if a position of the segment is
    missing that no damage accounts for, ValueError if the events are out of order or outside of the segment.
    """
    waiting: dict[str, _Waiting] = {}
    seen = _PositionCheck(positions, damage)
    for batch in _coalesce(events):
        seen.add(batch.column("position").to_numpy())
        for name, rows in split_by_class(batch, classes):
            for row_group in waiting.setdefault(name, _Waiting()).add(rows):
                yield name, row_group
        while sum(each.bytes for each in waiting.values()) > WAITING_BYTES_MAX:
            name = max(waiting, key=lambda each: waiting[each].bytes)
            yield name, waiting[name].take()
    seen.finish()
    for name in sorted(waiting):
        if waiting[name].rows:
            yield name, waiting[name].take()


def split_by_class(batch: pa.RecordBatch, classes: RetentionClasses) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the rows of each retention class that occurs in a batch, in their order."""
    names = classes.classify(batch.column("type"))
    distinct = names.unique().to_pylist()
    if len(distinct) == 1:
        yield distinct[0], batch
        return
    for name in distinct:
        yield name, batch.filter(pc.equal(names, name))


def _coalesce(events: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in events:
        pending.append(batch)
        rows += len(batch)
        size += batch.nbytes
        if rows >= _WORTH_SORTING_ROWS or size >= _WORTH_SORTING_BYTES:
            yield _concatenate(pending)
            pending, rows, size = [], 0, 0
    if rows:
        yield _concatenate(pending)


def _concatenate(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Return one batch with EVENT_SCHEMA. A single piece is not copied."""
    arrays = [
        pieces[0].column(name) if len(pieces) == 1 else pa.concat_arrays([each.column(name) for each in pieces])
        for name in EVENT_SCHEMA.names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)


class _Waiting:
    """The rows of one class that do not fill a row group yet."""

    def __init__(self) -> None:
        self._pieces: list[pa.RecordBatch] = []
        self.rows = 0
        self.bytes = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.Table]:
        """Add rows behind those there are; yield the row groups that are full then."""
        start = 0
        while start < len(batch):
            piece = batch.slice(start, ROW_GROUP_ROWS_MAX - self.rows)
            room = ROW_GROUP_BYTES_MAX - self.bytes
            while len(piece) > 1 and piece.nbytes > room:
                piece = piece.slice(0, len(piece) // 2)
            if self.rows and piece.nbytes > room:
                yield self.take()
                continue
            start += len(piece)
            self._pieces.append(piece)
            self.rows += len(piece)
            self.bytes += piece.nbytes
            if self.rows == ROW_GROUP_ROWS_MAX:
                yield self.take()

    def take(self) -> pa.Table:
        """Return what waits as a row group. Its columns are chunked as the rows came: nothing is copied."""
        row_group = pa.Table.from_batches(self._pieces, EVENT_SCHEMA)
        self._pieces = []
        self.rows = self.bytes = 0
        return row_group


class _PositionCheck:
    """Checks that the positions of a segment's events ascend, and which are missing."""

    def __init__(self, positions: PositionRange, damage: Sequence[Damage]) -> None:
        self._positions = positions
        self._damage = damage
        self._next = int(positions.first)

    def add(self, positions: npt.NDArray[np.uint64]) -> None:
        """Look at the positions that come next."""
        if len(positions) == 0:
            return
        ascending = bool(np.all(positions[1:] > positions[:-1]))
        if not ascending or positions[0] < self._next or positions[-1] > self._positions.last:
            raise ValueError(
                f"the events of the segment {self._positions.first} to {self._positions.last} are out of order"
            )
        holes = np.flatnonzero(positions[1:] - positions[:-1] > 1)
        self._expect_damage(self._next, int(positions[0]) - 1)
        for hole in holes.tolist():
            self._expect_damage(int(positions[hole]) + 1, int(positions[hole + 1]) - 1)
        self._next = int(positions[-1]) + 1

    def finish(self) -> None:
        """Look at what is missing at the end."""
        self._expect_damage(self._next, int(self._positions.last))

    def _expect_damage(self, first: int, last: int) -> None:
        """Raise LogCorrupted unless damage accounts for all positions from first to last, inclusive."""
        for each in sorted(self._damage, key=lambda damaged: damaged.positions.first):
            if each.positions.first <= first <= each.positions.last:
                first = each.positions.last + 1
        if first <= last:
            raise LogCorrupted(
                f"positions {first} to {last} are missing and not reported as damaged: the segment stays "
                "unsealed; run VerifyLog and look at its .log file",
                first_position=first,
                last_position=last,
            )
