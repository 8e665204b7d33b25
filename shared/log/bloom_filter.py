"""A Bloom filter over strings, built from whole columns.

Invariant: no false negatives. At 10 bits for each distinct value about 1 % of the others seem to be in.

The hash is the lower half of MD5, as DuckDB's md5_number_lower computes it for columns and hashlib for
one value: stable for ever, not secret, not meant to withstand who wants collisions.
"""

import hashlib

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import StringArray

BITS_PER_VALUE = 10
_PROBES = 7
_BITS_MIN = 64


class BloomFilter:
    """A Bloom filter. Immutable."""

    def __init__(self, bitmap: bytes) -> None:
        """Take the bitmap of a filter that was built before: at least 8 bytes, or none if it is empty."""
        self.bitmap = bitmap
        self._bits = np.frombuffer(bitmap, np.uint8)

    @classmethod
    def of(cls, values: StringArray) -> "BloomFilter":
        """Build the filter of the values, nulls aside."""
        hashes = hash_column(values.drop_null().unique())
        if len(hashes) == 0:
            return cls(b"")
        count = -(-max(_BITS_MIN, BITS_PER_VALUE * len(hashes)) // 8) * 8
        bits = np.zeros(count, np.bool_)
        for probe in range(_PROBES):
            bits[_bit(hashes, probe, count)] = True
        return cls(np.packbits(bits, bitorder="little").tobytes())

    def may_contain(self, value: str) -> bool:
        """Return False only if the value was not among those that the filter was built of."""
        if len(self._bits) == 0:
            return False
        digest = hashlib.md5(value.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
        hashed = np.array([int.from_bytes(digest[8:], "little")], np.uint64)
        bits = [int(_bit(hashed, probe, 8 * len(self._bits))[0]) for probe in range(_PROBES)]
        return all(self._bits[bit >> 3] >> (bit & 7) & 1 for bit in bits)


def hash_column(values: StringArray) -> npt.NDArray[np.uint64]:
    """Return the hash of each string. None may be null."""
    if len(values) == 0:
        return np.zeros(0, np.uint64)
    with duckdb.connect(":memory:", config={"threads": 1, "autoload_known_extensions": False}) as connection:
        connection.register("strings", pa.table({"text": values}))
        relation = connection.sql("SELECT md5_number_lower(text) FROM strings")
        assert relation is not None
        hashes: npt.NDArray[np.uint64] = relation.to_arrow_table().column(0).to_numpy().astype(np.uint64)
        return hashes


def _bit(hashes: npt.NDArray[np.uint64], probe: int, count: int) -> npt.NDArray[np.uint64]:
    """Return the bit of each hash for one probe: double hashing with its two halves."""
    low = hashes & np.uint64(0xFFFFFFFF)
    high = (hashes >> np.uint64(32)) | np.uint64(1)
    bit: npt.NDArray[np.uint64] = (low + np.uint64(probe) * high) % np.uint64(count)
    return bit
