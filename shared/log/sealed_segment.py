"""Seals a segment: writes its events into immutable Parquet files, one for each retention class.

The events pass through in row groups; what is held in memory is the compressed files, and what waits to fill
a row group.

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

from shared.columns.arrow import StringArray
from shared.errors import EventStorageException
from shared.log.file_system import FileSystem
from shared.log.index_sidecar import SidecarBuilder
from shared.log.names import SEGMENTS, TEMPORARY_SUFFIX
from shared.log.promoted_columns import JsonExtractor
from shared.log.repair_data import build_repair_data
from shared.log.retention_classes import DEFAULT_CLASS, RetentionClasses
from shared.log.sealed_file import SealedFileBuilder, SealOptions
from shared.log.sealed_merge import SealedSegment
from shared.log.sealed_metadata import FORMAT_VERSION, SealedClass, SealedMetadata
from shared.log.sealed_names import SealedName, segment_prefix
from shared.log.sealed_rows import sort_into_row_groups, split_by_class
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
    sample: Sequence[pa.RecordBatch] = (),
) -> SealedSegment:
    """Seal the segment of the positions first to last, both inclusive.

    `events` have the columns of EVENT_SCHEMA and ascend by position; they are iterated over once or twice,
    each time from the beginning. `sample` are a few of them, from everywhere, which help to choose the
    promoted columns. Positions that are missing must be accounted for by `damage`. A segment without
    readable events becomes one file without rows.

    Raises OSError if the disk fails (try again when it is well), LogCorrupted if positions are missing
    unaccounted for, ValueError if the events are out of order, EventStorageException if what was written
    does not read back.
    """
    assert 1 <= first <= last
    batches = events.to_batches() if isinstance(events, pa.Table) else events
    segment = _Segment(PositionRange(first, last), batches, classes, options, tuple(damage))
    files = segment.build(sample)
    metadata = SealedMetadata(
        format=FORMAT_VERSION,
        log_id=log_id,
        positions=segment.positions,
        retention_class=DEFAULT_CLASS,
        classes=tuple(_class_of(name, builder, classes) for name, builder in files.items()),
        damage=segment.damage,
        promoted=(),
        recorded_at=None,
        timestamp=None,
    )
    _remove_temporary_files(fs, segment.positions)
    temporary = _write_temporary_files(fs, files, segment.indexes, metadata)
    _remove_leftovers(fs, segment.positions, temporary)
    for name, temporary_name in temporary.items():
        fs.rename(temporary_name, name)
    fs.sync_directory(SEGMENTS)
    return _read_back(fs, [name for name in temporary if name.endswith(".parquet")])


def _class_of(name: str, file: SealedFileBuilder, classes: RetentionClasses) -> SealedClass:
    configured = classes.named(name)
    newest = file.recorded_at.last_ns if file.recorded_at else None
    return SealedClass(name, configured.pattern, configured.seconds, file.rows, newest)


class _Segment:
    """The events of a segment on their way into files."""

    def __init__(
        self,
        positions: PositionRange,
        events: Iterable[pa.RecordBatch],
        classes: RetentionClasses,
        options: SealOptions,
        damage: tuple[Damage, ...],
    ) -> None:
        self.positions = positions
        self.damage = damage
        self._events = events
        self._classes = classes
        self._options = options
        # By the name of the retention class; none where no index is wanted.
        self.indexes: dict[str, SidecarBuilder] = {}

    def build(self, sample: Sequence[pa.RecordBatch]) -> dict[str, SealedFileBuilder]:
        """Build the file of each retention class that occurs, by its name, in the order of the names."""
        payloads: dict[str, list[StringArray]] = {}
        for batch in sample:
            for name, rows in split_by_class(batch, self._classes):
                payloads.setdefault(name, []).append(rows.column("payload"))
        samples = {name: pa.chunked_array(found) for name, found in payloads.items()}
        with JsonExtractor() as extractor:
            files: dict[str, SealedFileBuilder] = {}
            for name, row_group in self._row_groups():
                if name not in files:
                    files[name] = SealedFileBuilder(extractor, self._options, sample=samples.get(name))
                files[name].add(row_group)
                if self._options.write_index:
                    self.indexes.setdefault(name, SidecarBuilder()).add(row_group)
            self._build_again(extractor, files)
            if not files:
                files[DEFAULT_CLASS] = SealedFileBuilder(extractor, self._options)
                if self._options.write_index:
                    self.indexes[DEFAULT_CLASS] = SidecarBuilder()
        return dict(sorted(files.items()))

    def _build_again(self, extractor: JsonExtractor, files: dict[str, SealedFileBuilder]) -> None:
        """Replace the files whose later events did not agree with the columns that the first ones chose."""
        again = {
            name: SealedFileBuilder(extractor, self._options, choice=choice)
            for name, file in files.items()
            if (choice := file.revised_choice()) is not None
        }
        files.update(again)
        for name, row_group in self._row_groups() if again else ():
            if name in again:
                again[name].add(row_group)
        assert all(file.revised_choice() is None for file in again.values())

    def _row_groups(self) -> Iterable[tuple[str, pa.Table]]:
        return sort_into_row_groups(self._events, classes=self._classes, positions=self.positions, damage=self.damage)


def _write_temporary_files(
    fs: FileSystem,
    files: Mapping[str, SealedFileBuilder],
    indexes: Mapping[str, SidecarBuilder],
    metadata: SealedMetadata,
) -> dict[str, str]:
    """Write and sync all files. Return the temporary name by final name, in the order to rename them."""
    companions: dict[str, str] = {}
    parquet: dict[str, str] = {}
    for each, file in files.items():
        name = SealedName.of(metadata.positions, each)
        data = file.finish(metadata.for_class(each))
        parquet[name.parquet] = write_temporary_file(fs, name.parquet, data)
        companions[name.repair] = write_temporary_file(fs, name.repair, build_repair_data(data))
        if each in indexes:
            companions[name.index] = write_temporary_file(fs, name.index, indexes[each].finish())
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
