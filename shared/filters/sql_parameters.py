"""The parameters of a condition: the only way in which anything of a filter gets into SQL."""

import json
import re
from typing import Any

from shared.log.promoted_columns import PromotedColumn

# The functions for what DuckDB's own cannot tell exactly; see `sql_functions`.
HOLDS_FUNCTION = "eventlog_holds"
COMPACT_FUNCTION = "eventlog_compact"
# What the parameters are called: f0, f1 and so on. Whoever adds others takes other names.
PREFIX = "f"
_MENTIONED = re.compile(rf"\$({PREFIX}[0-9]+)")


class Parameters:
    """Collects values and gives the SQL that stands for each."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._names: dict[tuple[type, Any], str] = {}

    def text(self, value: str) -> str:
        """Return a VARCHAR."""
        return f"{self._add(value)}::VARCHAR"

    def integer(self, value: int, sql_type: str) -> str:
        """Return an integer of a type that holds it, so that a column need not be cast to another."""
        return f"{self._add(value)}::{sql_type}"

    def double(self, value: float) -> str:
        """Return a DOUBLE."""
        return f"{self._add(value)}::DOUBLE"

    def time(self, nanoseconds: int) -> str:
        """Return a TIMESTAMPTZ_NS of nanoseconds since the epoch."""
        # DuckDB means infinity by the ends of the range, and makes no times of them.
        if abs(nanoseconds) == 2**63 - 1:
            return f"{self._add('infinity' if nanoseconds > 0 else '-infinity')}::VARCHAR::TIMESTAMPTZ_NS"
        return f"make_timestamp_ns({self._add(nanoseconds)}::BIGINT)::TIMESTAMPTZ_NS"

    def json_string(self, value: str) -> str | None:
        """Return the JSON text of a string as DuckDB spells it, None if it may spell it otherwise."""
        if any(character < " " for character in value):
            return None
        return self.text(json.dumps(value, ensure_ascii=False))

    def used_in(self, sql: str) -> dict[str, Any]:
        """Return the values by name of those that a text mentions: DuckDB refuses others."""
        return {name: self.values[name] for name in dict.fromkeys(_MENTIONED.findall(sql))}

    def _add(self, value: Any) -> str:
        key = (type(value), value)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"{PREFIX}{len(self.values)}"
            self.values[name] = value
        return f"${name}"


def promoted_sql(column: PromotedColumn) -> str:
    """What stands for a promoted column: its name, or nothing but nulls where it is not stored."""
    return quote_identifier(column.column) if column.column else "NULL::VARCHAR"


def quote_identifier(name: str) -> str:
    """Return the name of a column in quotes."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
