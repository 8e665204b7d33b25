"""Runs an exporter over the batches of a query, and gives the file in pieces fit for messages.

Invariants: the pieces joined are the file; each is at most PIECE_BYTES_MAX; the exporter sees at most
SLICE_EVENTS_MAX events and about SLICE_BYTES_MAX bytes at a time, or one single event. So what is in
memory is a slice, what the exporter makes of it, and what the exporter keeps.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from query_service.exporters.exporter import Exporter

PIECE_BYTES_MAX = 1024 * 1024
SLICE_EVENTS_MAX = 8_192
SLICE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ExportPiece:
    """The next bytes of a file, and how many events the exporter has been given so far."""

    data: bytes
    exported_events: int


def export_pieces(exporter: Exporter, batches: Iterable[pa.RecordBatch]) -> Generator[ExportPiece, None, None]:
    """Export the events of the batches (EVENT_SCHEMA), in their order.

    Every batch gives at least one piece, maybe empty: progress shows also where a format gives its bytes late.
    Raises what the exporter raises.
    """
    exported = 0
    waiting = bytearray(exporter.begin())
    for batch in batches:
        for events in _slices(batch):
            waiting += exporter.write(events)
            exported += events.num_rows
            yield from _full_pieces(waiting, exported)
        yield ExportPiece(b"", exported)
    waiting += exporter.end()
    yield from _full_pieces(waiting, exported)
    yield ExportPiece(bytes(waiting), exported)


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    start = 0
    while start < batch.num_rows:
        piece = batch.slice(start, SLICE_EVENTS_MAX)
        while piece.num_rows > 1 and piece.nbytes > SLICE_BYTES_MAX:
            piece = piece.slice(0, piece.num_rows // 2)
        yield piece
        start += piece.num_rows


def _full_pieces(waiting: bytearray, exported: int) -> Iterator[ExportPiece]:
    """Take the full pieces from the front of what waits."""
    full = len(waiting) - len(waiting) % PIECE_BYTES_MAX
    for start in range(0, full, PIECE_BYTES_MAX):
        yield ExportPiece(bytes(waiting[start : start + PIECE_BYTES_MAX]), exported)
    del waiting[:full]
