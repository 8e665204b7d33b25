"""Chosen columns of events as the columns of a result."""

from collections.abc import Sequence

import pyarrow as pa

from query_service.asked_columns import AskedColumn, column_sql, type_of
from query_service.question import paths_of_keys
from query_service.reading import CHUNK_BYTES, rows_of_a_chunk
from query_service.statements import Builder
from shared.columns.answers import event_ids
from shared.columns.schema import EVENT_SCHEMA
from shared.log.json_path import JsonPath
from shared.log.promoted_columns import PromotedColumn

_POSITION = "position"
# Bytes of a row of columns whose values are all short.
_NARROW_BYTES = 64
_SCAN_ROWS_MAX = 131_072


class ScanProjection:
    """The columns of a scan, and the position, which readings need. See Projection."""

    def __init__(self, columns: Sequence[AskedColumn], *, log_id: str) -> None:
        self._columns = tuple(columns)
        self._log_id = log_id
        # The position comes last, whether it was asked for or not; the id is made of it.
        self._stored = [column for column in columns if column.field.name not in {"id", _POSITION}]
        fields = [pa.field(column.name, type_of(column)) for column in self._stored]
        self.schema = pa.schema([*fields, EVENT_SCHEMA.field(_POSITION)])

    @property
    def result_schema(self) -> pa.Schema:
        """Names and types of the columns that were asked for."""
        return pa.schema([pa.field(column.name, type_of(column)) for column in self._columns])

    @property
    def payload_paths(self) -> tuple[JsonPath, ...]:
        """The paths of the columns."""
        return paths_of_keys(column.field for column in self._columns)

    def chunk_rows(self, row_bytes: int) -> int:
        """How many rows make a chunk, of events that have so many bytes."""
        if any(column.is_wide for column in self._columns):
            return rows_of_a_chunk(row_bytes)
        return min(CHUNK_BYTES // (_NARROW_BYTES * max(len(self._columns), 1)), _SCAN_ROWS_MAX)

    def sql(self, promoted: Sequence[PromotedColumn], builder: Builder) -> str:
        """Return what stands after SELECT."""
        values = [f"{column_sql(column, promoted, builder)} AS c{at}" for at, column in enumerate(self._stored)]
        return ", ".join([*values, "position"])

    def finish(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Turn a batch with `schema` into what was asked for."""
        arrays = [
            event_ids(self._log_id, batch.column(_POSITION)) if column.field.name == "id" else batch.column(column.name)
            for column in self._columns
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.result_schema)
