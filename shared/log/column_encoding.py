"""Which Parquet encoding each column of a sealed file gets: the one that is smallest on its first row group.

Invariant: the same rows give the same choice. Dictionaries win where they are nearly as small, because
DuckDB filters them faster.
"""

import io
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DICTIONARY = "DICTIONARY"

# Columns whose best encoding is known: the text compresses best as it is, positions are a ramp.
_FIXED = {"position": "DELTA_BINARY_PACKED", "payload": "PLAIN"}
_TRIAL_ROWS_MIN = 4096
_DICTIONARY_ADVANTAGE = 1.05


@dataclass(frozen=True, slots=True)
class ColumnEncodings:
    """The encodings of a file's columns, in the form that ParquetWriter takes."""

    use_dictionary: list[str] = field(default_factory=list)
    column_encoding: dict[str, str] = field(default_factory=dict)


def choose_encodings(rows: pa.Table) -> ColumnEncodings:
    """Choose the encoding of each column by the first row group of a file."""
    chosen = ColumnEncodings()
    for name in rows.column_names:
        column = rows.select([name])
        path = parquet_path(rows.schema.field(name))
        encoding = _FIXED.get(name) or _smallest(column, path, _candidates(rows.schema.field(name).type))
        if encoding == DICTIONARY:
            chosen.use_dictionary.append(path)
        elif encoding is not None:
            chosen.column_encoding[path] = encoding
    return chosen


def parquet_path(column: "pa.Field[Any]") -> str:
    """Return the path of a column's leaf in Parquet."""
    return f"{column.name}.list.element" if pa.types.is_list(column.type) else column.name


def _candidates(arrow_type: pa.DataType) -> list[str]:
    """Return the encodings worth trying for a type, the usual one first."""
    if pa.types.is_string(arrow_type):
        return [DICTIONARY, "DELTA_LENGTH_BYTE_ARRAY"]
    if pa.types.is_integer(arrow_type):
        return [DICTIONARY, "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"]
    if pa.types.is_timestamp(arrow_type):
        return ["DELTA_BINARY_PACKED"]
    if pa.types.is_floating(arrow_type):
        return [DICTIONARY, "BYTE_STREAM_SPLIT"]
    return [DICTIONARY] if pa.types.is_list(arrow_type) else []


def _smallest(column: pa.Table, path: str, candidates: list[str]) -> str | None:
    """Write the column with each encoding and return the one that takes the fewest bytes."""
    if len(candidates) < 2 or column.num_rows < _TRIAL_ROWS_MIN:
        return candidates[0] if candidates else None
    sizes = {candidate: _size(column, path, candidate) for candidate in candidates}
    return min(candidates, key=lambda each: sizes[each] * (1 if each == DICTIONARY else _DICTIONARY_ADVANTAGE))


def _size(column: pa.Table, path: str, encoding: str) -> int:
    sink = io.BytesIO()
    dictionary = encoding == DICTIONARY
    options: dict[str, Any] = {
        "use_dictionary": [path] if dictionary else False,
        "column_encoding": None if dictionary else {path: encoding},
    }
    pq.write_table(
        column,
        sink,
        **options,
        compression="zstd",
        compression_level=1,
        row_group_size=max(1, column.num_rows),
        max_rows_per_page=max(1, column.num_rows),
        store_schema=False,
    )
    return sink.tell()
