"""An export format as a package of somebody else would bring it: docs/export-formats.md."""

import pyarrow as pa

from query_service.exporters import ExportContext, ExportFormat


class TypesExporter:
    """The type of each event, a line each."""

    def __init__(self, context: ExportContext) -> None:
        self._log_id = context.log_id

    def begin(self) -> bytes:
        """The head."""
        return f"# log {self._log_id}\n".encode()

    def write(self, events: pa.RecordBatch) -> bytes:
        """A line for each event."""
        return b"".join(kind.encode() + b"\n" for kind in events["type"].to_pylist())

    def end(self) -> bytes:
        """The foot."""
        return b"# end\n"


TYPES = ExportFormat("types", ".txt", "text/plain", TypesExporter)
NO_FORMAT = "types"
