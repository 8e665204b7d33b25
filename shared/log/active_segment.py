"""The segment that is appended to.

Invariants: its file appears with its header, synced, or not at all; only its creator appends to it;
a frame is appended and synced as one step; after any error the segment is poisoned and takes nothing
more, because after a failed sync nothing is known about its last bytes, whatever a later sync says.
"""

import contextlib

from shared.clock import Clock
from shared.errors import StorageUnavailable
from shared.log.file_system import AppendFile, FileSystem
from shared.log.frame import EncodedFrame
from shared.log.names import SEGMENTS, log_name, temporary_log_name
from shared.log.segment_scan import SEGMENT_HEADER_BYTES, encode_segment_header
from shared.log.types import Offset, Position


def create_segment_file(fs: FileSystem, *, log_id: str, first: Position) -> AppendFile:
    """Create a segment's file with its header; both and the directory entry are synced. Raises OSError.

    Replaces a file of the same name: the caller knows that nothing in it was promised.
    """
    temporary = temporary_log_name(first)
    with contextlib.suppress(FileNotFoundError):
        fs.remove(temporary)
    file = fs.create(temporary)
    try:
        file.append([encode_segment_header(log_id, first)])
        file.sync()
        fs.rename(temporary, log_name(first))
        fs.sync_directory(SEGMENTS)
    except BaseException:
        file.close()
        raise
    return file


class ActiveSegment:
    """A .log file that grows by frames. One thread may use it."""

    def __init__(self, file: AppendFile, clock: Clock, *, first: Position) -> None:
        self._file = file
        self._clock = clock
        self.first = first
        # Age is counted by the clock that does not jump.
        self._opened_s = clock.monotonic_s()
        self.end = Offset(SEGMENT_HEADER_BYTES)
        self.events = 0
        # Bytes of the frames' bodies before compression.
        self.raw_bytes = 0
        self.poisoned = False
        # How long the last sync took, in seconds.
        self.last_sync_s = 0.0

    @classmethod
    def create(cls, fs: FileSystem, clock: Clock, *, log_id: str, first: Position) -> "ActiveSegment":
        """Create it as create_segment_file does. Raises OSError."""
        return cls(create_segment_file(fs, log_id=log_id, first=first), clock, first=first)

    @property
    def name(self) -> str:
        """Name of the file."""
        return log_name(self.first)

    @property
    def age_s(self) -> float:
        """Seconds since it was opened."""
        return self._clock.monotonic_s() - self._opened_s

    def append(self, frame: EncodedFrame) -> None:
        """Append a frame and sync it. Raises StorageUnavailable; whatever is raised, the segment is poisoned."""
        assert not self.poisoned
        assert frame.header.first_position == self.first + self.events
        try:
            self._file.append(frame.pieces)
            started_s = self._clock.monotonic_s()
            self._file.sync()
            self.last_sync_s = self._clock.monotonic_s() - started_s
        except BaseException as error:
            self.poisoned = True
            self.close()
            if not isinstance(error, OSError):
                raise
            raise StorageUnavailable(f"cannot append to {self.name}: {error.strerror or error}") from error
        self.end = Offset(self.end + frame.header.length)
        self.events += frame.header.count
        self.raw_bytes += frame.header.raw_length

    def close(self) -> None:
        """Close the file; everything appended is synced already. Idempotent."""
        self._file.close()
