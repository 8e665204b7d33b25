"""JSON lines: one event a line, in exactly the form of shared.events.document.

Invariants: every line is what to_document makes of the event, byte for byte; payloads stand in it as they were
logged, except that line breaks, which JSON allows between tokens only, become spaces.
"""

import numpy as np
import pyarrow as pa

from query_service.exporters.column_text import joined_bytes, json_lists, json_strings, timestamp_texts
from query_service.exporters.exporter import ExportContext, ExportFormat
from shared.columns.answers import event_ids
from shared.columns.arrow import StringArray
from shared.columns.bytes_view import value_offsets


class JsonExporter:
    """Writes JSON lines. Keeps nothing between calls."""

    def __init__(self, context: ExportContext) -> None:
        self._log_id = context.log_id

    def begin(self) -> bytes:
        """Nothing: every line stands for itself."""
        return b""

    def write(self, events: pa.RecordBatch) -> bytes:
        """Return a line for each event."""
        pieces = (
            *('{"id":"', event_ids(self._log_id, events["position"])),
            *('","timestamp":"', timestamp_texts(events["timestamp"])),
            *('","type":', json_strings(events["type"])),
            *(',"source":', json_strings(events["source"])),
            *(',"correlation_id":', json_strings(events["correlation_id"])),
            *(',"payload":', _one_line(events["payload"])),
            *(',"metadata":{"host":', json_strings(events["host"])),
            *(',"version":', json_strings(events["version"])),
            *(',"user":', json_strings(events["user"])),
            *(',"session_id":', json_strings(events["session_id"])),
            *(',"tags":', json_lists(events["tags"])),
            "}}\n",
        )
        return joined_bytes(*pieces)

    def end(self) -> bytes:
        """Nothing."""
        return b""


def _one_line(payloads: StringArray) -> StringArray:
    """Payloads with spaces for line breaks."""
    offsets = value_offsets(payloads)
    content = np.frombuffer(payloads.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    breaks = (content == ord("\n")) | (content == ord("\r"))
    if not breaks.any():
        return payloads
    spaced = np.where(breaks, np.uint8(ord(" ")), content)
    return pa.StringArray.from_buffers(len(payloads), pa.py_buffer(offsets - offsets[0]), pa.py_buffer(spaced.data))


JSON_LINES = ExportFormat("json", ".jsonl", "application/jsonl", JsonExporter)
