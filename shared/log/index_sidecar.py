"""The index sidecar of a sealed file: what tells that a file has nothing for a query, without opening it.

Invariants:
- Derived: it is made from the sealed file alone, and deleting it changes no answer.
- Never wrong: a filter may say that a value can be there when it is not, never the other way round;
  counts and bounds are exact, and say so where a very long list was cut.
- A damaged sidecar is refused as a whole.

    offset  size
    0       4     magic "EVIX"
    4       2     format version, 1, little endian as all numbers
    6       2     zero
    8       4     CRC-32C of everything from offset 12
    12      4     size of the summary
    16      12    sizes of the filters of correlation id, session id and user
    28      ...   the summary: JSON, compressed by zstd
    ...     ...   the bitmaps of the three filters
"""

import struct
from collections.abc import Mapping

import google_crc32c
import msgspec
import numpy as np
import pyarrow as pa
import zstandard

from shared.columns.arrow import Array
from shared.columns.arrow import compute as pc
from shared.errors import EventStorageException, LogCorrupted
from shared.log.bloom_filter import BloomFilter
from shared.log.file_system import FileSystem
from shared.log.sealed_names import SealedName
from shared.log.sealed_reader import read_sealed
from shared.log.whole_file import write_whole_file

_MAGIC = b"EVIX"
_VERSION = 1
_PREFIX = struct.Struct("<4sHHI")
_SIZES = struct.Struct("<IIII")
_FILTERED = ("correlation_id", "session_id", "user")
_COUNTS_MAX = 10_000
_SUMMARY_BYTES_MAX = 64 * 1024 * 1024
_HOUR_NS = 3_600 * 10**9


class Counts(msgspec.Struct, frozen=True):
    """How many events have each value. Where `cut`, only the 10,000 most frequent values are listed."""

    by_value: dict[str, int]
    cut: bool


class Bounds(msgspec.Struct, frozen=True):
    """The smallest and the largest value, both inclusive."""

    first: int
    last: int


class Summary(msgspec.Struct, frozen=True):
    """What a sidecar says besides its filters. Times are nanoseconds; bounds are None if there is no row.

    `by_hour` counts by the hour of the timestamp, numbered from the epoch.
    """

    rows: int
    position: Bounds | None
    recorded_at: Bounds | None
    timestamp: Bounds | None
    by_type: Counts
    by_source: Counts
    by_hour: dict[int, int]
    by_hour_cut: bool


class Sidecar:
    """A loaded sidecar."""

    def __init__(self, summary: Summary, filters: Mapping[str, BloomFilter]) -> None:
        self.summary = summary
        self._filters = filters

    @classmethod
    def load(cls, data: bytes) -> "Sidecar":
        """Read a sidecar. Raises ValueError if it is damaged or of a newer version: rebuild it."""
        sizes = _check(data)
        pieces = []
        at = _PREFIX.size + _SIZES.size
        for size in sizes:
            pieces.append(data[at : at + size])
            at += size
        try:
            text = zstandard.ZstdDecompressor().decompress(pieces[0], max_output_size=_SUMMARY_BYTES_MAX)
            summary = msgspec.json.decode(text, type=Summary)
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise ValueError("the summary of the index sidecar makes no sense: rebuild the index") from error
        return cls(summary, dict(zip(_FILTERED, map(BloomFilter, pieces[1:]), strict=True)))

    def may_contain_correlation_id(self, value: str) -> bool:
        """Return False only if no event of the file has this correlation id."""
        return self._filters["correlation_id"].may_contain(value)

    def may_contain_session_id(self, value: str) -> bool:
        """Return False only if no event of the file has this session id."""
        return self._filters["session_id"].may_contain(value)

    def may_contain_user(self, value: str) -> bool:
        """Return False only if no event of the file has this user."""
        return self._filters["user"].may_contain(value)


def build_sidecar(events: pa.Table) -> bytes:
    """Build the sidecar of a file from its events, a table with the columns of EVENT_SCHEMA."""
    hours = _counts_by_hour(events)
    summary = Summary(
        rows=events.num_rows,
        position=_bounds(events.column("position")),
        recorded_at=_bounds(events.column("recorded_at")),
        timestamp=_bounds(events.column("timestamp")),
        by_type=_counts(events.column("type")),
        by_source=_counts(events.column("source")),
        by_hour=dict(sorted(hours.items(), key=lambda item: (-item[1], item[0]))[:_COUNTS_MAX]),
        by_hour_cut=len(hours) > _COUNTS_MAX,
    )
    text = zstandard.ZstdCompressor(level=9).compress(msgspec.json.encode(summary))
    filters = [BloomFilter.of(events.column(name)).bitmap for name in _FILTERED]
    body = _SIZES.pack(len(text), *map(len, filters)) + text + b"".join(filters)
    return _PREFIX.pack(_MAGIC, _VERSION, 0, google_crc32c.value(body)) + body


def rebuild_sidecar(fs: FileSystem, parquet_name: str) -> str:
    """Make the sidecar of a sealed file anew, durably. Return its name.

    Raises LogCorrupted if the file is not readable as a whole: a sidecar of what is left of it would
    hide events should the file be restored.
    """
    name = SealedName.parse(parquet_name)
    if name is None:
        raise EventStorageException(f"{parquet_name} is not the name of a sealed file")
    sealed = read_sealed(fs, parquet_name)
    if sealed.damage:
        raise LogCorrupted(
            f"{parquet_name} is damaged, its index cannot be made: restore the file, then run RebuildIndex",
            first_position=sealed.damage[0].positions.first,
            last_position=sealed.damage[-1].positions.last,
        )
    # Without the payloads, which the index says nothing about.
    columns = ["position", "recorded_at", "timestamp", "type", "source", *_FILTERED]
    write_whole_file(fs, name.index, build_sidecar(sealed.table(columns)))
    return name.index


def _check(data: bytes) -> tuple[int, ...]:
    """Return the sizes of the parts of a sidecar that is whole. Raises ValueError otherwise."""
    if len(data) < _PREFIX.size + _SIZES.size:
        raise ValueError("the index sidecar is cut short: rebuild the index")
    magic, version, zero, checksum = _PREFIX.unpack_from(data)
    if magic != _MAGIC or zero != 0:
        raise ValueError("this is no index sidecar: rebuild the index")
    if version != _VERSION:
        raise ValueError(f"the index sidecar has format version {version}, this program knows {_VERSION}")
    if google_crc32c.value(data[_PREFIX.size :]) != checksum:
        raise ValueError("the index sidecar is damaged: rebuild the index")
    sizes: tuple[int, ...] = _SIZES.unpack_from(data, _PREFIX.size)
    if sum(sizes) != len(data) - _PREFIX.size - _SIZES.size:
        raise ValueError("the parts of the index sidecar do not add up: rebuild the index")
    return sizes


def _bounds(column: Array) -> Bounds | None:
    numbers = column if pa.types.is_integer(column.type) else column.cast(pa.int64())
    extremes = pc.min_max(numbers).as_py()
    return None if extremes["min"] is None else Bounds(extremes["min"], extremes["max"])


def _counts(column: Array) -> Counts:
    counted = pc.value_counts(column)
    values = counted.field("values").to_pylist()
    pairs = list(zip(values, counted.field("counts").to_pylist(), strict=True))
    pairs.sort(key=lambda pair: (-pair[1], pair[0]))
    return Counts(dict(pairs[:_COUNTS_MAX]), cut=len(pairs) > _COUNTS_MAX)


def _counts_by_hour(events: pa.Table) -> dict[int, int]:
    nanoseconds = events.column("timestamp").cast(pa.int64()).to_numpy()
    hours, counts = np.unique(nanoseconds // _HOUR_NS, return_counts=True)
    return dict(zip(hours.tolist(), counts.tolist(), strict=True))
