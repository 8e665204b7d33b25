"""CSV: fixed columns of an event, its payload flattened, and the payload as JSON text.

    id, position, timestamp, recorded_at, type, source, correlation_id, metadata.host, metadata.version,
    metadata.user, metadata.session_id, metadata.tags, payload.*, …, payload

Invariants:
- The order of the columns never differs; payload columns are sorted by name. Which there are is decided by the
  first SAMPLE_EVENTS_MAX events of the file and the paths of its context, before the first row is written.
- Nothing is lost: the last column holds the whole payload, as it was logged but for white space in front of it.
- UTF-8 without a byte order mark, RFC 4180: CRLF, quotation marks where needed. Empty: null or missing; "": an
  empty text. No cell is taken for a formula (csv_cells).
"""

import pyarrow as pa

from query_service.exporters.column_text import json_lists, timestamp_texts
from query_service.exporters.csv_cells import cells, rows
from query_service.exporters.exporter import ExportContext, ExportFormat
from query_service.exporters.payload_columns import PayloadColumns, choose_columns
from shared.columns.answers import event_ids
from shared.columns.arrow import compute as pc

SAMPLE_EVENTS_MAX = 10_000
SAMPLE_BYTES_MAX = 16 * 1024 * 1024

_FIXED = (
    *("id", "position", "timestamp", "recorded_at", "type", "source", "correlation_id"),
    *("metadata.host", "metadata.version", "metadata.user", "metadata.session_id", "metadata.tags"),
)
_TEXTS = ("type", "source", "correlation_id", "host", "version", "user", "session_id")


class CsvExporter:
    """Writes a CSV file. Keeps the first events until it knows the columns."""

    def __init__(self, context: ExportContext) -> None:
        self._context = context
        self._sample: list[pa.RecordBatch] = []
        self._sample_events = self._sample_bytes = 0
        self._columns: PayloadColumns | None = None

    def begin(self) -> bytes:
        """Nothing yet: the header is written with the first rows."""
        return b""

    def write(self, events: pa.RecordBatch) -> bytes:
        """Return the rows of the events; nothing while the columns are not decided."""
        if self._columns is not None:
            return self._rows(events, self._columns)
        wanted = events.slice(0, SAMPLE_EVENTS_MAX - self._sample_events)
        self._sample.append(wanted)
        self._sample_events += wanted.num_rows
        self._sample_bytes += wanted.nbytes
        if self._sample_events < SAMPLE_EVENTS_MAX and self._sample_bytes < SAMPLE_BYTES_MAX:
            return b""
        rest = events.slice(wanted.num_rows)
        written = self._write_sample()
        return written + self.write(rest) if rest.num_rows else written

    def end(self) -> bytes:
        """Return the header and the rows of a short file that are still to be written."""
        written = self._write_sample() if self._columns is None else b""
        assert self._columns is not None
        self._columns.close()
        return written

    def _write_sample(self) -> bytes:
        """Decide the columns; return the header and the rows so far."""
        payloads = [events["payload"] for events in self._sample]
        self._columns = PayloadColumns(choose_columns(payloads, self._context.payload_paths))
        header = pa.array([*_FIXED, *self._columns.names, "payload"])
        written = [rows([cells(header.slice(number, 1)) for number in range(len(header))])]
        written += [self._rows(events, self._columns) for events in self._sample]
        self._sample = []
        return b"".join(written)

    def _rows(self, events: pa.RecordBatch, columns: PayloadColumns) -> bytes:
        columns_of_cells = [
            # What we write ourselves needs neither guard nor quotation marks.
            event_ids(self._context.log_id, events["position"]),
            events["position"].cast(pa.string()),
            timestamp_texts(events["timestamp"]),
            timestamp_texts(events["recorded_at"]),
            *(cells(events[name]) for name in _TEXTS),
            cells(json_lists(events["tags"])),
            *(cells(texts) for texts in columns.texts(events["payload"])),
            # With white space in front it might need a guard, and would be no JSON with it.
            cells(pc.ascii_ltrim(events["payload"], " \t\r\n")),
        ]
        return rows(columns_of_cells)


CSV = ExportFormat("csv", ".csv", "text/csv", CsvExporter)
