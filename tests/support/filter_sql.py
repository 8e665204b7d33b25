"""What DuckDB finds for many filters in one statement."""

import re
from collections.abc import Sequence
from typing import Any

import duckdb

from shared.filters.sql import to_sql
from shared.filters.tree import Tree
from shared.log.promoted_columns import PromotedColumn


def find_by_sql(
    database: duckdb.DuckDBPyConnection,
    relation: str,
    trees: Sequence[Tree],
    *,
    log_id: str,
    promoted: Sequence[PromotedColumn] = (),
) -> list[list[int]]:
    """The positions that each filter finds in a relation of events, ascending. The filters are without now()."""
    columns: list[str] = []
    parameters: dict[str, Any] = {}
    for number, tree in enumerate(trees):
        sql = to_sql(tree, promoted=promoted, log_id=log_id)
        # Each filter numbers its parameters from 0.
        columns.append("(" + re.sub(r"\$f([0-9]+)", rf"$t{number}_\1", sql.text) + ") IS TRUE")
        parameters |= {f"t{number}_{name[1:]}": value for name, value in sql.parameters.items()}
    statement = f"SELECT position, {', '.join(columns)} FROM {relation} ORDER BY position"
    rows = database.execute(statement, parameters).fetchall()
    return [[row[0] for row in rows if row[number]] for number in range(1, len(trees) + 1)]
