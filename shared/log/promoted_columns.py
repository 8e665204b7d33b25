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
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa

from shared.columns.arrow import Array, StringArray
from shared.log.json_path import JsonPath, duckdb_path
from shared.log.promoted_paths import PATHS_MAX, SHARE_MIN, choose_paths
from shared.log.promoted_values import JsonKind, PathValues, Payloads, kinds_to_promote

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

    columns: tuple[PromotedColumn, ...] = ()
    arrays: tuple[tuple[Array, ...], ...] = ()


def promote(payloads: Sequence[StringArray], declared: Sequence[JsonPath]) -> Promoted:
    """Choose and extract the promoted columns of a file's payloads, which come in chunks.

    Declared paths are promoted wherever they occur, others where a kind has more than 1 % of the rows.
    """
    paths = choose_paths(payloads, declared)
    extracted: list[list[PathValues]] = [[] for _ in paths]
    try:
        with JsonExtractor(paths) as extractor:
            for chunk in payloads:
                for number, values in enumerate(extractor.extract(chunk)):
                    extracted[number].append(values)
    except duckdb.Error:
        # A payload that DuckDB cannot parse, such as one with half a surrogate pair.
        return Promoted()
    columns = []
    arrays = []
    for number, path in enumerate(paths):
        chunks = extracted[number]
        share_min = 0.0 if path in declared else SHARE_MIN
        for kind, only in kinds_to_promote(chunks, share_min):
            columns.append(PromotedColumn(path, kind, f"p{number}_{kind}", complete=True, only=only))
            arrays.append(tuple(values.of_kind(kind) for values in chunks))
    return Promoted(tuple(columns[:COLUMNS_MAX]), tuple(arrays[:COLUMNS_MAX]))


class JsonExtractor:
    """Reads the values under some paths out of payloads, all paths in one pass of DuckDB's parser.

    Connects to DuckDB when it is first asked, which takes more time than a small file.
    """

    def __init__(self, paths: Sequence[JsonPath]) -> None:
        assert len(paths) <= PATHS_MAX
        self._paths = paths
        self._expressions = [duckdb_path(path) for path in paths]
        assert None not in self._expressions
        self._opened: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()

    def extract(self, payloads: StringArray) -> Iterator[PathValues]:
        """Yield the values of one chunk under each path. Raises duckdb.Error if a payload is no JSON."""
        if not self._paths:
            return
        texts = self._texts(payloads)
        chunk = Payloads(payloads, self._unescape)
        for number, path in enumerate(self._paths):
            rows = np.arange(number, len(texts), len(self._paths))
            yield PathValues.read(path, texts.take(pa.array(rows)), chunk)

    def extract_columns(self, payloads: StringArray, columns: Sequence[PromotedColumn]) -> list[Array]:
        """Return what promoted columns of the extractor's paths must hold for these payloads.

        Raises duckdb.Error if a payload is no JSON, ValueError if a number has no place in its column.
        """
        found = dict(zip(self._paths, self.extract(payloads), strict=True))
        return [found[column.path].of_kind(column.kind) for column in columns]

    def _texts(self, payloads: StringArray) -> StringArray:
        """Return the JSON text under each path of each row: row by row, null where there is nothing."""
        texts = self._query("SELECT json_extract(text, ?) FROM chunk", payloads, [self._expressions]).flatten()
        assert len(texts) == len(payloads) * len(self._paths)
        return texts

    def _unescape(self, texts: StringArray) -> StringArray:
        """Turn the JSON texts of strings into the strings they mean."""
        return self._query("SELECT json_extract_string(text, '$') FROM chunk", texts, [])

    def _query(self, sql: str, texts: StringArray, parameters: list[object]) -> Array:
        """Run a statement over the column `text` of the table `chunk`; return its one column."""
        if self._opened is None:
            self._opened = duckdb.connect(config={"threads": 1, "autoload_known_extensions": False})
        self._opened.register("chunk", pa.table({"text": texts}))
        try:
            relation = self._opened.sql(sql, params=parameters)
            assert relation is not None
            column = relation.to_arrow_table().column(0)
        finally:
            self._opened.unregister("chunk")
        return pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
