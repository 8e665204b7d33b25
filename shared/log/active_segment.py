"""The segment that is appended to.

Invariants: only its creator appends to it; a frame is appended and synced as one step; after any
error the segment is poisoned and takes nothing more, because after a failed sync nothing is known
about its last bytes, whatever a later sync says.
"""

from shared.clock import Clock
from shared.errors import StorageUnavailable
from shared.log.file_system import AppendFile, FileSystem
from shared.log.frame import EncodedFrame
from shared.log.names import SEGMENTS, log_name
from shared.log.segment_scan import SEGMENT_HEADER_BYTES, encode_segment_header
from shared.log.types import Nanoseconds, Offset, Position


class ActiveSegment:
    """A .log file that grows by frames. One thread may use it."""

    def __init__(self, file: AppendFile, clock: Clock, *, first: Position) -> None:
        self._file = file
        self._clock = clock
        self.first = first
        self.opened_at = Nanoseconds(clock.now_ns())
        self.end = Offset(SEGMENT_HEADER_BYTES)
        self.events = 0
        self.poisoned = False
        # How long the last sync took, in seconds.
        self.last_sync_s = 0.0

    @classmethod
    def create(cls, fs: FileSystem, clock: Clock, *, log_id: str, first: Position) -> "ActiveSegment":
        """Create the file and its directory entry, both synced. Raises OSError."""
        file = fs.create(log_name(first))
        try:
            file.append([encode_segment_header(log_id, first)])
            file.sync()
            fs.sync_directory(SEGMENTS)
        except OSError:
            file.close()
            raise
        return cls(file, clock, first=first)

    @property
    def name(self) -> str:
        """Name of the file."""
        return log_name(self.first)

    def append(self, frame: EncodedFrame) -> None:
        """Append a frame and sync it. Raises StorageUnavailable, and then the segment is poisoned."""
        assert not self.poisoned
        assert frame.header.first_position == self.first + self.events
        try:
            self._file.append(frame.pieces)
            started_s = self._clock.monotonic_s()
            self._file.sync()
            self.last_sync_s = self._clock.monotonic_s() - started_s
        except OSError as error:
            self.poisoned = True
            self.close()
            raise StorageUnavailable(f"cannot append to {self.name}: {error.strerror or error}") from error
        self.end = Offset(self.end + frame.header.length)
        self.events += frame.header.count

    def close(self) -> None:
        """Close the file; everything appended is synced already. Idempotent."""
        self._file.close()
