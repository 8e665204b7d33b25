"""Which keys the payloads of a sealed file have at their root: a path that no event has need not be searched for.

Invariants: every key of every payload is among those found, or nothing is said of the file at all; they are few
(KEYS_MAX) and short (KEY_BYTES_MAX together), for they stand in its footer.
"""

from collections.abc import Iterable

import duckdb

from shared.columns.arrow import StringArray
from shared.log.json_path import JsonPath
from shared.log.promoted_columns import JsonExtractor, PromotedColumn, column_of_absent

KEYS_MAX = 256
KEY_BYTES_MAX = 8 * 1024


class PayloadKeys:
    """Collects the keys of one file, chunk by chunk."""

    def __init__(self, extractor: JsonExtractor) -> None:
        self._extractor = extractor
        self._found: set[str] | None = set()

    @property
    def found(self) -> tuple[str, ...] | None:
        """The keys, sorted; None where they are too many, or a payload is no JSON to DuckDB."""
        return None if self._found is None else tuple(sorted(self._found))

    def add(self, payloads: StringArray) -> None:
        """Take the payloads of a chunk."""
        if self._found is None:
            return
        try:
            self._found.update(self._extractor.keys(payloads, at_most=KEYS_MAX + 1))
        except duckdb.Error:
            self._found = None
            return
        if len(self._found) > KEYS_MAX or sum(len(key.encode()) for key in self._found) > KEY_BYTES_MAX:
            self._found = None


def absent_columns(paths: Iterable[JsonPath], keys: tuple[str, ...] | None) -> tuple[PromotedColumn, ...]:
    """The columns of those of some paths that no event has, by the keys that were found."""
    return () if keys is None else tuple(column_of_absent(path) for path in paths if path[0] not in keys)
