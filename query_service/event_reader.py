"""Reading events for answers: one by position, or a page of a range.

Blocks; the servicer calls it off the event loop.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from shared.columns.answers import time_mask
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import EventStorageException, LogCorrupted
from shared.log.log_reader import LogReader
from shared.log.types import Position


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page of events: positions of [from_position, until), timestamps of [start_ns, end_ns), at most `limit`."""

    from_position: Position
    until: Position
    limit: int
    start_ns: int | None = None
    end_ns: int | None = None


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
        if position < self._log.first_position():
            raise not_found(f"position {position} was removed by retention")
        for batch in self._log.read(position, Position(position + 1)):
            if batch.num_rows:
                return batch
        raise not_found(f"position {position} is not in the log")

    def page(self, request: PageRequest, *, stopped: Callable[[], bool] = lambda: False) -> Page:
        """Read a page. It ends early, with a place to go on from, where `stopped` says so or damage comes.

        Raises PositionTrimmed, LogCorrupted where the page would begin with damage.
        """
        found: list[pa.RecordBatch] = []
        count = 0
        at = request.from_position
        try:
            for batch in self._log.read(request.from_position, request.until):
                wanted = _within(batch, request).slice(0, request.limit - count)
                found.append(wanted)
                count += wanted.num_rows
                at = Position(batch.column("position")[-1].as_py() + 1)
                if count == request.limit:
                    at = Position(wanted.column("position")[-1].as_py() + 1)
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


def not_found(message: str) -> EventStorageException:
    """The error for an event that is not there."""
    return EventStorageException(f"{message}: check the id or position", reason="EVENT_NOT_FOUND")
