"""Sorts the events of a segment into the row groups of the files they are sealed into.

Invariants: the rows of a class keep the order of their positions; a row group has at most 65,536 rows,
and at most 64 MiB unless it is a single row; every position of the segment is either among the events
or was reported as damaged, else nothing is sealed: sealing never hides a gap.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import compute as pc
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.log.retention_classes import RetentionClasses
from shared.log.types import Damage, PositionRange

ROW_GROUP_ROWS_MAX = 65_536
ROW_GROUP_BYTES_MAX = 64 * 1024 * 1024


def sort_into_classes(
    events: Iterable[pa.RecordBatch], *, classes: RetentionClasses, positions: PositionRange, damage: Sequence[Damage]
) -> dict[str, list[pa.RecordBatch]]:
    """Return the row groups of each retention class that occurs, by the name of the class.

    Raises LogCorrupted if a position of the segment is missing that no damage accounts for, ValueError
    if the events are out of order or outside of the segment.
    """
    collected: dict[str, _RowGroups] = {}
    seen = _PositionCheck(positions, damage)
    for batch in _coalesce(events):
        seen.add(batch.column("position").to_numpy())
        for name, rows in _by_class(batch, classes):
            collected.setdefault(name, _RowGroups()).add(rows)
    seen.finish()
    return {name: groups.finish() for name, groups in sorted(collected.items())}


def _coalesce(events: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join small batches, so that what is done for each batch is done rarely."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in events:
        if pending and (rows + len(batch) > ROW_GROUP_ROWS_MAX or size + batch.nbytes > ROW_GROUP_BYTES_MAX):
            yield _concatenate(pending)
            pending, rows, size = [], 0, 0
        pending.append(batch)
        rows += len(batch)
        size += batch.nbytes
    if pending:
        yield _concatenate(pending)


def _by_class(batch: pa.RecordBatch, classes: RetentionClasses) -> Iterator[tuple[str, pa.RecordBatch]]:
    names = classes.classify(batch.column("type"))
    distinct = names.unique().to_pylist()
    if len(distinct) == 1:
        yield distinct[0], batch
        return
    for name in distinct:
        yield name, batch.filter(pc.equal(names, name))


class _RowGroups:
    """Collects the events of one class into row groups."""

    def __init__(self) -> None:
        self._groups: list[pa.RecordBatch] = []
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows behind those there are."""
        start = 0
        while start < len(batch):
            piece = batch.slice(start, ROW_GROUP_ROWS_MAX - self._pending_rows)
            room = ROW_GROUP_BYTES_MAX - self._pending_bytes
            while len(piece) > 1 and piece.nbytes > room:
                piece = piece.slice(0, len(piece) // 2)
            start += len(piece)
            self._pending.append(piece)
            self._pending_rows += len(piece)
            self._pending_bytes += piece.nbytes
            if self._pending_rows >= ROW_GROUP_ROWS_MAX or self._pending_bytes >= ROW_GROUP_BYTES_MAX:
                self._flush()

    def finish(self) -> list[pa.RecordBatch]:
        """Return the row groups."""
        self._flush()
        return self._groups

    def _flush(self) -> None:
        if self._pending:
            self._groups.append(_concatenate(self._pending))
        self._pending = []
        self._pending_rows = self._pending_bytes = 0


def _concatenate(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Return one batch with EVENT_SCHEMA. A single piece is not copied."""
    arrays = [
        pieces[0].column(name) if len(pieces) == 1 else pa.concat_arrays([each.column(name) for each in pieces])
        for name in EVENT_SCHEMA.names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)


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
