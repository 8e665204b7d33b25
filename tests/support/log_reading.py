"""Reads a log event by event, as nothing in the product does: to compare what is on disk with what was logged."""

from collections.abc import Iterator

import pyarrow as pa

from shared.log.log_reader import LocalLogReader
from shared.log.types import Position

# A segment may be sealed or removed between the listing and the opening, but not again and again.
_LISTING_ATTEMPTS = 10


def read_events(reader: LocalLogReader, from_position: int = 1, until: int = 1 << 62) -> Iterator[pa.RecordBatch]:
    """Events (EVENT_SCHEMA) at committed positions of [from_position, until), in order.

    Raises PositionTrimmed, LogCorrupted on coming to damage, OSError.
    """
    committed = reader.committed()
    end = min(until, committed.position + 1)
    expected, attempts = from_position, 0
    while expected < end:
        span = reader.span_of(Position(expected), committed)
        span_until = min(end, span.until)
        try:
            for batch in reader.batches_of(span, Position(expected), Position(span_until), committed):
                if batch.num_rows:
                    attempts = 0
                    yield batch
                    expected = int(batch.column("position")[-1].as_py()) + 1
        except FileNotFoundError:
            attempts += 1
            if attempts >= _LISTING_ATTEMPTS:
                raise
            continue
        expected = max(expected, span_until)
