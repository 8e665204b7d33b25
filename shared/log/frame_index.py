"""Which frame of a .log file holds a position, and its events.

Invariants: a frame is verified before it is indexed, and read no further than the caller says is
committed; events come out as EVENT_SCHEMA. Several threads may use one index.
"""

import threading
from bisect import bisect_right
from collections.abc import Container, Iterator

import numpy as np
import pyarrow as pa

from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.log.file_system import FileSystem
from shared.log.frame import Frame, FrameDamaged, FrameHeader, decode_frame, decode_header
from shared.log.segment_scan import SEGMENT_HEADER_BYTES, DamagedBytes, FrameLocation, scan_frames
from shared.log.types import Damage, Nanoseconds, Offset, Position, PositionRange

# Bytes read and verified at once while an index is made.
_CHUNK_BYTES = 64 * 1024 * 1024


def frame_events(frame: Frame) -> pa.RecordBatch:
    """The events of a frame with their positions and the time they were recorded, as EVENT_SCHEMA."""
    count = frame.events.num_rows
    positions = pa.array(np.arange(count, dtype=np.uint64) + np.uint64(frame.first_position))
    recorded_at = pa.repeat(pa.scalar(frame.recorded_at, EVENT_SCHEMA.field("recorded_at").type), count)
    return pa.RecordBatch.from_arrays([positions, recorded_at, *frame.events.columns], schema=EVENT_SCHEMA)


class FrameIndex:
    """The frames of one .log file, found as the file grows."""

    def __init__(self, fs: FileSystem, name: str, first: Position) -> None:
        self._fs = fs
        self.name = name
        self.first = first
        self._lock = threading.Lock()
        self._end = Offset(SEGMENT_HEADER_BYTES)
        self._frames: list[FrameLocation] = []
        self._firsts: list[Position] = []
        self._damaged: list[DamagedBytes] = []
        # Number of events in intact frames.
        self.events = 0

    @property
    def last_position(self) -> Position:
        """Last position indexed, first - 1 where there is none."""
        return self._frames[-1].header.positions.last if self._frames else Position(self.first - 1)

    def is_whole(self, until: Position) -> bool:
        """Whether every position below until is in an intact frame, as far as frames were looked at."""
        return self.last_position >= until - 1 and self.events == self.last_position - self.first + 1

    def headers(self, until: Position) -> list[FrameHeader]:
        """Headers of the intact frames that begin below until, in order."""
        return [frame.header for frame in self._frames if frame.header.first_position < until]

    def headers_from(self, number: int) -> list[FrameHeader]:
        """Headers of the intact frames but for the first `number`, in order."""
        return [frame.header for frame in self._frames[number:]]

    @property
    def recorded_at(self) -> tuple[Nanoseconds, Nanoseconds] | None:
        """When its first and its last event were recorded; None where there is none."""
        if not self._frames:
            return None
        return self._frames[0].header.recorded_at, self._frames[-1].header.recorded_at

    def extend(self, end: Offset | None) -> None:
        """Index what was appended since the last call, up to the committed end; None means the whole file.

        Raises OSError, FileNotFoundError where the segment was sealed meanwhile.
        """
        with self._lock:
            limit = self._fs.size(self.name) if end is None else end
            while self._end < limit:
                size = min(limit - self._end, _CHUNK_BYTES)
                found = self._scan(size)
                if not found and size < limit - self._end:
                    found = self._scan(limit - self._end)
                if not found:
                    return

    def _scan(self, size: int) -> bool:
        data = self._fs.read(self.name, self._end, size)
        scan = scan_frames(data, base=self._end, first=Position(self.last_position + 1))
        self.events += sum(frame.header.count for frame in scan.frames)
        self._frames += scan.frames
        self._firsts += [frame.header.first_position for frame in scan.frames]
        self._damaged += scan.damage
        self._end = scan.end
        return bool(scan.frames)

    def damage(self, until: Position) -> list[Damage]:
        """Positions below until that no intact frame holds."""
        found = []
        expected = self.first
        for frame in self._frames:
            if frame.header.first_position >= until:
                # A segment that was given up after a failed sync may hold frames that its successor holds again.
                break
            if frame.header.first_position > expected:
                found.append(self._damage(expected, Position(frame.header.first_position - 1)))
            expected = Position(frame.header.positions.last + 1)
        if expected < until:
            found.append(self._damage(expected, Position(until - 1)))
        return found

    def intact_frames(self, until: Position, firsts: Container[Position] | None = None) -> Iterator[bytes]:
        """Bytes of the intact frames that begin below until, in order, or of some by first position. Raises OSError."""
        for location in self._frames:
            first = location.header.first_position
            if first < until and (firsts is None or first in firsts):
                yield self._fs.read(self.name, location.offset, location.header.length)

    def frames(self, from_position: Position, until: Position) -> Iterator[Frame]:
        """Frames that hold positions of [from_position, until), in order.

        Raises LogCorrupted on reaching a position in the range that no intact frame holds, OSError.
        """
        expected = max(from_position, self.first)
        at = max(bisect_right(self._firsts, expected) - 1, 0)
        while expected < until:
            location = self._frames[at] if at < len(self._frames) else None
            if location is not None and location.header.positions.last < expected:
                at += 1
                continue
            if location is None or location.header.first_position > expected:
                last = location.header.first_position - 1 if location else until - 1
                raise corrupted(self._damage(expected, Position(last)))
            yield self._read(location)
            expected = Position(location.header.positions.last + 1)
            at += 1

    def batches(self, from_position: Position, until: Position) -> Iterator[pa.RecordBatch]:
        """Events with positions of [from_position, until), in order, as EVENT_SCHEMA. Raises as frames."""
        for frame in self.frames(from_position, until):
            events = frame_events(frame)
            skip = max(from_position - frame.first_position, 0)
            yield events.slice(skip, min(until - frame.first_position, events.num_rows) - skip)

    def _read(self, location: FrameLocation) -> Frame:
        data = self._fs.read(self.name, location.offset, location.header.length)
        try:
            frame = decode_frame(data)
        except FrameDamaged as error:
            raise corrupted(Damage(location.header.positions, self.name, str(error))) from error
        if decode_header(data) != location.header:
            raise corrupted(Damage(location.header.positions, self.name, "another frame lies where this one was"))
        return frame

    def _damage(self, first: Position, last: Position) -> Damage:
        return Damage(PositionRange(first, last), self.name, "no intact frame holds these positions")


def corrupted(damage: Damage) -> LogCorrupted:
    """The error for a reader that reaches damage."""
    positions = damage.positions
    return LogCorrupted(
        f"positions {positions.first} to {positions.last} are damaged in {damage.file}: {damage.problem}; "
        f"read on from position {positions.last + 1}",
        first_position=positions.first,
        last_position=positions.last,
    )
