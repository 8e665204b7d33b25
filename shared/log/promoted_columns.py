"""Promoted columns: frequent scalars of the payloads as typed columns beside the JSON text.

A promoted column answers a filter many times faster than the text, and never differently.

Invariants:
- A column has a value where the payload has a scalar of the column's kind under the path, as DuckDB's
  json_extract finds it (of duplicate keys the first), and null everywhere else.
- Of a path's numbers either all are in one column or none is promoted. They are in an int64 column if
  all are integers of that range, else in a double column if each is meant exactly (`exact_numbers`)
  and the integers among them lie within ±2^53.
- If DuckDB cannot parse every payload of a file, the file has no promoted columns.

Extraction runs in C over whole chunks; Python sees single rows only in the sample and where a number
is suspicious. It does not write files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa

from shared.log.exact_numbers import suspicious_rows
from shared.log.json_path import JsonPath, duckdb_path
from shared.log.promoted_paths import PATHS_MAX, SHARE_MIN, choose_paths
from shared.log.promoted_values import KINDS, PathChunk, PathTotals, read_chunk, read_numbers_as_double

JsonKind = Literal["string", "integer", "double", "boolean"]

ARROW_TYPES: dict[JsonKind, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
}
COLUMNS_MAX = 64


@dataclass(frozen=True, slots=True)
class PromotedColumn:
    """What a file says of one of its promoted columns.

    `complete`: every value of the kind (for integer and double: every number) under the path, in any
    row of the file, is in the column, exactly. `only`: wherever the path exists in the file, it has a
    value of this kind and no JSON null; so the column is null exactly where the path is missing.
    """

    path: JsonPath
    kind: JsonKind
    column: str
    complete: bool
    only: bool


@dataclass(frozen=True, slots=True)
class Promoted:
    """Promoted columns of a file: for each column its arrays, one for each chunk of payloads."""

    columns: tuple[PromotedColumn, ...]
    chunks: tuple[tuple[pa.Array, ...], ...]  # type: ignore[type-arg] # the runtime class takes no parameter


def promote(payloads: Sequence[pa.StringArray], declared: Sequence[JsonPath]) -> Promoted:
    """Choose and extract the promoted columns of a file's payloads, which come in chunks.

    Declared paths are promoted wherever they occur, others where a kind has more than 1 % of the rows.
    """
    paths = choose_paths(payloads, declared)
    extracted: list[list[PathChunk]] = [[] for _ in paths]
    try:
        with JsonExtractor(paths) as extractor:
            for chunk in payloads:
                for number, part in enumerate(extractor.extract(chunk)):
                    extracted[number].append(part)
    except duckdb.Error:
        # A payload that DuckDB cannot parse, such as one with half a surrogate pair.
        return Promoted((), ())
    columns: list[PromotedColumn] = []
    arrays = []
    for number, path in enumerate(paths):
        totals = PathTotals.of(extracted[number])
        share = 0.0 if path in declared else SHARE_MIN
        for kind in _kinds_worth_a_column(totals, share):
            column = f"p{number}_{kind}"
            columns.append(PromotedColumn(path, kind, column, complete=True, only=totals.only(kind)))
            arrays.append(tuple(_array(chunk, kind) for chunk in extracted[number]))
        extracted[number].clear()
    return Promoted(tuple(columns[:COLUMNS_MAX]), tuple(arrays[:COLUMNS_MAX]))


def extract_again(payloads: pa.StringArray, columns: Sequence[PromotedColumn]) -> Iterator[pa.Array]:  # type: ignore[type-arg]
    """Yield what each promoted column of these payloads must hold.

    Raises duckdb.Error if a payload is no JSON, pa.ArrowInvalid if a number does not fit its column.
    """
    paths = list(dict.fromkeys(column.path for column in columns))
    with JsonExtractor(paths) as extractor:
        chunks = dict(zip(paths, extractor.extract(payloads), strict=True))
    for column in columns:
        yield _array(chunks[column.path], column.kind)


class JsonExtractor:
    """Reads the values under some paths out of payloads, all paths in one pass of DuckDB's parser."""

    def __init__(self, paths: Sequence[JsonPath]) -> None:
        assert len(paths) <= PATHS_MAX
        self._paths = paths
        self._expressions = [duckdb_path(path) for path in paths]
        assert None not in self._expressions
        self._connection = duckdb.connect(":memory:", config={"threads": 1, "autoload_known_extensions": False})

    def __enter__(self) -> "JsonExtractor":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def extract(self, payloads: pa.StringArray) -> Iterator[PathChunk]:
        """Yield the values of one chunk under each path. Raises duckdb.Error if a payload is no JSON."""
        if not self._paths:
            return
        if len(payloads) == 0:
            texts = pa.array([], pa.string())
        else:
            texts = self._texts(payloads)
        suspicious = None
        for number, path in enumerate(self._paths):
            rows = pa.array(np.arange(number, len(texts), len(self._paths)))
            found = texts.take(rows)
            part = read_chunk(found, self._unescape)
            if part.numbers_wanted:
                if suspicious is None:
                    suspicious = suspicious_rows(payloads)
                part = read_numbers_as_double(part, path, found=found, payloads=payloads, suspicious=suspicious)
            yield part

    def _texts(self, payloads: pa.StringArray) -> pa.StringArray:
        """Return the JSON text under each path of each row: row by row, null where there is nothing."""
        table = pa.table({"payload": payloads})
        relation = self._connection.from_arrow(table)
        sql = f"SELECT json_extract(payload, {_list_literal(self._expressions)}) AS texts FROM payloads"
        lists = relation.query("payloads", sql).to_arrow_table().column("texts").combine_chunks()
        assert isinstance(lists, pa.ListArray)
        texts = lists.flatten()
        assert isinstance(texts, pa.StringArray)
        assert len(texts) == len(payloads) * len(self._paths)
        return texts

    def _unescape(self, texts: pa.StringArray) -> pa.StringArray:
        """Turn the JSON texts of strings into the strings they mean."""
        relation = self._connection.from_arrow(pa.table({"text": texts}))
        sql = "SELECT json_extract_string(text, '$') AS value FROM texts"
        values = relation.query("texts", sql).to_arrow_table().column("value").combine_chunks()
        assert isinstance(values, pa.StringArray)
        return values
