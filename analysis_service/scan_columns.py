"""Which columns a scan must have for the fields that analyses ask for, and the way back.

A payload path is scanned as numbers where only its numbers are wanted, else as its JSON text, whose strings are
decoded here. Position, timestamp, type and source are always scanned.

Invariant: the fields of the columns that come out have the names of the fields that were asked for.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa

from analysis_service.columns import EventColumns
from shared.columns.arrow import StringArray
from shared.columns.arrow import compute as pc

_ALWAYS = ("position", "timestamp", "type", "source")


class ScanColumns:
    """Fields wanted as texts, as doubles and as exact integers. A field wanted as text is scanned as text only."""

    def __init__(self, texts: Iterable[str] = (), *, numbers: Iterable[str] = (), integers: Iterable[str] = ()) -> None:
        kinds: dict[str, str] = dict.fromkeys([*_ALWAYS, *texts], "")
        for kind, fields in (("integer", integers), ("double", numbers)):
            for field in fields:
                kinds.setdefault(field, kind if field.startswith("payload") else "")
        self._field_of = {f"{field}:{kind}" if kind else field: field for field, kind in kinds.items()}

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
        columns: dict[str, Any] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            field = self._field_of[name]
            is_json = name == field and field.startswith("payload.")
            columns[field.removeprefix("metadata.")] = _decoded(column) if is_json else column
        return pa.table(columns)


def columns_of(tables: list[pa.Table], scanned: ScanColumns) -> EventColumns:
    """Events of tables that a scan gave; of none, events with all columns and no rows."""
    if tables:
        return EventColumns(pa.concat_tables(tables))
    empty: dict[str, Any] = {name.removeprefix("metadata."): pa.array([], pa.string()) for name in scanned.fields}
    empty["position"] = pa.array([], pa.uint64())
    empty["timestamp"] = pa.array([], pa.timestamp("ns", tz="UTC"))
    return EventColumns(pa.table(empty))


def _decoded(column: StringArray) -> StringArray:
    """JSON texts with strings as what they say; each distinct text is decoded once."""
    if column.null_count == len(column):
        return column
    encoded: Any = pc.if_else(pc.equal(column, "null"), None, column).dictionary_encode()
    texts = [msgspec.json.decode(text) if text.startswith('"') else text for text in encoded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(encoded.indices, pa.array(texts, pa.string())).dictionary_decode()
