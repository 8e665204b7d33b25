"""Promoted columns: frequent scalars of the payloads as typed columns beside the JSON text.

A promoted column answers a filter many times faster than the text, and never differently.

Invariants:
- A column has a value where the payload has a scalar of the column's kind under the path, as DuckDB's
  json_extract finds it (of duplicate keys the first), and null everywhere else.
- Of a path's numbers either all are in one column or none is promoted. They are in an int64 column if
  all are integers of that range, else in a double column if each is meant exactly (`exact_numbers`)
  and the integers among them lie within ±2^53.
- If DuckDB cannot parse every payload of a file, the file has no promoted columns.

A file's payloads come in chunks and are never held together: the first chunk and a sample of the others
decide which columns there are. Where a later chunk does not agree, the file is written once more with a
choice that is exact by then.

Extraction runs in C over whole chunks; Python sees single rows only in the sample and where a number
is suspicious. It does not write files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import duckdb
import pyarrow as pa

from shared.columns.arrow import Array, StringArray
from shared.log.json_path import JsonPath, duckdb_path
from shared.log.promoted_paths import PATHS_MAX, SHARE_MIN, choose_paths
from shared.log.promoted_values import JsonKind, PathTally, PathValues, Payloads, kinds_to_promote

COLUMNS_MAX = 64


@dataclass(frozen=True, slots=True)
class PromotedColumn:
    """What a file says of one of its promoted columns.

    `complete`: every value of the kind (for integer and double: every number) under the path, in any
    row of the file, is in the column, exactly. `only`: wherever the path exists in the file, it has a
    value of this kind and no JSON null; so the column is null exactly where the path is missing.
    `column`: its name; empty for a path that no event of the file has, which is all nulls and not stored.
    """

    path: JsonPath
    kind: JsonKind
    column: str
    complete: bool
    only: bool


def column_of_absent(path: JsonPath) -> PromotedColumn:
    """Return the column of a path that no event has."""
    return PromotedColumn(path, "string", "", complete=True, only=True)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which columns a file gets: `columns` has the number of the path and the kind of each."""

    paths: tuple[JsonPath, ...] = ()
    columns: tuple[tuple[int, JsonKind], ...] = ()


class Promoter:
    """Chooses and extracts the promoted columns of one file, chunk by chunk.

    Declared paths are promoted wherever they occur, others where a kind has more than 1 % of the rows of
    the first chunk and the sample.
    """

    def __init__(self, extractor: "JsonExtractor", declared: Sequence[JsonPath], choice: Choice | None = None) -> None:
        """Let the first chunk choose, unless the choice is made already."""
        self._extractor = extractor
        self._declared = declared
        self._choice = choice
        self._tallies = [PathTally() for _ in choice.paths] if choice else []
        self._agrees = self._parsable = True

    def add(self, payloads: StringArray, sample: StringArray | None = None) -> list[Array] | None:
        """Return the values of each column for the next chunk.

        None where they do not agree with the columns chosen: then every chunk is still to be added, after
        which `revised` tells what holds for all. The sample helps the first chunk to choose.
        """
        try:
            if self._choice is None:
                values = self._choose(payloads, sample)
            else:
                values = self._extractor.extract(payloads, self._choice.paths)
        except duckdb.Error:
            # A payload that DuckDB cannot parse, such as one with half a surrogate pair.
            self._give_up(first=self._choice is None)
            return [] if self._agrees else None
        for tally, found in zip(self._tallies, values, strict=True):
            tally.add(found)
        return self._columns_of(values)

    @property
    def columns(self) -> tuple[PromotedColumn, ...]:
        """The columns, by what was added so far."""
        choice = self._choice or Choice()
        return tuple(
            PromotedColumn(
                choice.paths[at], kind, f"p{at}_{kind}", complete=True, only=self._tallies[at].has_only(kind)
            )
            for at, kind in choice.columns
        )

    def revised(self) -> Choice | None:
        """Return None where the columns are right for all that was added, else the choice that is."""
        if not self._parsable:
            return Choice()
        if self._choice is None or (self._agrees and not self._lacks_declared()):
            return None
        return self._choice_by(self._choice.paths, self._tallies)

    def _choose(self, payloads: StringArray, sample: StringArray | None) -> list[PathValues]:
        chunks = [payloads] if sample is None else [payloads, sample]
        candidates = choose_paths(chunks, self._declared)
        extracted = [self._extractor.extract(chunk, candidates) for chunk in chunks]
        tallies = [PathTally() for _ in candidates]
        for chunk in extracted:
            for tally, found in zip(tallies, chunk, strict=True):
                tally.add(found)
        values = extracted[0]
        chosen = {at for at, _ in self._choice_by(candidates, tallies).columns}
        kept = [at for at, path in enumerate(candidates) if at in chosen or path in self._declared]
        self._choice = self._choice_by([candidates[at] for at in kept], [tallies[at] for at in kept])
        self._tallies = [PathTally() for _ in kept]
        return [values[at] for at in kept]

    def _choice_by(self, paths: Sequence[JsonPath], tallies: Sequence[PathTally]) -> Choice:
        columns = [
            (at, kind)
            for at, (path, tally) in enumerate(zip(paths, tallies, strict=True))
            for kind in kinds_to_promote(tally, self._share_min(path))
        ]
        return Choice(tuple(paths), tuple(columns[:COLUMNS_MAX]))

    def _share_min(self, path: JsonPath) -> float:
        return 0.0 if path in self._declared else SHARE_MIN

    def _lacks_declared(self) -> bool:
        """Whether a declared path has values of a kind that nobody expected."""
        assert self._choice is not None
        exact = self._choice_by(self._choice.paths, self._tallies)
        added = set(exact.columns) - set(self._choice.columns)
        return any(self._choice.paths[at] in self._declared for at, _ in added)

    def _give_up(self, *, first: bool) -> None:
        """Have no columns from now on; where others were written already, the file is to be written again."""
        self._agrees = self._agrees and first
        self._parsable = first
        self._choice = Choice()
        self._tallies = []

    def _columns_of(self, values: Sequence[PathValues]) -> list[Array] | None:
        assert self._choice is not None
        if self._agrees:
            try:
                return [values[at].of_kind(kind) for at, kind in self._choice.columns]
            except ValueError:
                self._agrees = False
        return None


class JsonExtractor:
    """Reads the values under some paths out of payloads, all paths in one pass of DuckDB's parser.

    Connects to DuckDB when it is first asked, which takes more time than a small file. One thread may use it.
    """

    def __init__(self) -> None:
        self._opened: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect. Idempotent; it connects again when it is asked again."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def extract(self, payloads: StringArray, paths: Sequence[JsonPath]) -> list[PathValues]:
        """Return the values of a chunk of payloads under each of at most 64 paths.

        Raises duckdb.Error if a payload is no JSON.
        """
        assert len(paths) <= PATHS_MAX
        if not paths:
            return []
        expressions = [duckdb_path(path) for path in paths]
        assert None not in expressions
        columns = ", ".join(f"found[{number}]" for number in range(1, len(paths) + 1))
        sql = f"SELECT {columns} FROM (SELECT json_extract(text, ?) AS found FROM chunk)"  # noqa: S608 — only numbers
        chunk = Payloads(payloads, self._unescape)
        texts = self._query(sql, payloads, [expressions])
        return [PathValues.read(path, found, chunk) for path, found in zip(paths, texts, strict=True)]

    def extract_columns(self, payloads: StringArray, columns: Sequence[PromotedColumn]) -> list[Array]:
        """Return what promoted columns must hold for these payloads.

        Raises duckdb.Error if a payload is no JSON, ValueError if a number has no place in its column.
        """
        paths = list(dict.fromkeys(column.path for column in columns))
        found = dict(zip(paths, self.extract(payloads, paths), strict=True))
        return [found[column.path].of_kind(column.kind) for column in columns]

    def keys(self, payloads: StringArray, *, at_most: int) -> list[str]:
        """Return the keys at the root of some payloads, each once, in any order; so many at most.

        Raises duckdb.Error if a payload is no JSON.
        """
        sql = f"SELECT DISTINCT unnest(json_keys(text)) FROM chunk LIMIT {at_most:d}"  # noqa: S608 — only a number
        (found,) = self._query(sql, payloads, [])
        return [str(key) for key in found.to_pylist()]

    def _unescape(self, texts: StringArray) -> StringArray:
        """Turn the JSON texts of strings into the strings they mean."""
        (unescaped,) = self._query("SELECT json_extract_string(text, '$') FROM chunk", texts, [])
        return unescaped

    def _query(self, sql: str, texts: StringArray, parameters: list[object]) -> list[Array]:
        """Run a statement over the column `text` of the table `chunk`; return its columns, each in one piece."""
        if self._opened is None:
            self._opened = duckdb.connect(config={"threads": 1, "autoload_known_extensions": False})
        self._opened.register("chunk", pa.table({"text": texts}))
        try:
            relation = self._opened.sql(sql, params=parameters)
            assert relation is not None
            table = relation.to_arrow_table()
        finally:
            self._opened.unregister("chunk")
        return [
            pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type) for column in table.columns
        ]
