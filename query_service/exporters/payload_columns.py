"""Payloads, flattened: which paths get a column in a table of text, and what stands in it.

Invariants: a cell holds the text of a string, the digits of a number, true, false, or the JSON of an array or
object; nothing where the path is missing or null. Numbers mean exactly what the payload says. Of duplicate keys
the first counts. An object is flattened, into paths of at most PATH_SEGMENTS_MAX keys; an array is not.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from shared.columns.arrow import BooleanArray, StringArray
from shared.columns.arrow import compute as pc
from shared.columns.constants import constant
from shared.filters.fields import print_field
from shared.filters.tree import Field
from shared.log.exact_numbers import suspicious_rows
from shared.log.json_path import PATH_SEGMENTS_MAX, JsonPath, duckdb_path

COLUMNS_MAX = 200
# Keys looked at in one payload while choosing.
_KEYS_MAX = 1_000
# Half a surrogate pair ends a statement of DuckDB; whole pairs look the same from afar.
_SURROGATE = r"\\u[dD][89a-fA-F]"


def choose_columns(payloads: Iterable[StringArray], known: Sequence[JsonPath]) -> list[JsonPath]:
    """Return at most COLUMNS_MAX paths, sorted by name: those known, then the most frequent of the payloads.

    Keys that DuckDB cannot be asked for, and those with control characters, get no column.
    """
    counts: Counter[JsonPath] = Counter()
    for chunk in payloads:
        for text in chunk.to_pylist():
            counts.update(_paths(text))
    frequent = sorted(counts, key=lambda path: (-counts[path], path))
    usable = [path for path in dict.fromkeys([*known, *frequent]) if _is_usable(path)]
    return sorted(usable[:COLUMNS_MAX], key=_name)


class PayloadColumns:
    """Reads the values under some paths, as text. Belongs to one thread; close it."""

    def __init__(self, paths: Sequence[JsonPath]) -> None:
        self.names = [_name(path) for path in paths]
        self._paths = paths
        self._expressions = [duckdb_path(path) for path in paths]
        self._opened: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        """Give DuckDB's memory back."""
        if self._opened is not None:
            self._opened.close()

    def texts(self, payloads: StringArray) -> list[StringArray]:
        """Return a column of texts for each path, null where there is nothing."""
        if not self._paths:
            return []
        odd = pc.or_(pa.array(suspicious_rows(payloads)), pc.match_substring_regex(payloads, _SURROGATE))
        try:
            columns = self._in_bulk(pc.if_else(odd, constant("{}"), payloads))
        except duckdb.Error:
            # One of them is no JSON to DuckDB.
            odd = pa.repeat(pa.scalar(True), len(payloads))  # noqa: FBT003
            columns = [pa.nulls(len(payloads), pa.string()) for _ in self._paths]
        return self._with_odd_rows(columns, payloads, odd) if pc.any(odd).as_py() else columns

    def _in_bulk(self, payloads: StringArray) -> list[StringArray]:
        """Ask DuckDB, all paths in one pass. Raises duckdb.Error if a payload is no JSON."""
        if self._opened is None:
            self._opened = duckdb.connect(config={"threads": 1, "autoload_known_extensions": False})
        self._opened.register("chunk", pa.table({"text": payloads}))
        try:
            relation = self._opened.sql("SELECT json_extract_string(text, ?) FROM chunk", params=[self._expressions])
            assert relation is not None
            lists = relation.to_arrow_table().column(0).combine_chunks()
        finally:
            self._opened.unregister("chunk")
        cells = lists.flatten()
        assert len(cells) == len(payloads) * len(self._paths)
        return [cells.take(pa.array(np.arange(n, len(cells), len(self._paths)))) for n in range(len(self._paths))]

    def _with_odd_rows(self, columns: list[StringArray], payloads: StringArray, odd: BooleanArray) -> list[StringArray]:
        """Fill in the rows that DuckDB would not read exactly, one by one."""
        found = [self._row(text) for text in payloads.filter(odd).to_pylist()]
        return [
            pc.replace_with_mask(column, odd, pa.array([row[number] for row in found], pa.string()))
            for number, column in enumerate(columns)
        ]

    def _row(self, payload: str) -> list[str | None]:
        values = json.loads(payload, object_pairs_hook=_first_wins, parse_int=_Number, parse_float=_Number)
        return [_text(_under(path, values)) for path in self._paths]


class _Number(str):
    """A number with the digits that the payload has."""

    __slots__ = ()


def _name(path: JsonPath) -> str:
    """The path as the filter language writes it."""
    return print_field(Field("payload", path))


def _is_usable(path: JsonPath) -> bool:
    return duckdb_path(path) is not None and all(key.isprintable() for key in path)


def _paths(payload: str) -> Iterator[JsonPath]:
    """Paths of what is not flattened further in a payload, each once."""
    waiting: list[tuple[JsonPath, dict[str, Any]]] = [((), _values(payload))]
    keys = 0
    while waiting:
        above, values = waiting.pop()
        for key, value in values.items():
            path = (*above, key)
            keys += 1
            if keys > _KEYS_MAX:
                return
            if isinstance(value, dict) and value and len(path) < PATH_SEGMENTS_MAX:
                waiting.append((path, value))
            else:
                yield path


def _values(payload: str) -> dict[str, Any]:
    try:
        values = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _first_wins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _under(path: JsonPath, values: Any) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else _json(value)
    # Half a surrogate pair is no character: it stays an escape.
    return text.encode("utf-8", "backslashreplace").decode()


def _json(value: Any) -> str:
    if isinstance(value, _Number):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(_json, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_json(key)}:{_json(each)}' for key, each in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)
