"""The committed position: what ingest promises to processes that read the log.

A small file, mapped into memory by the writer, with two slots written in turn; a reader takes the
newest slot whose checksum holds, so it never sees half of a promise.

Invariants: a published position is synced to disk before it is published, and never decreases. The
file itself is not synced: after a loss of power it may promise less than is on disk, never more.
It is derived: where it is missing or damaged, recovery finds the end of the log by itself.
"""

import struct
from dataclasses import dataclass

import google_crc32c

from shared.log.file_system import FileSystem
from shared.log.names import COMMITTED
from shared.log.types import Nanoseconds, Offset, Position

_SLOT_BYTES = 64
_FILE_BYTES = 2 * _SLOT_BYTES
_SLOT = struct.Struct("<Q8sQqQQ")
_CRC = struct.Struct("<I")
# A slot is torn only while it is being written, which takes microseconds.
_READ_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Committed:
    """What is synced: up to which position, and how far readers may read the active segment."""

    log_id: str
    position: Position
    recorded_at: Nanoseconds
    active_first: Position
    active_end: Offset


class CommittedPositionWriter:
    """Publishes the committed position. One thread may use it."""

    def __init__(self, fs: FileSystem) -> None:
        self._map = fs.map_shared(COMMITTED, _FILE_BYTES)
        newest = _newest_slot(bytes(self._map[:_FILE_BYTES]))
        self._sequence = newest[0] if newest else 0

    def publish(self, committed: Committed) -> None:
        """Promise. The bytes it speaks of must have been synced."""
        self._sequence += 1
        fields = _SLOT.pack(
            self._sequence,
            committed.log_id.encode("ascii"),
            committed.position,
            committed.recorded_at,
            committed.active_first,
            committed.active_end,
        )
        start = (self._sequence % 2) * _SLOT_BYTES
        slot = fields + _CRC.pack(google_crc32c.value(fields))
        self._map[start : start + len(slot)] = slot

    def close(self) -> None:
        """Unmap. Idempotent."""
        self._map.close()


def read_committed(fs: FileSystem) -> Committed | None:
    """What the writer promised last. None where the file is missing or damaged."""
    for _ in range(_READ_ATTEMPTS):
        try:
            data = fs.read(COMMITTED, 0, _FILE_BYTES)
        except FileNotFoundError:
            return None
        if newest := _newest_slot(data):
            return newest[1]
    return None


def _newest_slot(data: bytes) -> tuple[int, Committed] | None:
    newest = None
    for start in (0, _SLOT_BYTES):
        fields = data[start : start + _SLOT.size]
        if len(data) < start + _SLOT.size + _CRC.size:
            continue
        sequence, log_id, position, recorded_at, first, end = _SLOT.unpack(fields)
        if google_crc32c.value(fields) != _CRC.unpack_from(data, start + _SLOT.size)[0] or sequence == 0:
            continue
        if newest is None or sequence > newest[0]:
            committed = Committed(
                str(log_id, "ascii"), Position(position), Nanoseconds(recorded_at), Position(first), Offset(end)
            )
            newest = (sequence, committed)
    return newest
