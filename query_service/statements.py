"""The statements that are sent to DuckDB: a few fixed shapes, each with bounded memory. Pure.

    select   the matching rows of one relation, in its own order
    keys     the first keys (timestamp, position) of the matching rows of one relation
    counts   the number of matching rows of each of several relations

Invariant: nothing of a request is in the text; the values are bound parameters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from query_service.database import Statement
from query_service.question import Question
from shared.filters.sql import to_sql
from shared.filters.sql_parameters import Parameters
from shared.filters.tree import Everything
from shared.log.json_path import JsonPath
from shared.log.promoted_columns import PromotedColumn
from shared.log.segment_columns import ArrowColumns, Columns, ParquetColumns
from shared.log.types import Position

_PARAMETER = re.compile(r"\$f(\d+)")

Key = tuple[int, Position]


@dataclass(frozen=True, slots=True)
class Window:
    """Bounds on rows, all half-open: positions of [first, until); keys (timestamp in ns, position) of [low, high)."""

    first: Position | None = None
    until: Position | None = None
    low: Key | None = None
    high: Key | None = None


def select(
    columns: Columns, question: Question, window: Window, projection: "Projection", *, limit: int | None
) -> Statement:
    """The matching rows of a window of one relation, in its order, which is that of positions; at most `limit`."""
    builder = Builder()
    what = projection.sql(columns.promoted, builder)
    sql = f"SELECT {what} FROM {builder.relation([columns])} WHERE {builder.where(columns, question, window)}"  # noqa: S608
    if question.loses_order:
        sql += " ORDER BY position"
    if limit is not None:
        sql += f" LIMIT {builder.integer(limit)}"
    return builder.statement(sql)


def counts(relations: Sequence[tuple[Columns, Window]], question: Question) -> Statement:
    """Rows (number of the relation, matching rows) of several relations with their windows; none where none match."""
    builder = Builder()
    parts: list[str] = []
    for numbers, window in together(relations):
        columns = [relations[number][0] for number in numbers]
        where = builder.where(columns[0], question, window)
        if isinstance(columns[0], ParquetColumns) and window == Window():
            paths = builder.add([str(file.path) for file in columns if isinstance(file, ParquetColumns)])
            parts.append(
                f"SELECT {numbers}[list_position({paths}, filename)], matching FROM (SELECT filename, count(*) AS "  # noqa: S608
                f"matching FROM read_parquet({paths}, filename = true) WHERE {where} GROUP BY filename)"
            )
        else:
            parts.append(f"SELECT {numbers[0]}, count(*) FROM {builder.relation(columns)} WHERE {where}")  # noqa: S608
    return builder.statement(" UNION ALL ".join(parts))


def together(relations: Sequence[tuple[Columns, Window]]) -> list[tuple[list[int], Window]]:
    """The numbers of relations that one FROM reads: whole files that are alike, and each other one by itself.

    Whole files that are read together take a third less time than one after the other.
    """
    alike: dict[tuple[PromotedColumn, ...], list[int]] = {}
    found: list[tuple[list[int], Window]] = []
    for number, (columns, window) in enumerate(relations):
        if isinstance(columns, ParquetColumns) and window == Window():
            alike.setdefault(columns.promoted, []).append(number)
        else:
            found.append(([number], window))
    return found + [(numbers, Window()) for numbers in alike.values()]


def first_keys(columns: Columns, question: Question, window: Window, *, limit: int, descending: bool) -> Statement:
    """Rows (timestamp, position): the first keys of the matching rows of a window, in order."""
    builder = Builder()
    down = " DESC" if descending else ""
    return builder.statement(
        f"SELECT timestamp, position FROM {builder.relation([columns])} "  # noqa: S608
        f"WHERE {builder.where(columns, question, window)} "
        f"ORDER BY timestamp{down}, position{down} LIMIT {builder.integer(limit)}"
    )


class Projection(Protocol):
    """The columns of a result, the position among them."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, as the result is to have them."""

    @property
    def payload_paths(self) -> tuple[JsonPath, ...]:
        """The paths of the payload that it reads, those into arrays aside."""

    def sql(self, promoted: Sequence[PromotedColumn], builder: "Builder") -> str:
        """Return what stands after SELECT, for a relation with these promoted columns."""

    def chunk_rows(self, row_bytes: int) -> int:
        """Return how many rows make a chunk, of events that have so many bytes."""


@dataclass(slots=True)
class Builder:
    """Collects the values and tables of one statement. Names begin with the number of their condition."""

    parameters: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    conditions: int = 0

    def relation(self, columns: Sequence[Columns]) -> str:
        """What stands after FROM: files that are alike, or a table."""
        if isinstance(columns[0], ArrowColumns):
            name = f"events{len(self.tables)}"
            self.tables[name] = columns[0].events
            return name
        return f"read_parquet({self.add([str(file.path) for file in columns if isinstance(file, ParquetColumns)])})"

    def where(self, columns: Columns, question: Question, window: Window) -> str:
        """The condition of the window and of the filter."""
        parameters = Parameters()
        parts = list(_window_conditions(window, parameters))
        text = self.renamed(" AND ".join(parts), parameters.values)
        if not isinstance(question.tree, Everything):
            condition = to_sql(question.tree, promoted=columns.promoted, log_id=question.log_id)
            text += f"{' AND ' if text else ''}({self.renamed(condition.text, condition.parameters)})"
        return text or "TRUE"

    def renamed(self, text: str, values: dict[str, Any]) -> str:
        """Take over a condition with its own parameters f0, f1, ... under names that no other has."""
        prefix = f"c{self.conditions}_"
        self.conditions += 1
        self.parameters |= {prefix + name.removeprefix("f"): value for name, value in values.items()}
        return _PARAMETER.sub(rf"${prefix}\1", text)

    def add(self, value: Any) -> str:
        """Bind a value; return what stands for it."""
        name = f"v{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def integer(self, value: int) -> str:
        """Bind a whole number."""
        return f"{self.add(value)}::BIGINT"

    def statement(self, sql: str) -> Statement:
        """Return the finished statement."""
        return Statement(sql, self.parameters, self.tables)


def _window_conditions(window: Window, parameters: Parameters) -> list[str]:
    parts = []
    if window.first is not None:
        parts.append(f"position >= {parameters.integer(window.first, 'UBIGINT')}")
    if window.until is not None:
        parts.append(f"position < {parameters.integer(window.until, 'UBIGINT')}")
    if window.low is not None:
        time, position = parameters.time(window.low[0]), parameters.integer(window.low[1], "UBIGINT")
        parts.append(f"timestamp >= {time} AND (timestamp > {time} OR position >= {position})")
    if window.high is not None:
        time, position = parameters.time(window.high[0]), parameters.integer(window.high[1], "UBIGINT")
        parts.append(f"timestamp <= {time} AND (timestamp < {time} OR position < {position})")
    return parts
