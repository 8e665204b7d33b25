"""The segments that are not sealed yet, as columns: frames joined into blocks of tens of thousands of events.

A block is closed once it is large enough; its texts that repeat are then dictionary-encoded, which makes it a
third smaller and quicker to search. The last block of the active segment grows with the log.

Invariants: a block holds the events of consecutive intact frames below the committed position, in order; the
blocks kept in memory weigh no more than the cache allows, others are decoded again when they are needed.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from shared.columns.arrow import Array, StringArray
from shared.columns.arrow import compute as pc
from shared.columns.schema import EVENT_SCHEMA
from shared.log.bounded_cache import BoundedCache
from shared.log.frame_index import FrameIndex, frame_events
from shared.log.sealed_metadata import TimeBounds
from shared.log.types import Position

BLOCK_ROWS = 65_536
BLOCK_BYTES = 16 * 1024 * 1024
# Appended frames of a growing block that are kept apart before they are joined.
_PIECES_MAX = 16
_REPEATING = ("type", "source", "correlation_id", "host", "version", "user", "session_id")


@dataclass(frozen=True, slots=True)
class TailBlock:
    """Events at consecutive positions of one .log file: [first, until).

    `events` has the columns of EVENT_SCHEMA; those of a closed block are dictionary-encoded where they repeat.
    """

    first: Position
    until: Position
    closed: bool
    events: pa.Table
    timestamps: TimeBounds

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return int(self.events.nbytes)

    def holds(self, name: str, value: "pa.StringScalar") -> bool:
        """Whether a value is in a column of texts that repeats."""
        texts = self.texts(name)
        chunks = self.events.column(name).chunks if texts is None else [texts]
        return any(pc.index(chunk, value).as_py() >= 0 for chunk in chunks)

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
        # Where the blocks begin, and what is known of those that were closed.
        self._firsts: list[Position] = [index.first]
        self._times: dict[Position, tuple[TimeBounds, int]] = {}

    def blocks(self, from_position: Position, until: Position) -> Iterator[TailBlock]:
        """The blocks that hold positions of [from_position, until), in order; the last may end before until.

        Raises LogCorrupted on coming to damage, OSError.
        """
        at = from_position
        while at < until:
            with self._lock:
                first = max(each for each in self._firsts if each <= at)
                block = self._block(first, until)
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

    def _block(self, first: Position, until: Position) -> TailBlock:
        key = (self.index.name, first)
        block = self._cache.get(key)
        if block is not None and (block.closed or block.until >= until):
            return block
        block = self._grown(first, block, until)
        self._cache.put(key, block)
        if block.closed and block.until not in self._firsts:
            self._firsts.append(block.until)
            self._times[first] = block.timestamps, block.events.num_rows
        return block

    def _grown(self, first: Position, block: TailBlock | None, until: Position) -> TailBlock:
        """The block with what was appended up to until, or up to where the block ends."""
        at = first if block is None else block.until
        pieces = [] if block is None else block.events.to_batches()
        size = sum(piece.nbytes for piece in pieces)
        # Where a block was closed before, it ends there again.
        end = min((each for each in self._firsts if each > first), default=None)
        for frame in self.index.frames(at, until if end is None else end):
            pieces.append(frame_events(frame))
            size += pieces[-1].nbytes
            at = Position(frame.first_position + frame.events.num_rows)
            if end is None and (at - first >= BLOCK_ROWS or size >= BLOCK_BYTES):
                end = at
            if at == end:
                return _closed(first, pieces)
        return _open(first, pieces)


def _open(first: Position, pieces: list[pa.RecordBatch]) -> TailBlock:
    events = pa.Table.from_batches(pieces, EVENT_SCHEMA)
    return _block(first, events.combine_chunks() if len(pieces) > _PIECES_MAX else events, closed=False)


def _closed(first: Position, pieces: list[pa.RecordBatch]) -> TailBlock:
    events = pa.Table.from_batches(pieces, EVENT_SCHEMA).combine_chunks()
    for name in _REPEATING:
        column: Array = events.column(name)
        events = events.set_column(EVENT_SCHEMA.get_field_index(name), name, column.dictionary_encode())
    return _block(first, events, closed=True)


def _block(first: Position, events: pa.Table, *, closed: bool) -> TailBlock:
    extremes = pc.min_max(events.column("timestamp").cast(pa.int64())).as_py()
    timestamps = TimeBounds(extremes["min"], extremes["max"])
    return TailBlock(first, Position(first + events.num_rows), closed, events, timestamps)
