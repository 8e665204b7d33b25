"""Parquet: the columns of recorded events, with the id in front; zstd inside.

Invariants: a row group holds at most GROUP_EVENTS_MAX events and about GROUP_BYTES_MAX bytes, and its bytes
leave when it is complete. What grows with the file is its footer only, by about 2 KB a row group.
"""

import io
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from query_service.exporters.exporter import ExportContext, ExportFormat
from shared.columns.answers import event_ids
from shared.columns.schema import EVENT_SCHEMA

GROUP_EVENTS_MAX = 65_536
GROUP_BYTES_MAX = 16 * 1024 * 1024
SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), *EVENT_SCHEMA])


class ParquetExporter:
    """Writes a Parquet file."""

    def __init__(self, context: ExportContext) -> None:
        self._log_id = context.log_id
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(
            cast("IO[bytes]", self._sink), SCHEMA, compression="zstd", data_page_version="1.0", write_page_checksum=True
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_events = self._waiting_bytes = 0

    def begin(self) -> bytes:
        """Return the magic bytes."""
        return self._sink.take()

    def write(self, events: pa.RecordBatch) -> bytes:
        """Take events; return the bytes of the row group that they complete, if any."""
        written = b""
        if self._waiting_events + events.num_rows > GROUP_EVENTS_MAX:
            written = self._write_group()
        columns = [event_ids(self._log_id, events["position"]), *events.columns]
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        self._waiting_events += events.num_rows
        self._waiting_bytes += events.nbytes
        return written + self._write_group() if self._waiting_bytes >= GROUP_BYTES_MAX else written

    def end(self) -> bytes:
        """Return the last row group and the footer."""
        last = self._write_group()
        self._writer.close()
        return last + self._sink.take()

    def _write_group(self) -> bytes:
        if self._waiting:
            group = pa.Table.from_batches(self._waiting)
            self._writer.write_table(group, row_group_size=group.num_rows)
        self._waiting = []
        self._waiting_events = self._waiting_bytes = 0
        return self._sink.take()


class _Sink(io.RawIOBase):
    """Where Arrow writes the file: keeps only what has not been taken yet."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        """Take bytes."""
        self._pieces.append(bytes(data))
        self._written += len(self._pieces[-1])
        return len(self._pieces[-1])

    def tell(self) -> int:
        """Bytes written so far, taken or not."""
        return self._written

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken = b"".join(self._pieces)
        self._pieces = []
        return taken


PARQUET = ExportFormat("parquet", ".parquet", "application/vnd.apache.parquet", ParquetExporter)
