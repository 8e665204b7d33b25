"""Builds one sealed Parquet file from its row groups, of which one at a time is in memory.

Invariants:
- The columns are those of EVENT_SCHEMA, then the promoted ones; the rows ascend by position.
- The same row groups and options give the same bytes.
- Every byte is covered by a checksum (`sealed_checksums`).

What is held is the compressed file. It does not touch the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.columns.arrow import Array, StringArray
from shared.columns.arrow import compute as pc
from shared.columns.schema import EVENT_SCHEMA
from shared.log.column_encoding import ColumnEncodings, choose_encodings, parquet_path
from shared.log.json_path import JsonPath
from shared.log.payload_keys import PayloadKeys
from shared.log.promoted_columns import Choice, JsonExtractor, PromotedColumn, Promoter
from shared.log.promoted_values import ARROW_TYPES
from shared.log.sealed_checksums import CHECKSUMS_KEY, placeholder, stamp
from shared.log.sealed_metadata import METADATA_KEY, SealedMetadata, TimeBounds

# Columns that get a Bloom filter in each row group, for equality in DuckDB.
BLOOM_COLUMNS = ("correlation_id", "session_id", "user")
_BLOOM_FALSE_POSITIVES = 0.05
# Of a column that the first row group has few values of, the others may have more.
_BLOOM_VALUES_MIN = 256

# Measured on reference events: bytes and seconds go into the payload, the rest gains next to nothing
# from a higher level. For the payload, level 9 gives 8.7 bytes an event, 10 8.5, 11 8.3 (0.4 s more for
# a million events), 13 8.1 (3 s more); level 1 gives 10.7 and takes 1.6 s less.
_PAYLOAD_LEVEL = 10
_TAGS_LEVEL = 5
_LEVEL = 1
_TEXTS = ("payload", "tags.list.element")
# A reader that wants one event decompresses one page of each column. Smaller pages cost bytes, fewer row groups
# (each with its dictionaries and its entry in the footer) save more: together 0.7 % fewer bytes than pages and row
# groups of 65,536 rows, and 1.5 ms less of 7.5 for an event by its id.
_PAGE_BYTES = 2 * 1024 * 1024
_PAGE_ROWS_MAX = 8_192


@dataclass(frozen=True, slots=True)
class SealOptions:
    """How to seal.

    `promoted_paths`: payload paths to promote wherever they occur. `compress`: whether to compress.
    `write_index`: whether to write index sidecars. `hurry`: compress less for the sake of speed.
    """

    promoted_paths: tuple[JsonPath, ...] = ()
    compress: bool = True
    write_index: bool = True
    hurry: bool = False


class SealedFileBuilder:
    """Takes the row groups of one file, none of them empty, and gives its bytes."""

    def __init__(
        self,
        extractor: JsonExtractor,
        options: SealOptions,
        *,
        sample: StringArray | None = None,
        choice: Choice | None = None,
    ) -> None:
        """Begin a file. Several may be built at a time with one extractor.

        `sample`: some payloads of its later row groups, which help to choose the promoted columns.
        `choice`: that of another builder, which saw all the row groups and could not use its own.
        """
        self._options = options
        self._sample = sample
        self._promoter = Promoter(extractor, options.promoted_paths, choice)
        self._payload_keys = PayloadKeys(extractor)
        self._sink = pa.BufferOutputStream()
        self._writer: pq.ParquetWriter | None = None
        self._row_groups = 0
        self.rows = 0
        self.recorded_at: TimeBounds | None = None
        self.timestamp: TimeBounds | None = None

    def add(self, rows: pa.Table) -> None:
        """Add a row group with EVENT_SCHEMA."""
        self.rows += rows.num_rows
        self.recorded_at = _bounds(rows, "recorded_at", self.recorded_at)
        self.timestamp = _bounds(rows, "timestamp", self.timestamp)
        self._payload_keys.add(rows.column("payload"))
        arrays = self._promoter.add(rows.column("payload"), self._sample)
        self._sample = None
        if arrays is not None:
            self._write(rows, arrays)

    def revised_choice(self) -> Choice | None:
        """Return None where the file can be finished; else it is to be built anew with this choice."""
        return self._promoter.revised()

    def finish(self, metadata: SealedMetadata) -> bytes:
        """Return the bytes of the file, and forget them. What the metadata says of its events is filled in."""
        metadata = replace(
            metadata,
            promoted=self._promoter.columns,
            recorded_at=self.recorded_at,
            timestamp=self.timestamp,
            payload_keys=self._payload_keys.found,
        )
        writer = self._writer or self._open(EVENT_SCHEMA.empty_table())
        keys = {METADATA_KEY: metadata.to_json().decode()}
        writer.add_key_value_metadata(keys | {CHECKSUMS_KEY.decode(): placeholder(self._row_groups).decode()})
        writer.close()
        written, self._sink, self._writer = self._sink.getvalue(), pa.BufferOutputStream(), None
        return stamp(memoryview(written))

    def _write(self, rows: pa.Table, arrays: Sequence[Array]) -> None:
        table = pa.Table.from_arrays([*rows.columns, *arrays], schema=_schema(self._promoter.columns))
        writer = self._writer or self._open(table)
        writer.write_table(table, row_group_size=table.num_rows)
        self._row_groups += 1

    def _open(self, first: pa.Table) -> pq.ParquetWriter:
        options = _writer_options(first, choose_encodings(first), self._options)
        self._writer = pq.ParquetWriter(self._sink, first.schema, **options)
        return self._writer


def _schema(promoted: Sequence[PromotedColumn]) -> pa.Schema:
    return pa.schema([*EVENT_SCHEMA, *(pa.field(column.column, ARROW_TYPES[column.kind]) for column in promoted)])


def _writer_options(first: pa.Table, encodings: ColumnEncodings, options: SealOptions) -> dict[str, Any]:
    levels = {parquet_path(column): _LEVEL for column in first.schema}
    if not options.hurry:
        levels |= {"payload": _PAYLOAD_LEVEL, "tags.list.element": _TAGS_LEVEL}
    return {
        "compression": "zstd" if options.compress else "none",
        "compression_level": levels if options.compress else None,
        "use_dictionary": encodings.use_dictionary or False,
        "column_encoding": encodings.column_encoding or None,
        "data_page_version": "1.0",
        "data_page_size": _PAGE_BYTES,
        "max_rows_per_page": _PAGE_ROWS_MAX,
        "write_page_checksum": True,
        # The smallest and the largest text of a payload tell nothing.
        "write_statistics": [name for column in first.schema if (name := parquet_path(column)) not in _TEXTS],
        "sorting_columns": [pq.SortingColumn(0)],
        "bloom_filter_options": _bloom_filters(first),
    }


def _bloom_filters(first: pa.Table) -> dict[str, dict[str, float]]:
    """Size the Bloom filters by the first row group: the others are about as large and as varied."""
    distinct = {name: pc.count_distinct(first.column(name)).as_py() for name in BLOOM_COLUMNS}
    return {
        name: {"ndv": max(count, _BLOOM_VALUES_MIN), "fpp": _BLOOM_FALSE_POSITIVES} for name, count in distinct.items()
    }


def _bounds(rows: pa.Table, name: str, before: TimeBounds | None) -> TimeBounds:
    """Return the smallest and largest time of a column, together with those before."""
    extremes = pc.min_max(rows.column(name).cast(pa.int64()))
    first, last = extremes["min"].as_py(), extremes["max"].as_py()
    return TimeBounds(min(first, before.first_ns), max(last, before.last_ns)) if before else TimeBounds(first, last)
