"""What a format is, and what writes one file in it. Formats of other packages implement this too."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ExportContext:
    """What an exporter is told of the events to come.

    log_id: the 8 characters that ids of events begin with, after "evt_". payload_paths: keys, from the
    payload's root down, that are known to be frequent; a hint, and never complete.
    """

    log_id: str
    payload_paths: tuple[tuple[str, ...], ...] = ()


class Exporter(Protocol):
    """Writes one file: `begin` once, `write` for each batch, `end` once. One thread at a time calls it.

    Each call gives the bytes that come next in the file, perhaps none. What an exporter keeps between calls
    must be bounded, whatever the number of events.
    """

    def begin(self) -> bytes:
        """Return what stands before the first event."""

    def write(self, events: pa.RecordBatch) -> bytes:
        """Take the next events: at least one, with EVENT_SCHEMA, at most as many as export_pieces cuts."""

    def end(self) -> bytes:
        """Return what is still missing of the file. Nothing is called after it."""


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format that events can be exported in.

    name: what a request says, lower case. file_ending: with its dot. open: makes the exporter of one file.
    """

    name: str
    file_ending: str
    media_type: str
    open: Callable[[ExportContext], Exporter]
