"""Any format, compressed as one zstd frame while it is written."""

import pyarrow as pa
import zstandard

from query_service.exporters.exporter import Exporter

_LEVEL = 3


class ZstdExporter:
    """Compresses what another exporter writes. The frame ends with a checksum of its content."""

    def __init__(self, inner: Exporter) -> None:
        self._inner = inner
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()

    def begin(self) -> bytes:
        """Return what stands before the first event."""
        return self._compressor.compress(self._inner.begin())

    def write(self, events: pa.RecordBatch) -> bytes:
        """Take the next events."""
        return self._compressor.compress(self._inner.write(events))

    def end(self) -> bytes:
        """Return the rest of the frame."""
        return self._compressor.compress(self._inner.end()) + self._compressor.flush()
