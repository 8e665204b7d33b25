"""Columns of payload paths for closed blocks of the tail, so that the JSON text of a path is parsed once.

Filters over the tail would else parse it in every answer. Extracting a path takes a little longer than one search
of the text, so the first answer that asks for a path searches the text, and the path is extracted for those after it.

Invariants: a column has what `promoted_columns` promises, within its block; columns kept in memory weigh no more than
the cache allows, and at most PATHS_KEPT_MAX paths are known.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import duckdb

from shared.columns.arrow import Array, StringArray
from shared.log.bounded_cache import BoundedCache
from shared.log.json_path import JsonPath, duckdb_path
from shared.log.promoted_columns import JsonExtractor, PromotedColumn
from shared.log.promoted_values import ARROW_TYPES, JsonKind, PathTally, PathValues, kinds_to_promote
from shared.log.tail_columns import TailBlock
from shared.log.types import Position

PATHS_KEPT_MAX = 64


@dataclass(frozen=True, slots=True)
class _Column:
    """The values of one kind under a path, one a row; `only`: see PromotedColumn."""

    kind: JsonKind
    only: bool
    values: Array


_Columns = tuple[_Column, ...]
PayloadCache = BoundedCache[tuple[str, Position, JsonPath], _Columns]


class TailPayloads:
    """The columns of all blocks. Several threads may use it."""

    def __init__(self, bytes_max: int) -> None:
        self.cache: PayloadCache = BoundedCache(bytes_max, lambda found: sum(each.values.nbytes for each in found))
        self._asked: BoundedCache[JsonPath, bool] = BoundedCache(PATHS_KEPT_MAX)
        self._extractor = JsonExtractor()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give back what extracts. Idempotent."""
        with self._lock:
            self._extractor.close()

    def worth_extracting(self, paths: Sequence[JsonPath]) -> tuple[JsonPath, ...]:
        """Return those of the paths that were asked for before, and remember the others."""
        usable = [path for path in dict.fromkeys(paths) if duckdb_path(path) is not None]
        known = tuple(path for path in usable if self._asked.get(path))
        for path in usable:
            self._asked.put(path, value=True)
        return known

    def of(
        self, name: str, block: TailBlock, paths: Sequence[JsonPath]
    ) -> tuple[tuple[PromotedColumn, ...], list[Array]]:
        """The columns of some paths for a closed block of a .log file, and their values, one for each event.

        A path has no column where its numbers have no exact place in one, or a payload is no JSON to DuckDB.
        """
        promoted: list[PromotedColumn] = []
        values: list[Array] = []
        for number, path in enumerate(paths):
            for each in self._columns(name, block, path):
                column = f"p{number}_{each.kind}"
                promoted.append(PromotedColumn(path, each.kind, column, complete=True, only=each.only))
                values.append(each.values)
        return tuple(promoted), values

    def keep_only(self, wanted: Callable[[str], bool]) -> None:
        """Forget the columns of all .log files that are not wanted."""
        self.cache.keep_only(lambda key: wanted(key[0]))

    def _columns(self, name: str, block: TailBlock, path: JsonPath) -> _Columns:
        key = (name, block.first, path)
        found = self.cache.get(key)
        if found is not None:
            return found
        # One thread extracts at a time; those who wait for the same block find it done.
        with self._lock:
            found = self.cache.get(key)
            if found is None:
                found = self._extracted(block, path)
                self.cache.put(key, found)
        return found

    def _extracted(self, block: TailBlock, path: JsonPath) -> _Columns:
        payloads: StringArray = block.events.column("payload").chunk(0)
        try:
            (values,) = self._extractor.extract(payloads, [path])
        except duckdb.Error:
            return ()
        return tuple(_columns_of(values))


def _columns_of(values: PathValues) -> list[_Column]:
    tally = PathTally()
    tally.add(values)
    # A path that no event has is told by a column without values.
    kinds = kinds_to_promote(tally, share_min=0.0) or (["string"] if tally.has_only("string") else [])
    return [_Column(kind, tally.has_only(kind), values.of_kind(kind).cast(ARROW_TYPES[kind])) for kind in kinds]
