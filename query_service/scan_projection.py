"""Chosen columns of events: fields, and values of payload paths, as typed columns.

A value of another kind than the column's is null, as a comparison with it is false; numbers keep their exactness
as far as the column's type has it; as JSON text, those with a point or an exponent are the shortest of their double.
As text, a string is as it is, null is null, and all else its JSON text.
Promoted columns are used where a file has them; they change no value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from query_service.question import paths_of_keys
from query_service.reading import CHUNK_BYTES, rows_of_a_chunk
from query_service.statements import Builder
from shared.columns.answers import event_ids
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import EventValidationException, FieldViolation
from shared.filters.checks import parse_field
from shared.filters.fields import FIELD_NAMES
from shared.filters.problems import FilterProblem
from shared.filters.sql_json import path_expression
from shared.filters.sql_parameters import promoted_sql, quote_identifier
from shared.filters.tree import Field
from shared.log.json_path import JsonPath
from shared.log.promoted_columns import PromotedColumn

COLUMNS_MAX = 64
_POSITION = "position"

Kind = Literal["json", "text", "string", "double", "integer", "boolean"]
_TYPES: dict[Kind, pa.DataType] = {
    "json": pa.string(),
    "text": pa.string(),
    "string": pa.string(),
    "double": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
}
_SQL_TYPES: dict[Kind, str] = {
    "json": "VARCHAR",
    "text": "VARCHAR",
    "string": "VARCHAR",
    "double": "DOUBLE",
    "integer": "BIGINT",
    "boolean": "BOOLEAN",
}
# Values of a kind by their JSON text t.
_FROM_JSON: dict[Kind, str] = {
    "json": "{t}",
    "text": "CASE WHEN starts_with({t}, '\"') THEN {t}::JSON->>'$' WHEN {t} = '-0' THEN '0' "
    "WHEN {t} <> 'null' THEN {t} END",
    "string": "CASE WHEN starts_with({t}, '\"') THEN {t}::JSON->>'$' END",
    "double": "CASE WHEN regexp_matches({t}, '^[-0-9]') THEN TRY_CAST({t} AS DOUBLE) END",
    "integer": "CASE WHEN regexp_full_match({t}, '-?[0-9]+') THEN TRY_CAST({t} AS BIGINT) END",
    "boolean": "CASE {t} WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE END",
}
# Kinds of promoted columns that have the values of a kind.
_PROMOTED: dict[Kind, tuple[str, ...]] = {
    "json": (),
    "text": (),
    "string": ("string",),
    "double": ("double", "integer"),
    "integer": ("integer",),
    "boolean": ("boolean",),
}
# Bytes of a row of columns whose values are all short.
_NARROW_BYTES = 64
_SCAN_ROWS_MAX = 131_072


@dataclass(frozen=True, slots=True)
class ScanColumn:
    """A column of a scan, by the name that the request gives it."""

    name: str
    field: Field
    kind: Kind = "json"

    @property
    def is_wide(self) -> bool:
        """Whether its values may be long."""
        return self.field.name == "payload" and self.kind in {"json", "text", "string"}


class ScanProjection:
    """The columns of a scan, and the position, which readings need. See Projection."""

    def __init__(self, columns: Sequence[ScanColumn], *, log_id: str) -> None:
        self._columns = tuple(columns)
        self._log_id = log_id
        # The position comes last, whether it was asked for or not; the id is made of it.
        self._stored = [column for column in columns if column.field.name not in {"id", _POSITION}]
        fields = [pa.field(column.name, _type_of(column)) for column in self._stored]
        self.schema = pa.schema([*fields, EVENT_SCHEMA.field(_POSITION)])

    @property
    def result_schema(self) -> pa.Schema:
        """Names and types of the columns that were asked for."""
        return pa.schema([pa.field(column.name, _type_of(column)) for column in self._columns])

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


def scan_columns(names: Sequence[str]) -> list[ScanColumn]:
    """Read the columns of a request; none means all fields of an event.

    Raises EventValidationException (INVALID_FIELD) for a name that is no column, and too many or equal ones.
    """
    wanted = list(names) or list(FIELD_NAMES)
    if len(wanted) > COLUMNS_MAX:
        raise _invalid("columns", f"has {len(wanted)} names; at most {COLUMNS_MAX} are allowed")
    if len(set(wanted)) < len(wanted):
        raise _invalid("columns", "names a column twice")
    return [_column(name, f"columns[{at}]") for at, name in enumerate(wanted)]


def _column(name: str, path: str) -> ScanColumn:
    text, _, kind = name.rpartition(":") if name.rpartition(":")[2] in _TYPES else (name, "", "json")
    try:
        field = parse_field(text)
    except (FilterProblem, AssertionError) as problem:
        raise _invalid(path, f"is no column: {problem}") from problem
    if field.name != "payload" and kind != "json":
        raise _invalid(path, "has a kind; only values of the payload do, such as payload.duration_ms:double")
    if field.path and path_expression(field.path) is None:
        raise _invalid(path, "has a key that cannot be scanned: scan payload, and read it there")
    return ScanColumn(name, field, kind)  # type: ignore[arg-type]


def _type_of(column: ScanColumn) -> pa.DataType:
    if column.field.name == "id":
        return pa.string()
    if column.field.path:
        return _TYPES[column.kind]
    stored: pa.DataType = EVENT_SCHEMA.field(column.field.name.removeprefix("metadata.")).type
    return stored


def column_sql(column: ScanColumn, promoted: Sequence[PromotedColumn], builder: Builder) -> str:
    """Return what stands for the values of a column that is stored, in a relation with these promoted columns."""
    path = column.field.path
    if not path:
        return quote_identifier(column.field.name.removeprefix("metadata."))
    for each in promoted:
        if each.path == path and each.complete and (sql := _promoted_sql(column.kind, each)):
            return sql
    expression = path_expression(path)
    assert expression is not None, "scan_columns refuses such a path"
    text = f"(TRY(json_extract(payload, [{builder.add(expression)}::VARCHAR]))[1])::VARCHAR"
    # Most payloads lack most paths, and are not parsed for it: a key stands there as it is, or has an escape in it.
    key = builder.add(f'"{path[-1]}"')
    may_have = f"contains(payload, {key}::VARCHAR) OR contains(payload, chr(92))"
    return f"CASE WHEN {may_have} THEN {_FROM_JSON[column.kind].format(t=text)} END"


def _promoted_sql(kind: Kind, column: PromotedColumn) -> str:
    """Return what stands for the values of a kind where a promoted column has them; empty where it may not."""
    name = promoted_sql(column)
    if column.kind in _PROMOTED[kind]:
        return f"CAST({name} AS DOUBLE)" if kind == "double" else name
    if not column.only or column.kind == "double":
        return ""
    # All values under the path are in the column.
    if kind == "text":
        return f"{name}::VARCHAR"
    if kind == "json":
        return f"to_json({name})::VARCHAR" if column.kind == "string" else ""
    return f"NULL::{_SQL_TYPES[kind]}"


def _invalid(field: str, problem: str) -> EventValidationException:
    return EventValidationException(
        f"{field} {problem}", violations=[FieldViolation(field, problem)], reason="INVALID_FIELD"
    )
