"""A Bloom filter over strings, built from whole columns.

Invariant: no false negatives. At 10 bits for each distinct value about 1 % of the others seem to be in.

The hash is FNV-1a of the UTF-8 bytes, mixed by the finaliser of splitmix64: stable for ever, not secret, not
meant to withstand who wants collisions.
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import StringArray

BITS_PER_VALUE = 10
_PROBES = 7
_BITS_MIN = 64
_FNV_BASIS = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)


class BloomFilter:
    """A Bloom filter. Immutable."""

    def __init__(self, bitmap: bytes) -> None:
        """Take the bitmap of a filter that was built before: at least 8 bytes, or none if it is empty."""
        self.bitmap = bitmap

    @classmethod
    def of(cls, values: StringArray) -> "BloomFilter":
        """Build the filter of the values, nulls aside."""
        return cls.of_hashes(hash_column(values.drop_null().unique()))

    @classmethod
    def of_hashes(cls, hashes: npt.NDArray[np.uint64]) -> "BloomFilter":
        """Build the filter of values by their hashes, each of them once."""
        if len(hashes) == 0:
            return cls(b"")
        count = -(-max(_BITS_MIN, BITS_PER_VALUE * len(hashes)) // 8) * 8
        bits = np.zeros(count, np.bool_)
        for probe in range(_PROBES):
            bits[_bit(hashes, probe, count)] = True
        return cls(np.packbits(bits, bitorder="little").tobytes())

    def may_contain(self, value: str) -> bool:
        """Return False only if the value was not among those that the filter was built of."""
        if not self.bitmap:
            return False
        low, high = _halves(value)
        count = 8 * len(self.bitmap)
        bits = ((low + probe * high) % count for probe in range(_PROBES))
        return all(self.bitmap[bit >> 3] >> (bit & 7) & 1 for bit in bits)


@functools.lru_cache(maxsize=1024)
def _halves(value: str) -> tuple[int, int]:
    """What the probes of one value are made of: kept, because a query asks many filters for the same value."""
    hashed = int(hash_column(pa.array([value.encode("utf-8", "surrogatepass")]))[0])
    return hashed & 0xFFFFFFFF, hashed >> 32 | 1


def hash_column(values: StringArray) -> npt.NDArray[np.uint64]:
    """Return the hash of each string or binary value. None may be null."""
    texts: Any = (
        pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) and values.num_chunks else values
    )
    hashes = np.full(len(texts), _FNV_BASIS, np.uint64)
    if len(texts) == 0:
        return hashes
    _, offsets_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32, len(texts) + 1, texts.offset * 4)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    # Byte by byte, all values at a time: those that are longer than the byte's number, the longest last.
    order = np.argsort(lengths := np.diff(offsets), kind="stable")
    starts, lengths = offsets[:-1][order], lengths[order]
    found = hashes.copy()
    for number in range(int(lengths[-1])):
        longer = int(np.searchsorted(lengths, number, side="right"))
        found[longer:] = (found[longer:] ^ data[starts[longer:] + number]) * _FNV_PRIME
    hashes[order] = _mixed(found)
    return hashes


def _mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Let each bit of a hash depend on all of them."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _bit(hashes: npt.NDArray[np.uint64], probe: int, count: int) -> npt.NDArray[np.uint64]:
    """Return the bit of each hash for one probe: double hashing with its two halves."""
    low = hashes & np.uint64(0xFFFFFFFF)
    high = (hashes >> np.uint64(32)) | np.uint64(1)
    bit: npt.NDArray[np.uint64] = (low + np.uint64(probe) * high) % np.uint64(count)
    return bit
