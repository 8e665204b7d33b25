"""Counts the events that match. Counts of whole sealed files are remembered: the files never change."""

from hashlib import blake2b

from query_service.statements import Window, counts
from query_service.tallying import Errand, Part, Tallying
from shared.filters.printer import print_filter
from shared.log.bounded_cache import BoundedCache
from shared.log.sealed_files import Identity
from shared.log.segment_columns import ParquetColumns

# A count that is remembered: of a file, by the digest of a condition.
CountKey = tuple[str, Identity, str]
CountCache = BoundedCache[CountKey, int]
COUNTS_MAX = 100_000


class Counting(Tallying):
    """Counts from a position on: the events that matched. See Tallying."""

    def __init__(self, errand: Errand, cache: CountCache) -> None:
        super().__init__(errand, errand.question.payload_paths)
        self._cache = cache
        # Expressions may be long, and there may be as many as counts are kept.
        self._condition = blake2b(print_filter(errand.question.tree).encode(), digest_size=16).hexdigest()

    def _tally(self, parts: list[Part]) -> tuple[int, bool]:
        keys = [self._key(part) for part in parts]
        known = [None if key is None else self._cache.get(key) for key in keys]
        asked = [number for number, count in enumerate(known) if count is None]
        found: dict[int, int] = {}
        if asked:
            relations = [(parts[number].columns, parts[number].window) for number in asked]
            found = dict(self._engine.database.rows(counts(relations, self._question), self._work))
        for order, number in enumerate(asked):
            key = keys[number]
            if key is not None:
                self._cache.put(key, found.get(order, 0))
        return sum(found.values()) + sum(count or 0 for count in known), len(asked) == len(parts)

    def _key(self, part: Part) -> CountKey | None:
        """Under which key the count of a relation is remembered, if it is that of a whole file."""
        if not isinstance(part.columns, ParquetColumns) or part.window != Window():
            return None
        return part.columns.name, part.columns.identity, self._condition
