"""Which columns a scan must have for the fields that analyses ask for, and the way back.

A payload path is scanned as numbers where only its numbers are wanted, else as text. Position, timestamp, type and
source are always scanned.

Invariant: the fields of the columns that come out have the names of the fields that were asked for.
"""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from analysis_service.columns import EventColumns, column_name

_ALWAYS = ("position", "timestamp", "type", "source")


class ScanColumns:
    """Fields wanted as texts, as doubles and as exact integers. A field wanted as text is scanned as text only."""

    def __init__(self, texts: Iterable[str] = (), *, numbers: Iterable[str] = (), integers: Iterable[str] = ()) -> None:
        columns = {field: as_text(field) for field in (*_ALWAYS, *texts)}
        for kind, fields in (("integer", integers), ("double", numbers)):
            for field in fields:
                columns.setdefault(field, f"{field}:{kind}" if field.startswith("payload") else field)
        self._field_of = {column: field for field, column in columns.items()}

    @property
    def names(self) -> list[str]:
        """Names of the columns, as a scan takes them."""
        return list(self._field_of)

    @property
    def fields(self) -> list[str]:
        """Names of the fields."""
        return list(self._field_of.values())

    def table(self, batch: pa.RecordBatch) -> pa.Table:
        """A batch of the scan, its columns named as the fields."""
        names = [column_name(self._field_of[name]) for name in batch.schema.names]
        return pa.Table.from_arrays(batch.columns, names)


def as_text(field: str) -> str:
    """Name of the column that has a field as text."""
    return f"{field}:text" if field.startswith("payload.") else field


def columns_of(tables: list[pa.Table], scanned: ScanColumns) -> EventColumns:
    """Events of tables that a scan gave; of none, events with all columns and no rows."""
    if tables:
        return EventColumns(pa.concat_tables(tables))
    empty: dict[str, Any] = {column_name(name): pa.array([], pa.string()) for name in scanned.fields}
    empty["position"] = pa.array([], pa.uint64())
    empty["timestamp"] = pa.array([], pa.timestamp("ns", tz="UTC"))
    return EventColumns(pa.table(empty))
