"""Sums the events that match by group, step by step: each step gives the groups of its own events.

Invariant: a step holds no more groups than take GROUP_BYTES_MAX, about, however different the events are and however
long the texts that tell them apart.
"""

from collections.abc import Generator

import pyarrow as pa

from query_service.aggregation import Aggregation, aggregate
from query_service.reading import nothing
from query_service.tallying import Errand, Part, Tallying
from shared.columns.arrow import compute as pc

GROUP_BYTES_MAX = 64 * 1024 * 1024
_FIRST_ROWS = 262_144


class Aggregating(Tallying):
    """Sums from a position on. See Tallying; what matched are the events that were summed."""

    def __init__(self, errand: Errand, aggregation: Aggregation) -> None:
        super().__init__(errand, errand.question.payload_paths + aggregation.payload_paths)
        self._aggregation = aggregation
        self._groups = nothing(aggregation.schema)
        self._fitting_rows: int | None = None

    def steps(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield the groups of each step, which may be none. Raises as `step`."""
        more = True
        while more:
            self._groups = nothing(self._aggregation.schema)
            more = self.step()
            yield self._groups

    def _rows_max(self, row_bytes: int) -> int:
        fitting = self._fitting_rows
        if fitting is None:
            # Nothing is known of the groups yet: every event may be one, and as long as all of it.
            fitting = min(_FIRST_ROWS, max(GROUP_BYTES_MAX // row_bytes, 1))
        return min(super()._rows_max(row_bytes), fitting)

    def _tally(self, parts: list[Part]) -> tuple[int, bool]:
        relations = [(part.columns, part.window) for part in parts]
        statement = aggregate(relations, self._question, self._aggregation)
        found = self._engine.database.few(statement, self._work)
        self._groups = self._aggregation.finish(found)
        matched = int(pc.sum(self._groups.column("count")).as_py() or 0)
        if matched:
            self._fitting_rows = max(1, GROUP_BYTES_MAX * matched // max(self._groups.nbytes, 1))
        return matched, True
