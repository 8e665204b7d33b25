"""Segments as columns: what a query engine can search without reading events one by one.

The seam for engines, as LogReader is for those who read events. Invariants: a Parquet file is offered only if
all of its bytes were checked; what is not intact, and what lies about damage, is offered as checked events up
to the damage, and then as an error.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.log.committed_position import Committed
from shared.log.file_system import LocalFileSystem
from shared.log.index_sidecar import Sidecar
from shared.log.json_path import JsonPath
from shared.log.log_reader import LocalLogReader, SegmentSpan
from shared.log.missing_classes import missing_classes
from shared.log.names import SEGMENTS
from shared.log.payload_keys import absent_columns
from shared.log.promoted_columns import PromotedColumn
from shared.log.sealed_files import Identity, SealedFiles, SealedFooter
from shared.log.sealed_metadata import TimeBounds
from shared.log.tail_columns import TailBlock, TailColumns, block_cache
from shared.log.tail_payloads import TailPayloads
from shared.log.types import Position

# Positions that are checked and copied at once where a segment is not intact.
CAREFUL_ROWS = 65_536
# Positions of an unsealed segment that are handed out at once: they may have to be decoded first.
TAIL_ROWS = 8 * CAREFUL_ROWS
# DuckDB reads files 2,048 rows at a time in each thread, and takes ten times their bytes to parse payloads. So rows
# that take more than WIDE_ROW_BYTES are handed out in memory, WIDE_BYTES at a time, in batches of WIDE_BATCH_BYTES.
WIDE_ROW_BYTES, WIDE_BYTES, WIDE_BATCH_BYTES = 8 * 1024, 64 * 1024 * 1024, 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ParquetColumns:
    """A sealed file that is intact. The names of its columns are those of EVENT_SCHEMA and of the promoted ones."""

    name: str
    path: Path
    identity: Identity
    promoted: tuple[PromotedColumn, ...]


@dataclass(frozen=True, slots=True)
class ArrowColumns:
    """Events in memory, with the columns of EVENT_SCHEMA, some of them dictionary-encoded, and of promoted ones."""

    events: pa.Table
    promoted: tuple[PromotedColumn, ...] = ()


Columns = ParquetColumns | ArrowColumns


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A sealed file of a segment: its footer and its sidecar, None where they are not there or damaged."""

    name: str
    footer: SealedFooter | None
    sidecar: Sidecar | None


@dataclass(frozen=True, slots=True)
class SegmentColumns:
    """A segment as far as it is known without reading its events.

    `files` is empty where it is not sealed. `is_careful`: it holds damage, or may, and is read up to that. It is
    read in pieces of at most `rows_max` positions. `row_bytes`: what an event takes in memory, about.
    """

    span: SegmentSpan
    files: tuple[SegmentFile, ...]
    is_careful: bool
    rows_max: int
    row_bytes: int
    timestamps: TimeBounds | None

    @property
    def first(self) -> Position:
        """First position that belongs to the segment."""
        return self.span.files.first

    @property
    def until(self) -> Position:
        """First position after the segment."""
        return self.span.until

    @property
    def is_wide(self) -> bool:
        """Whether its rows are too long to be read as a file."""
        return self.row_bytes > WIDE_ROW_BYTES


class ColumnReader:
    """The segments of a log in a directory, as columns. Several threads may use it."""

    def __init__(self, fs: LocalFileSystem, reader: LocalLogReader, *, tail_bytes_max: int, use_sidecars: bool) -> None:
        """tail_bytes_max: bytes of unsealed events that are kept decoded, and a quarter more for their payloads."""
        self._fs = fs
        self._reader = reader
        self._use_sidecars = use_sidecars
        self.files = SealedFiles(fs)
        self.blocks = block_cache(tail_bytes_max)
        self.payloads = TailPayloads(tail_bytes_max // 4)
        self._tails: dict[str, TailColumns] = {}

    def close(self) -> None:
        """Give back what cannot be left to itself. Idempotent."""
        self.payloads.close()

    def segments(self, committed: Committed) -> list[SegmentSpan]:
        """The segments that hold committed positions, in order; see LocalLogReader."""
        return self._reader.segments(committed)

    def span_of(self, position: Position, committed: Committed) -> SegmentSpan:
        """The segment that holds a position. Raises PositionTrimmed, LogCorrupted where none does."""
        return self._reader.span_of(position, committed)

    def first_position(self) -> Position:
        """Oldest position kept; 1 for an empty log."""
        return self._reader.first_position()

    def forget_others(self) -> None:
        """Forget what is known of files that are no longer there."""
        present = self._fs.list(SEGMENTS)
        self.files.forget_others(present)
        self.blocks.keep_only(lambda key: key[0] in present)
        self.payloads.keep_only(present.__contains__)
        self._tails = {name: tail for name, tail in list(self._tails.items()) if name in present}

    def describe(self, span: SegmentSpan, committed: Committed) -> SegmentColumns:
        """What is known of a segment.

        Raises FileNotFoundError where it changed meanwhile, OSError, UnsupportedFormat.
        """
        if not span.files.is_sealed:
            index = self._reader.frame_index(span, committed)
            whole = index.is_whole(span.until)
            return SegmentColumns(span, (), not whole, TAIL_ROWS if whole else CAREFUL_ROWS, _TAIL_ROW_BYTES, None)
        files = tuple(self._file(name) for name in span.files.sealed)
        footers = [file.footer for file in files if file.footer is not None]
        damaged = any(footer.metadata.damage for footer in footers)
        careful = len(footers) < len(files) or damaged or self._lacks_files(footers)
        row_bytes = _row_bytes(footers)
        rows_max = CAREFUL_ROWS if careful else span.until - span.files.first
        if row_bytes > WIDE_ROW_BYTES:
            rows_max = min(rows_max, max(WIDE_BYTES // row_bytes, 1))
        return SegmentColumns(span, files, careful, rows_max, row_bytes, _timestamps(footers))

    def columns(
        self,
        segment: SegmentColumns,
        names: Sequence[str],
        *,
        from_position: Position,
        until: Position,
        committed: Committed,
        wanted: Callable[[TailBlock], bool] = lambda _: True,
        paths: Sequence[JsonPath] = (),
    ) -> tuple[list[Columns], Position]:
        """What holds the positions of [from_position, until) in these files of a segment, and how far.

        It is at least one position; until is at most segment.rows_max away. Tables hold these positions only, files
        those of the whole segment. Blocks of an unsealed segment that are not wanted are left out; others may have
        promoted columns of the paths, as files have for those of the paths that no event of theirs has. What turns
        out not to be intact makes the segment careful: then there are events in memory, up to damage.

        Raises LogCorrupted where it begins with damage, FileNotFoundError where the segment changed meanwhile, OSError.
        """
        if not segment.is_careful:
            if not segment.files:
                # What was intact when it was indexed may be damaged by now.
                with contextlib.suppress(LogCorrupted):
                    blocks = self._tail_of(segment, committed).blocks(from_position, until)
                    return self._tail(segment, filter(wanted, blocks), paths, from_position, until), until
                return self._careful(segment, from_position, until, committed)
            footers = [file.footer for file in segment.files if file.name in names and file.footer is not None]
            if not segment.is_wide and all(map(self.files.is_intact, footers)):
                return [_parquet(footer, paths) for footer in footers], until
        return self._careful(segment, from_position, until, committed)

    def times(
        self, segment: SegmentColumns, names: Sequence[str], committed: Committed
    ) -> list[tuple[TimeBounds, int]] | None:
        """The timestamps of the parts of these files of a segment, and how many events each part has.

        None where it holds damage, or may. Raises FileNotFoundError where the segment changed meanwhile, OSError.
        """
        if segment.is_careful:
            return None
        if not segment.files:
            with contextlib.suppress(LogCorrupted):
                return self._tail_of(segment, committed).times(segment.until)
            return None
        footers = [file.footer for file in segment.files if file.name in names and file.footer is not None]
        return [(group.timestamps, group.rows) for footer in footers for group in footer.row_groups]

    def _file(self, name: str) -> SegmentFile:
        return SegmentFile(name, self.files.footer(name), self.files.sidecar(name) if self._use_sidecars else None)

    def _lacks_files(self, footers: Sequence[SealedFooter]) -> bool:
        """Whether a file of the segment is gone whose events were to be kept."""
        missing = missing_classes(footers[0].metadata.classes, [footer.name for footer in footers]) if footers else ()
        return self._reader.lacks_files(missing)

    def _tail(
        self,
        segment: SegmentColumns,
        blocks: Iterator[TailBlock],
        paths: Sequence[JsonPath],
        first: Position,
        until: Position,
    ) -> list[Columns]:
        """The positions of [first, until) of some blocks; those with the same columns together."""
        name = segment.span.files.log
        assert name is not None
        paths = self.payloads.worth_extracting(paths)
        alike: list[tuple[bool, tuple[PromotedColumn, ...], list[pa.Table]]] = []
        for block in blocks:
            events = block.slice(first, until)
            promoted, values = self.payloads.of(name, block, paths) if block.closed else ((), [])
            start = max(first - block.first, 0)
            for column, array in zip(promoted, values, strict=True):
                events = events.append_column(column.column, array.slice(start, events.num_rows))
            if not alike or alike[-1][:2] != (block.closed, promoted):
                alike.append((block.closed, promoted, []))
            alike[-1][2].append(events)
        return [ArrowColumns(_in_batches(pa.concat_tables(tables)), promoted) for _, promoted, tables in alike]

    def _tail_of(self, segment: SegmentColumns, committed: Committed) -> TailColumns:
        index = self._reader.frame_index(segment.span, committed)
        tail = self._tails.get(index.name)
        if tail is None or tail.index is not index:
            # Each new segment is the occasion to forget those that were sealed or removed.
            self.forget_others()
            tail = self._tails[index.name] = TailColumns(index, self.blocks)
        return tail

    def _careful(
        self, segment: SegmentColumns, first: Position, until: Position, committed: Committed
    ) -> tuple[list[Columns], Position]:
        batches: list[pa.RecordBatch] = []
        until = min(until, Position(first + CAREFUL_ROWS))
        try:
            # Up to the damage, what was readable is kept.
            for batch in self._reader.batches_of(segment.span, first, until, committed):
                batches.append(batch)  # noqa: PERF402
        except LogCorrupted as error:
            end, until = until, Position(int(error.metadata["first_position"]))
            if not first < until < end:
                # Ask again for the whole damage: up to here it was cut where the piece ends.
                next(self._reader.batches_of(segment.span, first, segment.until, committed), None)
                raise
        return [ArrowColumns(_in_batches(pa.Table.from_batches(batches, EVENT_SCHEMA)))], until


def _parquet(footer: SealedFooter, paths: Sequence[JsonPath]) -> ParquetColumns:
    metadata = footer.metadata
    promoted = metadata.promoted + absent_columns(paths, metadata.payload_keys)
    return ParquetColumns(footer.name.parquet, footer.path, footer.identity, promoted)


def _in_batches(events: pa.Table) -> pa.Table:
    """The events in batches that DuckDB can parse at once."""
    row_bytes = events.nbytes // max(events.num_rows, 1)
    if row_bytes <= WIDE_ROW_BYTES:
        return events
    rows = max(WIDE_BATCH_BYTES // row_bytes, 1)
    return pa.Table.from_batches(events.to_batches(max_chunksize=rows), events.schema)


# What an event takes in a block, about; blocks are bounded in bytes by themselves.
_TAIL_ROW_BYTES = 300


def _row_bytes(footers: Sequence[SealedFooter]) -> int:
    groups = [group for footer in footers for group in footer.row_groups if group.rows]
    return max((group.bytes // group.rows for group in groups), default=_TAIL_ROW_BYTES)


def _timestamps(footers: Sequence[SealedFooter]) -> TimeBounds | None:
    bounds = [footer.metadata.timestamp for footer in footers if footer.metadata.timestamp is not None]
    return TimeBounds(min(b.first_ns for b in bounds), max(b.last_ns for b in bounds)) if bounds else None
