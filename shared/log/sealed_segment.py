"""Seals a segment: writes its events into immutable Parquet files, one for each retention class.

Invariants:
- The files appear under their names only when all of them are complete and synced; the Parquet files
  after their companions. The directory is synced before it returns.
- Running it again after a crash or an error at any point ends in the same files: leftovers under
  temporary names are removed, leftovers under final names are replaced.
- What it returns was read back from the disk and checked.

The caller holds the segment's .log until it returns, and removes it afterwards: while the .log is there,
it is the segment.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from shared.columns.arrow import compute as pc
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import EventStorageException
from shared.log.file_system import FileSystem
from shared.log.index_sidecar import build_sidecar
from shared.log.names import SEGMENTS, TEMPORARY_SUFFIX
from shared.log.repair_data import build_repair_data
from shared.log.retention_classes import DEFAULT_CLASS, RetentionClasses
from shared.log.sealed_file import SealOptions, build_sealed_file
from shared.log.sealed_merge import SealedSegment
from shared.log.sealed_metadata import FORMAT_VERSION, SealedClass, SealedMetadata
from shared.log.sealed_names import SealedName, segment_prefix
from shared.log.sealed_rows import sort_into_classes
from shared.log.types import Damage, Position, PositionRange
from shared.log.whole_file import write_temporary_file

__all__ = ["SealOptions", "SealedSegment", "seal_events"]

_DEFAULT_OPTIONS = SealOptions()
_FINAL = re.compile(r"\.([a-z0-9_-]+)\.(?:parquet|idx|par)")


def seal_events(
    fs: FileSystem,
    *,
    first: Position,
    last: Position,
    events: Iterable[pa.RecordBatch] | pa.Table,
    log_id: str,
    classes: RetentionClasses,
    options: SealOptions = _DEFAULT_OPTIONS,
    damage: Sequence[Damage] = (),
) -> SealedSegment:
    """Seal the segment of the positions first to last, both inclusive.

    `events` have the columns of EVENT_SCHEMA and ascend by position; positions that are missing must be
    accounted for by `damage`. A segment without readable events becomes one file without rows.

    Raises OSError if the disk fails (try again when it is well), LogCorrupted if positions are missing
    unaccounted for, ValueError if the events are out of order, EventStorageException if what was written
    does not read back.
    """
    assert 1 <= first <= last
    positions = PositionRange(first, last)
    batches = events.to_batches() if isinstance(events, pa.Table) else events
    groups = sort_into_classes(batches, classes=classes, positions=positions, damage=damage)
    if not groups:
        groups = {DEFAULT_CLASS: []}
    metadata = SealedMetadata(
        format=FORMAT_VERSION,
        log_id=log_id,
        positions=positions,
        retention_class=DEFAULT_CLASS,
        classes=_classes(groups, classes),
        damage=tuple(damage),
        promoted=(),
        recorded_at=None,
        timestamp=None,
    )
    _remove_temporary_files(fs, positions)
    temporary = _write_temporary_files(fs, groups, metadata, options)
    _remove_leftovers(fs, positions, temporary)
    for name, temporary_name in temporary.items():
        fs.rename(temporary_name, name)
    fs.sync_directory(SEGMENTS)
    return _read_back(fs, [name for name in temporary if name.endswith(".parquet")])


def _classes(groups: Mapping[str, Sequence[pa.RecordBatch]], classes: RetentionClasses) -> tuple[SealedClass, ...]:
    found = []
    for name, batches in groups.items():
        configured = classes.named(name)
        rows = sum(len(batch) for batch in batches)
        newest = max((pc.max(batch.column("recorded_at").cast(pa.int64())).as_py() for batch in batches), default=None)
        found.append(SealedClass(name, configured.pattern, configured.seconds, rows, newest))
    return tuple(found)


def _write_temporary_files(
    fs: FileSystem, groups: dict[str, list[pa.RecordBatch]], metadata: SealedMetadata, options: SealOptions
) -> dict[str, str]:
    """Write and sync all files. Return the temporary name by final name, in the order to rename them."""
    companions: dict[str, str] = {}
    parquet: dict[str, str] = {}
    for each in metadata.classes:
        # Taken out of the dictionary, so that one class at a time is in memory with its copies.
        batches = groups.pop(each.name)
        name = SealedName.of(metadata.positions, each.name)
        own = metadata.for_class(each.name)
        data = build_sealed_file(batches, own, options)
        parquet[name.parquet] = write_temporary_file(fs, name.parquet, data)
        companions[name.repair] = write_temporary_file(fs, name.repair, build_repair_data(data))
        if options.write_index:
            index = build_sidecar(pa.Table.from_batches(batches, EVENT_SCHEMA))
            companions[name.index] = write_temporary_file(fs, name.index, index)
    return companions | parquet


def _remove_temporary_files(fs: FileSystem, positions: PositionRange) -> None:
    """Remove what an attempt that did not end left, also one that took the segment for another length."""
    beginning = f"{SEGMENTS}/{positions.first:020}-"
    for name in fs.list(SEGMENTS):
        if name.startswith(beginning) and name.endswith(TEMPORARY_SUFFIX):
            fs.remove(name)


def _remove_leftovers(fs: FileSystem, positions: PositionRange, temporary: Mapping[str, str]) -> None:
    """Remove the files of an attempt that ended after its first rename, unless they are the same.

    Without this, a file of the old attempt could stand beside the repair data of the new one, or a class
    that the new configuration does not have could repeat events.
    """
    prefix = segment_prefix(positions)
    finals = [name for name in fs.list(SEGMENTS) if name.startswith(prefix) and _FINAL.fullmatch(name[len(prefix) :])]
    different = [name for name in finals if name not in temporary or fs.read(name) != fs.read(temporary[name])]
    if not different:
        return
    for name in sorted(finals, key=lambda name: not name.endswith(".parquet")):
        fs.remove(name)
    fs.sync_directory(SEGMENTS)


def _read_back(fs: FileSystem, names: Sequence[str]) -> SealedSegment:
    """Open the segment as it is on disk now."""
    segment = SealedSegment.open(fs, names)
    if not segment.complete or not all(file.intact_on_disk for file in segment.files):
        raise EventStorageException(
            f"the sealed files of {names[0]} do not read back as they were written: keep the .log, check "
            "the disk and its controller, and seal again"
        )
    return segment
