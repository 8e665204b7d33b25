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
from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard

from shared.columns.arrow import Array
from shared.columns.arrow import compute as pc
from shared.errors import EventStorageException, LogCorrupted
from shared.log.bloom_filter import BloomFilter, hash_column
from shared.log.file_system import FileSystem
from shared.log.sealed_names import SealedName
from shared.log.sealed_reader import read_sealed
from shared.log.whole_file import write_whole_file

_MAGIC = b"EVIX"
_VERSION = 1
_PREFIX = struct.Struct("<4sHHI")
_SIZES = struct.Struct("<IIII")
_FILTERED = ("correlation_id", "session_id", "user")
_BOUNDED = ("position", "recorded_at", "timestamp")
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


class SidecarBuilder:
    """Builds the sidecar of a file from its events, as they come."""

    # Columns of EVENT_SCHEMA that it looks at.
    COLUMNS = ("position", "recorded_at", "timestamp", "type", "source", *_FILTERED)

    def __init__(self) -> None:
        self._rows = 0
        self._bounds: dict[str, Bounds | None] = dict.fromkeys(_BOUNDED)
        self._types = _Tally(pa.string())
        self._sources = _Tally(pa.string())
        self._hours = _Tally(pa.int64())
        self._hashes: dict[str, list[npt.NDArray[np.uint64]]] = {name: [] for name in _FILTERED}

    def add(self, events: pa.Table | pa.RecordBatch) -> None:
        """Add the next events; they have at least the columns COLUMNS."""
        self._rows += events.num_rows
        for name in _BOUNDED:
            self._bounds[name] = _joined(self._bounds[name], _bounds(events.column(name)))
        self._types.add(events.column("type"))
        self._sources.add(events.column("source"))
        nanoseconds = events.column("timestamp").cast(pa.int64()).to_numpy()
        self._hours.add(pa.array(nanoseconds // _HOUR_NS))
        for name in _FILTERED:
            self._hashes[name].append(hash_column(events.column(name).drop_null().unique()))

    def finish(self) -> bytes:
        """Return the sidecar."""
        hours, hours_cut = self._hours.most_frequent()
        summary = Summary(
            rows=self._rows,
            **self._bounds,
            by_type=Counts(*self._types.most_frequent()),
            by_source=Counts(*self._sources.most_frequent()),
            by_hour=hours,
            by_hour_cut=hours_cut,
        )
        text = zstandard.ZstdCompressor(level=9).compress(msgspec.json.encode(summary))
        filters = [BloomFilter.of_hashes(_distinct(self._hashes[name])).bitmap for name in _FILTERED]
        body = _SIZES.pack(len(text), *map(len, filters)) + text + b"".join(filters)
        return _PREFIX.pack(_MAGIC, _VERSION, 0, google_crc32c.value(body)) + body


def build_sidecar(events: pa.Table) -> bytes:
    """Build the sidecar of a file from its events, a table with the columns of EVENT_SCHEMA."""
    builder = SidecarBuilder()
    builder.add(events)
    return builder.finish()


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
    builder = SidecarBuilder()
    for events in sealed.batches(0, 2**64 - 1, builder.COLUMNS):
        builder.add(events)
    write_whole_file(fs, name.index, builder.finish())
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


def _joined(one: Bounds | None, other: Bounds | None) -> Bounds | None:
    if one is None or other is None:
        return one or other
    return Bounds(min(one.first, other.first), max(one.last, other.last))


def _distinct(hashes: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    """Return each hash once."""
    in_order = np.sort(np.concatenate([np.zeros(0, np.uint64), *hashes]))
    distinct: npt.NDArray[np.uint64] = in_order[np.diff(in_order, prepend=~in_order[:1]) != 0]
    return distinct


class _Tally:
    """How often each value occurs."""

    def __init__(self, value_type: pa.DataType) -> None:
        self._counts = pa.table({"value": pa.array([], value_type), "count": pa.array([], pa.int64())})

    def add(self, values: Array) -> None:
        """Count more values."""
        counted = pc.value_counts(values)
        more = pa.table({"value": counted.field("values"), "count": counted.field("counts")})
        summed = (
            pa.concat_tables([self._counts, more]).group_by("value", use_threads=False).aggregate([("count", "sum")])
        )
        self._counts = summed.rename_columns({"count_sum": "count"}).select(["value", "count"])

    def most_frequent(self) -> tuple[dict[Any, int], bool]:
        """Return the counts, the largest first, of equal ones that of the smallest value; and whether some are cut."""
        counts: Any = self._counts.sort_by([("count", "descending"), ("value", "ascending")]).slice(0, _COUNTS_MAX)
        listed = dict(zip(counts["value"].to_pylist(), counts["count"].to_pylist(), strict=True))
        return listed, self._counts.num_rows > _COUNTS_MAX
