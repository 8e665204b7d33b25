"""Export formats: recorded events as the bytes of a file, streamed in bounded memory.

    formats = ExportFormats()
    exporter = formats.exporter("csv", ExportContext(log_id), zstd=True)
    for piece in export_pieces(exporter, batches):
        ...

Built in are JSON lines, CSV and Parquet; others come as entry points of the group `eventlog.exporters`
(docs/export-formats.md).
"""

from query_service.exporters.exporter import ExportContext, Exporter, ExportFormat
from query_service.exporters.pieces import ExportPiece, export_pieces
from query_service.exporters.registry import ExportFormats

__all__ = ["ExportContext", "ExportFormat", "ExportFormats", "ExportPiece", "Exporter", "export_pieces"]
