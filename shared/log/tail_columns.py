"""The segments that are not sealed yet, as columns: frames joined into blocks of tens of thousands of events.

A block is closed once it is large enough; its texts that repeat are then dictionary-encoded, which makes it a
third smaller and quicker to search. The last block of the active segment grows with the log. Where blocks begin and
end is told by the headers of the frames alone, so any of them can be decoded without those before it.

Invariants: a block holds the events of consecutive intact frames below the committed position, in order; the
blocks kept in memory weigh no more than the cache allows, others are decoded again when they are needed.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import Array, StringArray
from shared.columns.arrow import compute as pc
from shared.columns.schema import EVENT_SCHEMA
from shared.log.bounded_cache import BoundedCache
from shared.log.frame_index import FrameIndex, frame_events
from shared.log.sealed_metadata import TimeBounds
from shared.log.types import Position

BLOCK_ROWS = 65_536
# Of its frames, before compression.
BLOCK_BYTES = 16 * 1024 * 1024
# Appended frames of a growing block that are kept apart before they are joined.
_PIECES_MAX = 16
_IDS = ("correlation_id", "session_id", "user")
_REPEATING = ("type", "source", "correlation_id", "host", "version", "user", "session_id")


@dataclass(frozen=True, slots=True)
class TailBlock:
    """Events at consecutive positions of one .log file: [first, until).

    `events` has the columns of EVENT_SCHEMA; those of a closed block are dictionary-encoded where they repeat.
    `hashes` has for each column of ids of a closed block the hashes of what occurs in it, sorted.
    """

    first: Position
    until: Position
    closed: bool
    events: pa.Table
    timestamps: TimeBounds
    hashes: Mapping[str, npt.NDArray[np.int64]]

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return int(self.events.nbytes) + sum(hashes.nbytes for hashes in self.hashes.values())

    def may_hold(self, name: str, value: str) -> bool:
        """Return False only if a value is not in a column of ids."""
        hashes = self.hashes.get(name)
        if hashes is not None:
            at = int(np.searchsorted(hashes, hash(value)))
            return at < len(hashes) and int(hashes[at]) == hash(value)
        return any(pc.index(chunk, value).as_py() >= 0 for chunk in self.events.column(name).chunks)

    def texts(self, name: str) -> StringArray | None:
        """The texts that occur in a column that repeats, each once; None where the block is not closed."""
        if not self.closed:
            return None
        column: Array = self.events.column(name).chunk(0)
        texts: StringArray = column.dictionary
        return texts

    def slice(self, from_position: Position, until: Position) -> pa.Table:
        """The events with positions of [from_position, until)."""
        start = max(from_position - self.first, 0)
        return self.events.slice(start, max(min(until, self.until) - self.first - start, 0))


BlockCache = BoundedCache[tuple[str, Position], TailBlock]


def block_cache(bytes_max: int) -> BlockCache:
    """A cache for the blocks of all segments, of a size in bytes."""
    return BoundedCache(bytes_max, lambda block: block.bytes)


class TailColumns:
    """The blocks of one .log file, whose index the caller keeps extended. Several threads may use it."""

    def __init__(self, index: FrameIndex, cache: BlockCache) -> None:
        self.index = index
        self._cache = cache
        self._lock = threading.Lock()
        # Where the blocks begin, as far as frames were looked at; the last of them is not closed yet.
        self._firsts: list[Position] = [index.first]
        self._frames = self._rows = self._bytes = 0
        # What is known of those that were decoded once they were closed.
        self._times: dict[Position, tuple[TimeBounds, int]] = {}

    def blocks(self, from_position: Position, until: Position) -> Iterator[TailBlock]:
        """The blocks that hold positions of [from_position, until), in order; the last may end before until.

        Raises LogCorrupted on coming to damage, OSError.
        """
        at = from_position
        while at < until:
            with self._lock:
                self._divide()
                number = bisect_right(self._firsts, at) - 1
                block = self._block(number, until)
            yield block
            at = block.until

    def times(self, until: Position) -> list[tuple[TimeBounds, int]]:
        """The timestamps of each block below until, and its number of events. Raises as blocks."""
        found, at = [], self.index.first
        while at < until:
            known = self._times.get(at)
            if known is None:
                block = next(self.blocks(at, until))
                known = block.timestamps, block.events.num_rows
            found.append(known)
            at = Position(at + known[1])
        return found

    def _divide(self) -> None:
        """Divide the frames that were appended into blocks."""
        for header in self.index.headers_from(self._frames):
            self._frames += 1
            self._rows += header.count
            self._bytes += header.raw_length
            if self._rows >= BLOCK_ROWS or self._bytes >= BLOCK_BYTES:
                self._firsts.append(Position(header.positions.last + 1))
                self._rows = self._bytes = 0

    def _block(self, number: int, until: Position) -> TailBlock:
        first = self._firsts[number]
        key = (self.index.name, first)
        block = self._cache.get(key)
        if block is None or not (block.closed or block.until >= until):
            end = self._firsts[number + 1] if number + 1 < len(self._firsts) else None
            block = self._grown(first, block, until if end is None else end, closed=end is not None)
            self._cache.put(key, block)
            if block.closed:
                self._times[first] = block.timestamps, block.events.num_rows
        return block

    def _grown(self, first: Position, block: TailBlock | None, until: Position, *, closed: bool) -> TailBlock:
        """The block with what was appended up to until, which is its end where it is closed."""
        pieces = [] if block is None else block.events.to_batches()
        at = first if block is None else block.until
        pieces += [frame_events(frame) for frame in self.index.frames(at, until)]
        return _closed(first, pieces) if closed else _open(first, pieces)


def _open(first: Position, pieces: list[pa.RecordBatch]) -> TailBlock:
    events = pa.Table.from_batches(pieces, EVENT_SCHEMA)
    return _block(first, events.combine_chunks() if len(pieces) > _PIECES_MAX else events, {})


def _closed(first: Position, pieces: list[pa.RecordBatch]) -> TailBlock:
    events = pa.Table.from_batches(pieces, EVENT_SCHEMA).combine_chunks()
    for name in _REPEATING:
        column: Array = events.column(name)
        events = events.set_column(EVENT_SCHEMA.get_field_index(name), name, column.dictionary_encode())
    return _block(first, events, {name: _hashes(events.column(name)) for name in _IDS})


def _hashes(column: Array) -> npt.NDArray[np.int64]:
    """The hashes, in this process, of the texts of a column that is dictionary-encoded, sorted."""
    texts: StringArray = column.chunk(0).dictionary
    return np.sort(np.fromiter(map(hash, texts.to_pylist()), np.int64, len(texts)))


def _block(first: Position, events: pa.Table, hashes: Mapping[str, npt.NDArray[np.int64]]) -> TailBlock:
    extremes = pc.min_max(events.column("timestamp").cast(pa.int64())).as_py()
    timestamps = TimeBounds(extremes["min"], extremes["max"])
    return TailBlock(first, Position(first + events.num_rows), bool(hashes), events, timestamps, hashes)
