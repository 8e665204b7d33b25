"""How many events fit into one message: gRPC's clients take 4 MiB unless told otherwise. Pure."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from shared.columns.arrow import Array
from shared.columns.bytes_view import value_lengths, value_offsets

MESSAGE_BYTES_MAX = 3_600_000
# How much larger a payload usually is as a structure than as text.
STRUCT_GROWTH = 4
# What an event and a tag take beside their texts: id, position, two times, lengths of fields.
_EVENT_BYTES = 128
_TAG_BYTES = 3
_TEXTS = ("payload", "type", "source", "correlation_id", "host", "version", "user", "session_id")


def fitting(events: pa.RecordBatch, bytes_max: int, *, at_least: int) -> tuple[pa.RecordBatch, int]:
    """The first events (EVENT_SCHEMA) that take no more than bytes_max, or the first at_least; and what they take."""
    sizes = np.full(events.num_rows, _EVENT_BYTES, np.int64)
    for name in _TEXTS:
        sizes += value_lengths(events.column(name))
    tags: Array = events.column("tags")
    sizes += np.diff(value_offsets(tags.values)[value_offsets(tags)]) + value_lengths(tags) * _TAG_BYTES
    ends = np.cumsum(sizes)
    count = min(max(int(np.searchsorted(ends, bytes_max, side="right")), at_least), events.num_rows)
    return events.slice(0, count), int(ends[count - 1]) if count else 0


def pieces(events: pa.RecordBatch, bytes_max: int) -> Iterator[pa.RecordBatch]:
    """Cut events into pieces that each fit, or are a single event."""
    while events.num_rows:
        piece, _ = fitting(events, bytes_max, at_least=1)
        yield piece
        events = events.slice(piece.num_rows)


def halves(rows: pa.RecordBatch, bytes_max: int) -> Iterator[pa.RecordBatch]:
    """Cut rows in halves until each piece takes no more than bytes_max, or is a single row."""
    if rows.num_rows <= 1 or rows.nbytes <= bytes_max:
        yield rows
        return
    middle = rows.num_rows // 2
    yield from halves(rows.slice(0, middle), bytes_max)
    yield from halves(rows.slice(middle), bytes_max)
