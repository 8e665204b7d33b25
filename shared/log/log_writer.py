"""The writer's side of the log: the seam that a distributed log implements too.

Invariants: one writer a directory; frames are appended in position order and without a gap; what
append returns from is synced; the committed position is published only after that; a frame that
failed is appended again by the caller, to a new segment, before any other.
"""

from dataclasses import dataclass
from typing import Protocol

from shared.clock import Clock
from shared.errors import LogLocked, StorageUnavailable
from shared.log.active_segment import ActiveSegment
from shared.log.committed_position import Committed, CommittedPositionWriter
from shared.log.file_system import FileSystem
from shared.log.frame import EncodedFrame
from shared.log.names import COMMITTED, LOCK, QUARANTINE, SEGMENTS
from shared.log.recovery import Recovered, recover
from shared.log.segment_scan import SEGMENT_HEADER_BYTES
from shared.log.types import Nanoseconds, Offset, Position

# Looking at the disk costs system calls; it does not change faster than this matters.
_DISK_CHECK_S = 0.25


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """When the active segment is closed: whichever comes first. Raw bytes are those before compression."""

    bytes_max: int
    raw_bytes_max: int
    age_max_s: float
    events_max: int


class LogWriter(Protocol):
    """Appends frames to a log. One thread may use it."""

    log_id: str
    last_position: Position

    def append(self, frame: EncodedFrame) -> None:
        """Return when the frame is synced and readers may see it.

        Raises StorageUnavailable where it is not: append the same frame again later, before any other.
        """

    def rotate(self) -> bool:
        """Close the active segment and open the next; False if it is empty. Raises StorageUnavailable."""

    def close(self) -> None:
        """Give the log back. Idempotent."""


class LocalLogWriter:
    """A log in a directory of segments."""

    def __init__(
        self,
        fs: FileSystem,
        clock: Clock,
        *,
        limits: RotationLimits,
        free_bytes_min: int,
        new_log_id: str,
    ) -> None:
        """Lock the directory and recover it.

        Raises LogLocked where another process writes the log, OSError, UnsupportedFormat.
        """
        self._fs = fs
        self._clock = clock
        self._limits = limits
        self._free_bytes_min = free_bytes_min
        self._disk_checked_s = float("-inf")
        for directory in (SEGMENTS, QUARANTINE, "."):
            fs.sync_directory(directory)
        try:
            self._lock = fs.lock(LOCK)
        except BlockingIOError as error:
            raise LogLocked(f"the log is written by {error}: stop that process, or use another directory") from None
        try:
            self.recovered: Recovered = recover(fs, new_log_id=new_log_id)
            self.log_id = self.recovered.log_id
            self.last_position = self.recovered.last_position
            self._committed = CommittedPositionWriter(fs)
        except BaseException:
            self._lock.release()
            raise
        self._active: ActiveSegment | None = None
        # How long the last sync of a frame took, in seconds.
        self.last_sync_s = 0.0
        self._publish(self.recovered.last_recorded_at)

    @property
    def active(self) -> ActiveSegment | None:
        """The segment that is appended to; None before the first append and after a failed one."""
        return self._active

    def append(self, frame: EncodedFrame) -> None:
        """Append, sync, publish. See LogWriter."""
        header = frame.header
        assert header.first_position == self.last_position + 1
        self._check_disk()
        if self._active is not None and self._is_full(self._active, frame):
            self._close_active()
        active = self._active or self._open_segment()
        try:
            active.append(frame)
        except BaseException:
            self._active = None
            raise
        self.last_sync_s = active.last_sync_s
        self.last_position = header.positions.last
        self._publish(header.recorded_at)

    def rotate(self) -> bool:
        """Close the active segment and open the next. See LogWriter."""
        if self._active is None or self._active.events == 0:
            return False
        self._close_active()
        self._open_segment()
        return True

    def tend(self) -> None:
        """Do what is due although nothing is appended; to be called about once a second.

        Makes the committed position anew where its file was removed or damaged, and rotates an old
        segment. Raises StorageUnavailable.
        """
        self._mend_committed()
        self.rotate_if_old()

    def rotate_if_old(self) -> bool:
        """Rotate if the active segment holds events and is older than the limit. Raises StorageUnavailable."""
        active = self._active
        if active is None or active.age_s <= self._limits.age_max_s:
            return False
        return self.rotate()

    def close(self) -> None:
        """Close all files and release the lock. Idempotent."""
        if self._active is not None:
            self._active.close()
            self._active = None
        self._committed.close()
        self._lock.release()

    def _is_full(self, active: ActiveSegment, frame: EncodedFrame) -> bool:
        if active.events == 0:
            return False
        return (
            active.end + frame.header.length > self._limits.bytes_max
            or active.raw_bytes + frame.header.raw_length > self._limits.raw_bytes_max
            or active.events + frame.header.count > self._limits.events_max
            or active.age_s > self._limits.age_max_s
        )

    def _close_active(self) -> None:
        assert self._active is not None
        self._active.close()
        self._active = None

    def _open_segment(self) -> ActiveSegment:
        first = Position(self.last_position + 1)
        try:
            active = ActiveSegment.create(self._fs, self._clock, log_id=self.log_id, first=first)
        except OSError as error:
            raise StorageUnavailable(f"cannot open a new segment: {error.strerror or error}") from error
        self._active = active
        self._publish(self._recorded_at)
        return active

    def _publish(self, recorded_at: Nanoseconds) -> None:
        self._recorded_at = recorded_at
        active = self._active
        self._committed.publish(
            Committed(
                log_id=self.log_id,
                position=self.last_position,
                recorded_at=recorded_at,
                active_first=active.first if active else Position(self.last_position + 1),
                active_end=active.end if active else Offset(SEGMENT_HEADER_BYTES),
            )
        )

    def _check_disk(self) -> None:
        """Raise StorageUnavailable where no frame is to be written: readers would not see it, or too little is free."""
        now_s = self._clock.monotonic_s()
        if now_s - self._disk_checked_s < _DISK_CHECK_S:
            return
        self._mend_committed()
        self._check_free_space()
        self._disk_checked_s = now_s

    def _mend_committed(self) -> None:
        try:
            self._committed.mend()
        except OSError as error:
            problem = f"cannot make the file {COMMITTED} anew, by which readers know what they may read"
            raise StorageUnavailable(f"{problem}: {error.strerror or error}") from error

    def _check_free_space(self) -> None:
        try:
            free = self._fs.free_bytes()
        except OSError as error:
            raise StorageUnavailable(f"cannot tell how much space is free: {error.strerror or error}") from error
        if free < self._free_bytes_min:
            raise StorageUnavailable(
                f"{free} bytes are free and {self._free_bytes_min} are kept in reserve (storage.min_free_bytes): "
                "free some space, or archive or remove segments",
                storage="full",
            )
