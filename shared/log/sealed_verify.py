"""Verifies sealed files in full, and puts back on disk what could be repaired.

It decodes every value, compares positions, counts and metadata with each other, and the promoted columns
with the text of the payloads. It finds what a reader cannot see in passing: companions that are damaged
or missing, and files that are only readable because they were repaired in memory.
"""

from collections.abc import Iterator

import duckdb
import numpy as np

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.log.file_system import FileSystem
from shared.log.index_sidecar import Sidecar
from shared.log.payload_keys import PayloadKeys
from shared.log.promoted_columns import JsonExtractor, PromotedColumn
from shared.log.repair_data import build_repair_data, is_whole
from shared.log.sealed_metadata import SealedMetadata
from shared.log.sealed_names import SealedName
from shared.log.sealed_reader import RowGroup, SealedFile, read_sealed
from shared.log.types import Damage, Position, PositionRange
from shared.log.whole_file import write_whole_file


def verify_sealed(fs: FileSystem, name: str) -> list[Damage]:
    """Verify a sealed file and its companions by the name of the Parquet file. Return what is wrong.

    Positions that cannot be read are named with the damage. Where nothing is lost (a companion is
    damaged, or the file was repaired in memory) the range of positions is empty. What was damaged before
    sealing is in the metadata and not repeated here. Raises OSError, UnsupportedFormat and
    EventStorageException as read_sealed does.
    """
    file = read_sealed(fs, name)
    found = [*file.damage, *_notes(fs, file)]
    if file.metadata is not None:
        found.extend(_content_damage(file, file.metadata))
    return found


def repair_sealed(fs: FileSystem, name: str) -> bool:
    """Put a file that could be repaired as a whole back on disk, and new repair data where it is damaged.

    Returns whether the file and its repair data are whole on disk now; False leaves them as they are.
    Raises as read_sealed does.
    """
    file = read_sealed(fs, name)
    if file.damage or not file.data:
        return False
    if not file.intact_on_disk:
        if not _matches(fs, file.name, file.data):
            return False
        write_whole_file(fs, file.name.parquet, file.data)
    elif not _matches(fs, file.name, file.data):
        write_whole_file(fs, file.name.repair, build_repair_data(file.data))
    return True


def _matches(fs: FileSystem, name: SealedName, data: bytes) -> bool:
    """Return whether the repair data is there, whole, and that of these bytes."""
    try:
        return is_whole(data, fs.read(name.repair))
    except FileNotFoundError:
        return False


def _notes(fs: FileSystem, file: SealedFile) -> Iterator[Damage]:
    """Yield what is wrong without any event being lost."""
    name = file.name
    nothing = PositionRange(name.positions.first, Position(name.positions.first - 1))
    if not file.intact_on_disk and not file.damage:
        problem = f"{file.repaired_blocks} blocks of 4 KiB are damaged and can be repaired: rewrite the file"
        yield Damage(nothing, name.parquet, problem)
    if file.intact_on_disk and not _matches(fs, name, file.data):
        yield Damage(nothing, name.repair, "the repair data is missing or damaged: build it anew")
    try:
        sidecar = Sidecar.load(fs.read(name.index))
    except FileNotFoundError:
        return
    except ValueError as error:
        yield Damage(nothing, name.index, str(error))
        return
    if file.metadata is not None and sidecar.summary.rows != file.metadata.rows:
        yield Damage(nothing, name.index, "the index is that of another file: rebuild the index")


def _content_damage(file: SealedFile, metadata: SealedMetadata) -> Iterator[Damage]:
    """Yield what is wrong inside of a file whose bytes are as they were written: our own mistakes."""
    name = file.name
    if (metadata.positions, metadata.retention_class) != (name.positions, name.retention_class):
        problem = (
            f"the file holds class {metadata.retention_class} of the segment {metadata.positions.first} to "
            f"{metadata.positions.last}: give it back its name"
        )
        yield Damage(name.positions, name.parquet, problem)
    rows = sum(group.rows for group in file.row_groups)
    if rows != metadata.rows and not file.damage:
        problem = f"the file has {rows} events, its metadata says {metadata.rows}: restore it from a backup"
        yield Damage(name.positions, name.parquet, problem)
    previous = metadata.positions.first - 1
    with JsonExtractor() as extractor:
        for group in file.row_groups:
            problem = _row_group_problem(file, metadata, group, previous, extractor)
            if problem:
                yield Damage(group.positions, name.parquet, f"row group {group.number}: {problem}")
            previous = group.positions.last


def _row_group_problem(
    file: SealedFile, metadata: SealedMetadata, group: RowGroup, previous: int, extractor: JsonExtractor
) -> str:
    """Decode a row group. Return what is wrong with it, or nothing."""
    promoted = [column.column for column in metadata.promoted]
    try:
        batch = file.read_row_group(group, [*EVENT_SCHEMA.names, *promoted])
    except LogCorrupted as error:
        return str(error)
    positions = batch.column("position").to_numpy()
    ascending = bool(np.all(positions[1:] > positions[:-1]))
    if not ascending or positions[0] <= previous or positions[-1] > metadata.positions.last:
        return "the positions do not ascend within the segment: restore the file from a backup"
    try:
        batch.validate(full=True)
        expected = extractor.extract_columns(batch.column("payload"), metadata.promoted)
        keys = PayloadKeys(extractor)
        keys.add(batch.column("payload"))
    except (ValueError, duckdb.Error) as error:
        return f"the promoted columns cannot be compared with the payloads ({error}): report this"
    wrong = [
        column
        for column, values in zip(metadata.promoted, expected, strict=True)
        if not values.equals(batch.column(column.column))
    ]
    if wrong:
        return f"promoted columns differ from the payloads: {_named(wrong)}: report this"
    if metadata.payload_keys is not None and not set(metadata.payload_keys).issuperset(keys.found or ()):
        return "payloads have keys that the metadata does not name: report this"
    return ""


def _named(columns: list[PromotedColumn]) -> str:
    return ", ".join(f"{'.'.join(column.path)!r} as {column.kind}" for column in columns)
