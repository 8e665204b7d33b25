"""Columns that a request names: fields, and values of payload paths, as typed columns. Pure.

A value of another kind than the column's is null, as a comparison with it is false; numbers keep their exactness
as far as the column's type has it; as JSON text, those with a point or an exponent are the shortest of their double.
As text, a string is as it is, null is null, and all else its JSON text.
Promoted columns are used where a file has them; they change no value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from query_service.statements import Builder
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import invalid_field
from shared.filters.checks import parse_field
from shared.filters.fields import FIELD_NAMES
from shared.filters.problems import FilterProblem
from shared.filters.sql_json import path_expression
from shared.filters.sql_parameters import promoted_sql, quote_identifier
from shared.filters.tree import Field
from shared.log.promoted_columns import PromotedColumn

COLUMNS_MAX = 64

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


@dataclass(frozen=True, slots=True)
class AskedColumn:
    """A column, by the name that the request gives it."""

    name: str
    field: Field
    kind: Kind = "json"

    @property
    def is_wide(self) -> bool:
        """Whether its values may be long."""
        return self.field.name == "payload" and self.kind in {"json", "text", "string"}


def asked_columns(names: Sequence[str]) -> list[AskedColumn]:
    """Read the columns of a request; none means all fields of an event.

    Raises EventValidationException (INVALID_FIELD) for a name that is no column, and too many or equal ones.
    """
    wanted = list(names) or list(FIELD_NAMES)
    if len(wanted) > COLUMNS_MAX:
        raise invalid_field("columns", f"has {len(wanted)} names; at most {COLUMNS_MAX} are allowed")
    if len(set(wanted)) < len(wanted):
        raise invalid_field("columns", "names a column twice")
    return [asked_column(name, f"columns[{at}]") for at, name in enumerate(wanted)]


def asked_column(name: str, path: str) -> AskedColumn:
    """Read the name of a column. path: the field of the request that has it. Raises as asked_columns."""
    text, _, kind = name.rpartition(":") if name.rpartition(":")[2] in _TYPES else (name, "", "json")
    try:
        field = parse_field(text)
    except (FilterProblem, AssertionError) as problem:
        raise invalid_field(path, f"is no column: {problem}") from problem
    if not field.path and kind != "json":
        raise invalid_field(path, "has a kind; only values of the payload do, such as payload.duration_ms:double")
    if field.path and path_expression(field.path) is None:
        raise invalid_field(path, "has a key that cannot be scanned: scan payload, and read it there")
    return AskedColumn(name, field, kind)  # type: ignore[arg-type]


def type_of(column: AskedColumn) -> pa.DataType:
    """Return the type that the column has in a result."""
    if column.field.name == "id":
        return pa.string()
    if column.field.path:
        return _TYPES[column.kind]
    stored: pa.DataType = EVENT_SCHEMA.field(column.field.name.removeprefix("metadata.")).type
    return stored


def column_sql(column: AskedColumn, promoted: Sequence[PromotedColumn], builder: Builder) -> str:
    """Return what stands for the values of a column that is stored, in a relation with these promoted columns."""
    path = column.field.path
    if not path:
        return quote_identifier(column.field.name.removeprefix("metadata."))
    for each in promoted:
        if each.path == path and each.complete and (sql := _promoted_sql(column.kind, each)):
            return sql
    expression = path_expression(path)
    assert expression is not None, "asked_columns refuses such a path"
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
