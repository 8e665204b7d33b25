"""How the consumers of a group share events: every chain has a slot, every slot a consumer. Pure.

Invariants: events of one correlation id have one slot, whoever asks and whenever; those without one are spread by
position; when a consumer joins or leaves, only slots that it gets or had change hands.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.columns.arrow import StringArray
from shared.columns.bytes_view import value_lengths, value_offsets

SLOTS = 1024
# As many consumers as share evenly enough.
CONSUMERS_MAX = 128

Slots = npt.NDArray[np.uint16]
# For each slot the index of its consumer.
Owners = npt.NDArray[np.intp]

_TEXT_BYTES_MAX = 255
_PRIME = np.uint64(0x9E3779B97F4A7C15)
with np.errstate(over="ignore"):
    _POWERS = np.cumprod(np.full(_TEXT_BYTES_MAX + 1, 0x100000001B3, np.uint64), dtype=np.uint64)


def slots_of(positions: npt.NDArray[np.uint64], correlation_ids: StringArray) -> Slots:
    """The slots of events. An empty correlation id is none."""
    keys = np.where(value_lengths(correlation_ids) > 0, _text_hashes(correlation_ids), positions)
    return (_mixed(keys) % np.uint64(SLOTS)).astype(np.uint16)


def owners_of(consumers: Sequence[str]) -> Owners:
    """For each slot the index of the consumer that wins it: the one with the highest score for the slot."""
    assert 1 <= len(consumers) <= CONSUMERS_MAX, len(consumers)
    seeds = [int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") for name in consumers]
    slots = np.arange(SLOTS, dtype=np.uint64)
    scores = np.stack([_mixed(_mixed(slots) ^ np.uint64(seed)) for seed in seeds])
    owners: Owners = scores.argmax(axis=0)
    return owners


def _text_hashes(texts: StringArray) -> npt.NDArray[np.uint64]:
    """A hash of each text: its bytes, each times a power for its place, and its length."""
    lengths, offsets = value_lengths(texts).astype(np.int64), value_offsets(texts).astype(np.int64)
    hashes = lengths.astype(np.uint64)
    filled = np.flatnonzero(lengths)
    if not len(filled):
        return hashes
    starts, sizes = offsets[:-1][filled], lengths[filled]
    ends = np.cumsum(sizes)
    places = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
    data: npt.NDArray[Any] = np.frombuffer(texts.buffers()[2], np.uint8)[np.repeat(starts, sizes) + places]
    hashes[filled] += np.add.reduceat(data * _POWERS[places % len(_POWERS)], ends - sizes)
    return hashes


def _mixed(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread the bits of each key over all of it."""
    keys = keys * _PRIME
    keys = (keys ^ (keys >> np.uint64(32))) * _PRIME
    return keys ^ (keys >> np.uint64(29))
