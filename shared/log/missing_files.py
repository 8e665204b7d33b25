"""Which events of a sealed segment are gone because the file of their retention class is.

A file may be missing only where all its events have expired by what the others say of it. Which events
it held, its absence tells: the positions that no other file holds and no other damage accounts for.
"""

import numpy as np
import numpy.typing as npt

from shared.log.missing_classes import lost_classes
from shared.log.sealed_merge import SealedSegment
from shared.log.sealed_names import SealedName
from shared.log.types import Damage, Position, PositionRange

# Ranges of positions that are listed; the number of events is in the text.
RANGES_MAX = 1_000


def missing_files(segment: SealedSegment, *, now_ns: int) -> list[Damage]:
    """Return the damage that missing files are. Raises LogCorrupted where rows that checked do not decode."""
    lost = lost_classes(segment.missing_classes, now_ns=now_ns)
    if not lost:
        return []
    first = segment.positions.first
    nothing = PositionRange(first, Position(first - 1))
    found = []
    for each in lost:
        problem = f"the file is missing, with {each.rows} events that are to be kept: restore it from a backup"
        found.append(Damage(nothing, SealedName.of(segment.positions, each.name).parquet, problem))
    problem = "the file that held these events is missing"
    return [*found, *(Damage(each, found[0].file, problem) for each in _ranges(first, _unaccounted(segment)))]


def _unaccounted(segment: SealedSegment) -> npt.NDArray[np.bool_]:
    """Return for each position of the segment whether no file holds it and no damage is known to cover it."""
    first, last = segment.positions.first, segment.positions.last
    unaccounted = np.ones(segment.positions.count, np.bool_)
    for batch in segment.batches(first, last + 1, ["position"]):
        unaccounted[(batch.column("position").to_numpy() - np.uint64(first)).astype(np.intp)] = False
    for damage in segment.damage:
        unaccounted[max(damage.positions.first - first, 0) : max(damage.positions.last + 1 - first, 0)] = False
    return unaccounted


def _ranges(first: Position, marked: npt.NDArray[np.bool_]) -> list[PositionRange]:
    """Return the first runs of marked positions."""
    edges = np.flatnonzero(np.diff(marked, prepend=False, append=False))[: 2 * RANGES_MAX].reshape(-1, 2)
    return [PositionRange(Position(first + start), Position(first + end - 1)) for start, end in edges.tolist()]
