"""Reads a whole sealed segment: merges the files of its retention classes back into the log's order.

Invariants: the events come in the order of their positions, each once; memory holds at most one row
group of each class at a time, besides the files' own bytes; damage of any file is damage of the segment.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.log.file_system import FileSystem
from shared.log.missing_classes import missing_classes
from shared.log.sealed_metadata import SealedClass
from shared.log.sealed_reader import SealedFile, read_sealed
from shared.log.types import Damage, PositionRange

BATCH_ROWS_MAX = 65_536


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A sealed segment in memory. Immutable; iterators over it are independent of each other."""

    positions: PositionRange
    files: tuple[SealedFile, ...]
    # What is known to be gone with a file that is not among these.
    lost: tuple[Damage, ...] = ()

    @classmethod
    def open(cls, fs: FileSystem, names: Sequence[str]) -> "SealedSegment":
        """Read and check the files of one segment by the names of its Parquet files, at least one.

        Raises OSError (FileNotFoundError if a file is gone), UnsupportedFormat, and LogCorrupted if the
        files do not belong together.
        """
        files = tuple(read_sealed(fs, name) for name in sorted(names))
        assert files
        for file in files:
            _check_belongs(file, files[0])
        return cls(files[0].name.positions, files)

    @property
    def damage(self) -> tuple[Damage, ...]:
        """The positions that cannot be read: what was damaged before sealing, what is now, and what is lost."""
        before = (damaged for file in self.files if file.metadata for damaged in file.metadata.damage)
        now = (damaged for file in self.files for damaged in file.damage)
        distinct = dict.fromkeys([*before, *now, *self.lost])
        return tuple(sorted(distinct, key=lambda each: (each.positions.first, each.positions.last)))

    @property
    def missing_classes(self) -> tuple[SealedClass, ...]:
        """The retention classes whose file is not there: removed by retention, or lost."""
        listed = next((file.metadata.classes for file in self.files if file.metadata), ())
        return missing_classes(listed, [file.name for file in self.files])

    @property
    def complete(self) -> bool:
        """Whether every event that was sealed is there and readable."""
        return not self.missing_classes and not any(file.damage for file in self.files)

    def batches(
        self, from_position: int, until_position: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the readable events with from_position <= position < until_position, in order.

        `columns` are names of EVENT_SCHEMA, None for all; a batch has them in that order, has at most
        65,536 rows and is never empty. Raises LogCorrupted if rows that checked cannot be decoded.
        """
        wanted = list(EVENT_SCHEMA.names if columns is None else columns)
        read = list(dict.fromkeys(["position", *wanted]))
        started = [_Source(file.batches(from_position, until_position, read)) for file in self.files]
        sources = [source for source in started if source.advance()]
        while sources:
            # Up to here every class is known.
            until = min(source.last_position for source in sources)
            merged = _in_order([piece for source in sources if (piece := source.take(until)) is not None])
            for start in range(0, len(merged), BATCH_ROWS_MAX):
                yield merged.slice(start, BATCH_ROWS_MAX).select(wanted)
            sources = [source for source in sources if source.advance()]


class _Source:
    """The batches of one file, of which rows are taken from the front."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._rest: pa.RecordBatch | None = None
        self.last_position = 0

    def advance(self) -> bool:
        """Make sure that rows are waiting; False if there are none left."""
        if self._rest is None:
            self._rest = next(self._batches, None)
            if self._rest is not None:
                self.last_position = int(self._rest.column("position")[-1].as_py() or 0)
        return self._rest is not None

    def take(self, until: int) -> pa.RecordBatch | None:
        """Take the waiting rows up to a position, inclusive; None if all are behind it."""
        assert self._rest is not None
        positions = self._rest.column("position").to_numpy()
        end = int(np.searchsorted(positions, np.uint64(until), side="right"))
        taken = self._rest.slice(0, end)
        self._rest = self._rest.slice(end) if end < len(self._rest) else None
        return taken if end else None


def _in_order(pieces: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Merge batches into one by position."""
    if len(pieces) == 1:
        return pieces[0]
    together = pa.Table.from_batches(list(pieces)).combine_chunks().to_batches()[0]
    return together.take(np.argsort(together.column("position").to_numpy(), kind="stable"))


def _check_belongs(file: SealedFile, first: SealedFile) -> None:
    """Raise LogCorrupted if a file is not of the segment that its name says, or not of the same log."""
    metadata, other = file.metadata, first.metadata
    if metadata is None:
        return
    same_log = other is None or metadata.log_id == other.log_id
    expected = (file.name.positions, file.name.retention_class)
    if (
        same_log
        and file.name.positions == first.name.positions
        and expected == (metadata.positions, metadata.retention_class)
    ):
        return
    raise LogCorrupted(
        f"{file.name.parquet} does not belong to its segment: it holds positions {metadata.positions.first} "
        f"to {metadata.positions.last}, class {metadata.retention_class}, of the log {metadata.log_id}; "
        "move it out of the directory",
        first_position=metadata.positions.first,
        last_position=metadata.positions.last,
    )
