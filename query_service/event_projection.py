"""Whole events as the columns of a result."""

from collections.abc import Sequence

import pyarrow as pa

from query_service.reading import rows_of_a_chunk
from query_service.statements import Builder
from shared.columns.arrow import Array
from shared.columns.schema import EVENT_SCHEMA
from shared.filters.sql_parameters import quote_identifier
from shared.log.json_path import JsonPath
from shared.log.promoted_columns import PromotedColumn

_SQL = ", ".join(map(quote_identifier, EVENT_SCHEMA.names))


class EventProjection:
    """All columns of EVENT_SCHEMA. See Projection."""

    @property
    def schema(self) -> pa.Schema:
        """EVENT_SCHEMA."""
        return EVENT_SCHEMA

    @property
    def payload_paths(self) -> tuple[JsonPath, ...]:
        """None."""
        return ()

    def sql(self, promoted: Sequence[PromotedColumn], builder: Builder) -> str:  # noqa: ARG002 — it needs neither
        """Return the names of the columns."""
        return _SQL

    def chunk_rows(self, row_bytes: int) -> int:
        """Return how many whole events make a chunk."""
        return rows_of_a_chunk(row_bytes)


class _Positions:
    """The positions alone. See Projection."""

    @property
    def schema(self) -> pa.Schema:
        """One column."""
        return pa.schema([EVENT_SCHEMA.field("position")])

    @property
    def payload_paths(self) -> tuple[JsonPath, ...]:
        """None."""
        return ()

    def sql(self, promoted: Sequence[PromotedColumn], builder: Builder) -> str:  # noqa: ARG002 — it needs neither
        """Return its name."""
        return "position"

    def chunk_rows(self, row_bytes: int) -> int:  # noqa: ARG002 — a position is a position
        """Return how many positions make a chunk: 1 MiB."""
        return 131_072


EVENTS = EventProjection()
POSITIONS = _Positions()


def as_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give a result of DuckDB the types that it was asked for: time zones and names within lists differ."""
    arrays = [_as_type(batch.column(number), field.type) for number, field in enumerate(schema)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _as_type(column: Array, wanted: pa.DataType) -> Array:
    return column if column.type.equals(wanted) else column.cast(wanted)
