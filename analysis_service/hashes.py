"""Hashes of texts and of the groups of events, in 64 bits: equal ones have equal hashes, in every process."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis_service.columns import MISSING, EventColumns
from shared.columns.arrow import StringArray
from shared.columns.bytes_view import value_offsets

Hashes: TypeAlias = npt.NDArray[np.uint64]

_MISSING_HASH = np.uint64(0x5D1E6C0FF1CEBA5E)


def group_hashes(events: EventColumns, key: str) -> Hashes:
    """A hash for each event, equal for those of one group of a key; an event without the key is a group by itself."""
    labels = events.labels(key)
    # One more for MISSING, which is the last one counted from the end.
    by_code = hashes_of(pa.array([*labels.values, ""], pa.string()))
    alone = _mixed(events.positions.astype(np.uint64))
    hashes: Hashes = np.where(labels.codes == MISSING, alone, by_code[labels.codes])
    return hashes


def row_hashes(events: EventColumns, fields: Sequence[str]) -> Hashes:
    """A hash for each event, equal for those that have the same in all of some fields, or lack it."""
    combined: Hashes = np.zeros(len(events), np.uint64)
    for field in fields:
        labels = events.labels(field)
        # What is missing is told from an empty text.
        by_code = np.append(hashes_of(pa.array(labels.values, pa.string())), _MISSING_HASH)
        combined = _mixed(combined ^ by_code[labels.codes])
    return combined


def hashes_of(texts: StringArray) -> Hashes:
    """Hashes of texts, none of them null: their bytes weighed by their places, added up and mixed."""
    offsets = value_offsets(texts)
    lengths = np.diff(offsets)
    sums = np.zeros(len(texts), np.uint64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        data = np.frombuffer(texts.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
        places = np.arange(len(data), dtype=np.int64) - np.repeat(offsets[:-1] - offsets[0], lengths)
        weighed = _mixed(places.astype(np.uint64)) * (data + np.uint64(1))
        sums[filled] = np.add.reduceat(weighed, (offsets[:-1] - offsets[0])[filled])
    return _mixed(sums + lengths.astype(np.uint64))


def _mixed(numbers: Hashes) -> Hashes:
    """Numbers with their bits mixed: splitmix64 of Steele et al. (2014)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
