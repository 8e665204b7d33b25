"""The committed position: what ingest promises to processes that read the log.

A small file, mapped into memory by the writer, with two slots written one after the other; a reader
takes the newest slot whose checksum holds, so it never sees half of a promise, and damage of one slot
hides nothing.

Invariants: a published position is synced to disk before it is published, and never decreases. The
file itself is not synced: after a loss of power it may promise less than is on disk, never more.
It is derived: where it is missing or damaged, recovery finds the end of the log by itself, and a
writer that runs makes it anew.
"""

import contextlib
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
        """Open the file, or create it. Raises OSError."""
        self._fs = fs
        self._map = fs.map_shared(COMMITTED, _FILE_BYTES)
        newest = _newest_slot(bytes(self._map[:_FILE_BYTES]))
        self._sequence = newest[0] if newest else 0
        # What the file must hold; nothing before the first promise.
        self._content = b""

    def publish(self, committed: Committed) -> None:
        """Promise. The bytes it speaks of must have been synced.

        Where somebody removed or cut the file, readers see the promise after the next call of mend.
        """
        self._sequence += 1
        fields = _SLOT.pack(
            self._sequence,
            committed.log_id.encode("ascii"),
            committed.position,
            committed.recorded_at,
            committed.active_first,
            committed.active_end,
        )
        slot = (fields + _CRC.pack(google_crc32c.value(fields))).ljust(_SLOT_BYTES, b"\0")
        self._content = slot + slot
        self._write()

    def mend(self) -> bool:
        """Make the file anew where it is not what was published; returns whether it had to be. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if self._fs.read(COMMITTED) == self._content:
                return False
        mapped = self._fs.map_shared(COMMITTED, _FILE_BYTES)
        self._map.close()
        self._map = mapped
        self._write()
        return True

    def close(self) -> None:
        """Unmap. Idempotent."""
        self._map.close()

    def _write(self) -> None:
        # Touching a page of a map beyond the end of its file ends the process (SIGBUS).
        if self._map.size() < _FILE_BYTES:
            return
        # One after the other, so that one of them is whole at any time.
        for start in range(0, _FILE_BYTES, _SLOT_BYTES):
            self._map[start : start + _SLOT_BYTES] = self._content[start : start + _SLOT_BYTES]


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
