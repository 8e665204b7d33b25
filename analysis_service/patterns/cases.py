"""Events grouped into cases: those that share a correlation id, a session, a user, or any other field.

Invariants: the events of a case are in the order in which they happened, ties by position; a position counts once.
"""

from dataclasses import dataclass

import numpy as np

from analysis_service.columns import MISSING, EventColumns, Integers


@dataclass(frozen=True, slots=True)
class Cases:
    """Events by case.

    rows: row of each event, case after case. codes: its type. case: number of its case. borders: place of the first
    event of each case, and the number of events. times: nanoseconds. names: value of the key of each case. types:
    text of each code.
    """

    rows: Integers
    codes: Integers
    case: Integers
    borders: Integers
    times: Integers
    names: tuple[str, ...]
    types: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def texts(self, codes: tuple[int, ...]) -> tuple[str, ...]:
        """Types of codes."""
        return tuple(self.types[code] for code in codes)


def group_into_cases(events: EventColumns, key: str) -> Cases:
    """Group events by a field; those without it are left out."""
    labels, types = events.labels(key), events.labels("type")
    rows = np.flatnonzero(labels.codes != MISSING)
    rows = rows[np.unique(events.positions[rows], return_index=True)[1]]
    # Numbered by first event, so that the same events give the same cases in whatever order they come.
    order = np.lexsort((events.positions[rows], events.times[rows]))
    rows = rows[order]
    codes, first, number_of = np.unique(labels.codes[rows], return_index=True, return_inverse=True)
    rank = np.empty(len(codes), np.int64)
    rank[np.argsort(first)] = np.arange(len(codes))
    case = rank[number_of]
    order = np.argsort(case, kind="stable")
    rows, case = rows[order], case[order]
    names = tuple(labels.values[code] for code in codes[np.argsort(first)].tolist())
    borders = np.searchsorted(case, np.arange(len(names) + 1))
    return Cases(rows, types.codes[rows], case, borders, events.times[rows], names, types.values)
