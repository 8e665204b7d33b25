"""Reads one sealed file: checks every byte, repairs what it can, and yields what is readable.

Invariants:
- What it yields is what was sealed, byte for byte; what is not readable is listed in `damage`. Nothing
  is hidden and nothing guessed.
- No file content makes it raise anything but UnsupportedFormat (a newer version wrote the file); OSError
  comes from the disk.

It repairs in memory; `repair_sealed` in `sealed_verify` puts the repaired file back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import EventStorageException, LogCorrupted
from shared.log.file_system import FileSystem
from shared.log.repair_data import check_and_repair
from shared.log.sealed_checksums import CheckedFile, check
from shared.log.sealed_metadata import METADATA_KEY, SealedMetadata
from shared.log.sealed_names import SealedName
from shared.log.types import Damage, Position, PositionRange


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group: its number in the file, its rows, the positions of the first and the last of them."""

    number: int
    rows: int
    positions: PositionRange


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A sealed file in memory. Immutable; iterators over it are independent of each other.

    `metadata` is None if the footer is destroyed; then nothing is readable. `damage` are the positions
    that were sealed into this file and cannot be read now (what was damaged before sealing is in the
    metadata). `intact_on_disk` is whether every byte on disk is as it was written. If
    not, nothing else should read the file there (a wrong bit in a Bloom filter hides events), but use
    what this gives. `repaired_blocks` counts the blocks of 4 KiB that are wrong on disk and were repaired
    in `data`.
    """

    name: SealedName
    metadata: SealedMetadata | None
    damage: tuple[Damage, ...]
    intact_on_disk: bool
    repaired_blocks: int
    row_groups: tuple[RowGroup, ...] = ()
    data: bytes = field(default=b"", repr=False)

    def batches(
        self, from_position: int, until_position: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the readable events with from_position <= position < until_position, in order.

        `columns` are names of EVENT_SCHEMA or of promoted columns, None for all of EVENT_SCHEMA; a batch
        has them in that order. Opens only row groups that can hold such positions. A batch is at most
        one row group, never empty. Raises LogCorrupted if rows that checked cannot be decoded.
        """
        wanted = list(EVENT_SCHEMA.names if columns is None else columns)
        read = list(dict.fromkeys(["position", *wanted]))
        bounds = np.clip(np.array([from_position, until_position], object), 0, 2**64 - 1).astype(np.uint64)
        for group in self.row_groups:
            if group.positions.last < from_position or group.positions.first >= until_position:
                continue
            rows = self.read_row_group(group, read)
            positions = rows.column("position").to_numpy()
            start, end = np.searchsorted(positions, bounds)
            if start < end:
                yield rows.slice(int(start), int(end - start)).select(wanted)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all readable events as one table. See batches."""
        wanted = list(EVENT_SCHEMA.names if columns is None else columns)
        schema = pa.schema([self.field(name) for name in wanted])
        return pa.Table.from_batches(list(self.batches(0, 2**64 - 1, wanted)), schema=schema)

    def field(self, name: str) -> "pa.Field[Any]":
        """Return the field of a column. Raises KeyError if the file has no such column."""
        if name in EVENT_SCHEMA.names:
            return EVENT_SCHEMA.field(name)
        return pq.read_schema(pa.BufferReader(self.data)).field(name)

    def read_row_group(self, group: RowGroup, columns: Sequence[str]) -> pa.RecordBatch:
        """Read columns of one row group. Raises LogCorrupted if it cannot be decoded."""
        schema = pa.schema([self.field(name) for name in columns])
        try:
            with pq.ParquetFile(pa.BufferReader(self.data), page_checksum_verification=True) as file:
                rows = file.read_row_group(group.number, columns=list(columns), use_threads=False)
            batch = rows.select(list(columns)).cast(schema).combine_chunks().to_batches()
        except Exception as error:
            raise LogCorrupted(
                f"{self.name.parquet}: row group {group.number} cannot be decoded though its bytes are as "
                f"they were written ({type(error).__name__}: {error}): report this",
                first_position=group.positions.first,
                last_position=group.positions.last,
            ) from error
        return batch[0]


def read_sealed(fs: FileSystem, name: str) -> SealedFile:
    """Read and check a sealed file by the name of its Parquet file.

    Where it is damaged, its repair data is used. Raises OSError (FileNotFoundError if the file is gone),
    UnsupportedFormat, and EventStorageException if the name is not that of a sealed file.
    """
    sealed_name = SealedName.parse(name)
    if sealed_name is None:
        raise EventStorageException(f"{name} is not the name of a sealed file")
    data = fs.read(name)
    checked = check(data)
    if checked is not None and checked.whole:
        return _open(sealed_name, data, checked, None)
    data, checked, repaired_blocks = _repair(fs, sealed_name, data, checked)
    return _open(sealed_name, data, checked, repaired_blocks)


def _repair(
    fs: FileSystem, name: SealedName, data: bytes, checked: CheckedFile | None
) -> tuple[bytes, CheckedFile | None, int]:
    """Repair what can be repaired. Keep the bytes as they are where that makes nothing better."""
    try:
        result = check_and_repair(data, fs.read(name.repair))
    except (OSError, ValueError):
        return data, checked, 0
    checked_again = check(result.data)
    if _readable(checked_again) <= _readable(checked):
        return data, checked, 0
    return result.data, checked_again, len(result.damaged_blocks)


def _readable(checked: CheckedFile | None) -> tuple[int, int]:
    """Return a measure of how much of a file is right."""
    return (-1, 0) if checked is None else (sum(checked.row_groups), int(checked.between))


def _open(name: SealedName, data: bytes, checked: CheckedFile | None, repaired_blocks: int | None) -> SealedFile:
    """Take apart what was checked. `repaired_blocks` is None if the file is intact on disk."""
    intact = repaired_blocks is None
    if checked is None:
        return _unreadable(name, "its checksum is wrong", intact, repaired_blocks)
    try:
        metadata = SealedMetadata.from_json((checked.metadata.metadata or {})[METADATA_KEY.encode()])
        groups = _row_groups(checked)
    except (ValueError, KeyError) as error:
        return _unreadable(name, str(error), intact, repaired_blocks)
    readable = tuple(group for group in groups if checked.row_groups[group.number])
    damage = tuple(
        Damage(
            group.positions,
            name.parquet,
            f"row group {group.number} with {group.rows} events is damaged beyond repair: "
            "restore the file from a backup",
        )
        for group in groups
        if not checked.row_groups[group.number]
    )
    return SealedFile(name, metadata, damage, intact, repaired_blocks or 0, readable, data)


def _unreadable(name: SealedName, why: str, intact: bool, repaired_blocks: int | None) -> SealedFile:  # noqa: FBT001
    """Return a file of which nothing is readable."""
    problem = f"the footer is damaged beyond repair ({why}): restore the file from a backup"
    return SealedFile(name, None, (Damage(name.positions, name.parquet, problem),), intact, repaired_blocks or 0)


def _row_groups(checked: CheckedFile) -> list[RowGroup]:
    """Return the row groups with their positions, which the footer's statistics tell."""
    groups = []
    for number in range(checked.metadata.num_row_groups):
        group = checked.metadata.row_group(number)
        statistics = group.column(0).statistics
        if statistics is None or statistics.min is None or statistics.max is None:
            raise ValueError("the positions have no statistics")
        first, last = Position(int(statistics.min)), Position(int(statistics.max))
        groups.append(RowGroup(number, group.num_rows, PositionRange(first, last)))
    return groups
