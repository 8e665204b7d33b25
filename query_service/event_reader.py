"""Reading events for answers: one by position, or a page of a range.

Blocks; the servicer calls it off the event loop.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from shared.columns.answers import time_mask
from shared.columns.arrow import Array
from shared.columns.bytes_view import value_lengths, value_offsets
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import EventStorageException, LogCorrupted, PositionTrimmed
from shared.log.log_reader import LogReader
from shared.log.types import Position

# Bytes of one page, about: gRPC's clients take 4 MiB unless told otherwise.
PAGE_BYTES_MAX = 3_600_000
# What an event and a tag take beside their texts: id, position, two times, lengths of fields.
_EVENT_BYTES = 128
_TAG_BYTES = 3
_TEXTS = ("payload", "type", "source", "correlation_id", "host", "version", "user", "session_id")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page of events: positions of [from_position, until), timestamps of [start_ns, end_ns).

    At most `limit` events and about bytes_max bytes, but at least one event where there is one.
    """

    from_position: Position
    until: Position
    limit: int
    start_ns: int | None = None
    end_ns: int | None = None
    bytes_max: int = PAGE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Page:
    """Events (EVENT_SCHEMA) and where the next page begins; None on the last."""

    events: pa.RecordBatch
    next_position: Position | None


class EventReader:
    """Reads events from a log. Several threads may use it."""

    def __init__(self, log: LogReader) -> None:
        self._log = log

    def get(self, position: Position) -> pa.RecordBatch:
        """The event at a position, one row. Raises EventStorageException (EVENT_NOT_FOUND), LogCorrupted."""
        try:
            for batch in self._log.read(position, Position(position + 1)):
                if batch.num_rows:
                    return batch
        except PositionTrimmed:
            raise not_found(f"position {position} was removed by retention") from None
        raise not_found(f"position {position} is not in the log")

    def page(self, request: PageRequest, *, stopped: Callable[[], bool] = lambda: False) -> Page:
        """Read a page. It ends early, with a place to go on from, where `stopped` says so or damage comes.

        Raises PositionTrimmed, LogCorrupted where the page would begin with damage.
        """
        found: list[pa.RecordBatch] = []
        events_left, bytes_left = request.limit, request.bytes_max
        at = request.from_position
        try:
            for batch in self._log.read(request.from_position, request.until):
                wanted = _within(batch, request).slice(0, events_left)
                taken, size = _fitting(wanted, bytes_left, at_least=0 if found else 1)
                at = _following(batch)
                if taken.num_rows:
                    found.append(taken)
                    events_left -= taken.num_rows
                    bytes_left -= size
                if taken.num_rows < wanted.num_rows or events_left == 0:
                    at = _following(taken) if taken.num_rows else Position(wanted.column("position")[0].as_py())
                    break
                if stopped():
                    break
            else:
                at = request.until
        except LogCorrupted:
            # What comes before the damage is an answer; the next page, or an empty one, begins with the damage.
            if at == request.from_position:
                raise
        events = pa.Table.from_batches(found, schema=EVENT_SCHEMA).combine_chunks().to_batches()
        first = events[0] if events else pa.RecordBatch.from_pylist([], schema=EVENT_SCHEMA)
        return Page(first, at if at < request.until else None)


def _within(batch: pa.RecordBatch, request: PageRequest) -> pa.RecordBatch:
    mask = time_mask(batch, start_ns=request.start_ns, end_ns=request.end_ns)
    return batch if mask is None else batch.filter(mask)


def _fitting(events: pa.RecordBatch, bytes_max: int, *, at_least: int) -> tuple[pa.RecordBatch, int]:
    """The first events that together take no more than bytes_max, or the first at_least; and what they take."""
    sizes = np.full(events.num_rows, _EVENT_BYTES, np.int64)
    for name in _TEXTS:
        sizes += value_lengths(events.column(name))
    tags: Array = events.column("tags")
    sizes += np.diff(value_offsets(tags.values)[value_offsets(tags)]) + value_lengths(tags) * _TAG_BYTES
    ends = np.cumsum(sizes)
    count = min(max(int(np.searchsorted(ends, bytes_max, side="right")), at_least), events.num_rows)
    return events.slice(0, count), int(ends[count - 1]) if count else 0


def _following(events: pa.RecordBatch) -> Position:
    return Position(int(events.column("position")[-1].as_py() or 0) + 1)


def not_found(message: str) -> EventStorageException:
    """The error for an event that is not there."""
    return EventStorageException(f"{message}: check the id or position", reason="EVENT_NOT_FOUND")
