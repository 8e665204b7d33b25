"""The readers' side of the log: the seam that a distributed log implements too.

Invariants: nothing beyond the committed position is returned; events come in position order, each
once, whatever is rotated, sealed or removed meanwhile; a reader that comes to damage is told, never
led past it in silence.
"""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from shared.clock import Clock, SystemClock
from shared.errors import EventStorageException, PositionTrimmed
from shared.log.committed_position import Committed, read_committed
from shared.log.file_system import FileSystem
from shared.log.frame_index import FrameIndex, corrupted
from shared.log.missing_classes import lost_classes
from shared.log.names import SEGMENTS, SegmentFiles, list_segments
from shared.log.sealed_merge import SealedSegment
from shared.log.sealed_metadata import SealedClass
from shared.log.types import Damage, Position, PositionRange

# Sealed segments kept open: each holds its files' verified bytes.
_SEALED_OPEN_MAX = 4
_LOOKS_FOR_A_SEGMENT = 3
# A writer makes the committed position anew within a second or two after its file was removed. A reader
# that has never seen it waits for that, 3 seconds at most.
_PROMISE_ATTEMPTS = 150
_PROMISE_PAUSE_S = 0.02
_LOST = "a file of the segment is missing whose events were to be kept: restore it from a backup"


class LogReader(Protocol):
    """Reads a log. Several threads may use it."""

    def committed(self) -> Committed:
        """What is committed now. Raises EventStorageException (LOG_UNAVAILABLE) where there is no log."""

    def first_position(self) -> Position:
        """Oldest position kept; 1 for an empty log."""


@dataclass(frozen=True, slots=True)
class SegmentSpan:
    """A segment and the positions that belong to it: [files.first, until)."""

    files: SegmentFiles
    until: Position


class LocalLogReader:
    """A log in a directory of segments."""

    def __init__(self, fs: FileSystem, clock: Clock | None = None) -> None:
        """clock: tells which retention classes have expired; default: that of the system."""
        self._fs = fs
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._known: Committed | None = None
        self._indexes: dict[str, FrameIndex] = {}
        self._sealed: OrderedDict[tuple[str, ...], SealedSegment] = OrderedDict()

    def committed(self) -> Committed:
        """What is committed now. See LogReader.

        Where its file is gone or damaged, what was committed when it was last there: a promise holds for ever.
        """
        self._known = read_committed(self._fs) or self._known or self._await_promise()
        return self._known

    def _await_promise(self) -> Committed:
        pause = threading.Event()
        for _ in range(_PROMISE_ATTEMPTS if self._fs.list(SEGMENTS) else 0):
            pause.wait(_PROMISE_PAUSE_S)
            if (committed := read_committed(self._fs)) is not None:
                return committed
        raise EventStorageException(
            "there is no log here, or nobody writes it: start the ingest service on the same storage.base_path",
            reason="LOG_UNAVAILABLE",
        )

    def first_position(self) -> Position:
        """Oldest position kept. See LogReader."""
        segments = list_segments(self._fs.list(SEGMENTS))
        return segments[0].first if segments else Position(1)

    def segments(self, committed: Committed) -> list[SegmentSpan]:
        """The segments that hold committed positions, in order. Positions between two of them are in none."""
        files = [s for s in list_segments(self._fs.list(SEGMENTS)) if s.first <= committed.position]
        end = Position(committed.position + 1)
        return [
            SegmentSpan(segment, _until(segment, following.first if following else end))
            for segment, following in itertools.zip_longest(files, files[1:])
        ]

    def holes(self, committed: Committed) -> list[Damage]:
        """Committed positions that no segment holds, from the oldest segment on."""
        # Two listings: see span_of.
        once = self._holes(committed)
        return [hole for hole in self._holes(committed) if hole in once] if once else []

    def _holes(self, committed: Committed) -> list[Damage]:
        spans = self.segments(committed)
        begins = [*(span.files.first for span in spans), Position(committed.position + 1)]
        ends = [Position(1) if not spans else spans[0].files.first, *(span.until for span in spans)]
        return [_missing(end, begin - 1) for end, begin in zip(ends, begins, strict=True) if end < begin]

    def damage(self, span: SegmentSpan, committed: Committed) -> list[Damage]:
        """Positions of a segment that cannot be read. Raises FileNotFoundError where it changed meanwhile."""
        if span.files.is_sealed:
            return list(self.sealed_segment(span).damage)
        return self.frame_index(span, committed).damage(span.until)

    def span_of(self, position: Position, committed: Committed) -> SegmentSpan:
        """The segment that holds a committed position. Raises PositionTrimmed, LogCorrupted where there is none."""
        # A listing made while a segment is sealed may miss both what came and what went: look again.
        for _ in range(_LOOKS_FOR_A_SEGMENT):
            spans = self.segments(committed)
            for span in spans:
                if span.files.first <= position < span.until:
                    return span
        if spans and position < spans[0].files.first:
            raise _trimmed(spans[0].files.first)
        following = next((span.files.first for span in spans if span.files.first > position), committed.position + 1)
        raise corrupted(_missing(position, following - 1))

    def batches_of(
        self, span: SegmentSpan, from_position: Position, until: Position, committed: Committed
    ) -> Iterator[pa.RecordBatch]:
        """Events of one segment, in order. Raises as `read`, and FileNotFoundError where it changed meanwhile."""
        if not span.files.is_sealed:
            yield from self.frame_index(span, committed).batches(from_position, until)
            return
        yield from _readable(self.sealed_segment(span), from_position, until)

    def frame_index(self, span: SegmentSpan, committed: Committed) -> FrameIndex:
        """The frames of a segment that is not sealed, up to what is committed. Raises FileNotFoundError."""
        name = span.files.log
        assert name is not None
        with self._lock:
            index = self._indexes.setdefault(name, FrameIndex(self._fs, name, span.files.first))
            if len(self._indexes) > 1:
                present = set(self._fs.list(SEGMENTS))
                self._indexes = {known: i for known, i in self._indexes.items() if known in present or known == name}
        index.extend(committed.active_end if span.files.first == committed.active_first else None)
        return index

    def lacks_files(self, missing: Iterable[SealedClass]) -> bool:
        """Whether some of the missing classes of a segment were to be kept."""
        return bool(lost_classes(missing, now_ns=self._clock.now_ns()))

    def sealed_segment(self, span: SegmentSpan) -> SealedSegment:
        """A sealed segment, from memory if it was read lately. Raises FileNotFoundError."""
        files = span.files
        with self._lock:
            if (known := self._sealed.get(files.sealed)) is not None:
                self._sealed.move_to_end(files.sealed)
                return known
        opened = SealedSegment.open(self._fs, files.sealed)
        if self.lacks_files(opened.missing_classes):
            # Which of its positions they held cannot be told from what retention removed.
            opened = replace(opened, lost=(Damage(opened.positions, SEGMENTS, _LOST),))
        if opened.lost or any(file.damage for file in opened.files):
            # Not kept: once the file is restored, it is readable again.
            return opened
        with self._lock:
            self._sealed[files.sealed] = opened
            while len(self._sealed) > _SEALED_OPEN_MAX:
                self._sealed.popitem(last=False)
        return opened


def _until(segment: SegmentFiles, following: Position) -> Position:
    """First position after a segment: a sealed one says by its name where it ends."""
    if segment.log is not None or segment.sealed_last is None:
        return following
    return min(following, Position(segment.sealed_last + 1))


def _readable(segment: SealedSegment, from_position: Position, until: Position) -> Iterator[pa.RecordBatch]:
    """Events of a sealed segment. Raises LogCorrupted at a gap that damage made; skips one that retention made."""
    if not segment.damage:
        yield from segment.batches(from_position, until)
        return
    expected = from_position
    for batch in segment.batches(from_position, until):
        positions = batch.column("position").to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(positions) > 1) + 1).tolist(), len(positions)]
        for start, end in itertools.pairwise(starts):
            _raise_if_damaged(segment, expected, Position(int(positions[start]) - 1))
            yield batch.slice(start, end - start)
            expected = Position(int(positions[end - 1]) + 1)
    _raise_if_damaged(segment, expected, Position(until - 1))


def _raise_if_damaged(segment: SealedSegment, first: Position, last: Position) -> None:
    missing = PositionRange(first, last)
    for damage in segment.damage if missing.count > 0 else ():
        if damage.positions.overlaps(missing):
            raise corrupted(Damage(missing, damage.file, damage.problem))


def _trimmed(first: Position) -> PositionTrimmed:
    return PositionTrimmed(
        f"events before position {first} were removed by retention: read from there on", first_position=first
    )


def _missing(first: int, last: int) -> Damage:
    positions = PositionRange(Position(first), Position(last))
    return Damage(positions, SEGMENTS, "these positions were committed and no file holds them")
