"""Small random logs made by the real writer and sealer, with damage, and the naive truth about them.

A log is drawn as a plan: segments of frames of events. Each segment but the last is rotated, and sealed or not;
some hold damage that nothing repairs. Constants of the engine that are sized for millions of events are made small,
so that a dozen events take as many steps as millions would.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from query_service import ascending_reading, descending_reading, matching, pace, reading, timestamp_reading
from shared.columns.schema import FRAME_SCHEMA
from shared.events.ids import format_event_id
from shared.log import segment_columns, tail_columns
from shared.log.file_system import LocalFileSystem
from shared.log.frame import HEADER_BYTES, EncodedFrame, Frame, encode_frame
from shared.log.names import SEGMENTS, list_segments
from shared.log.sealing import SealOrder, seal_segment
from shared.log.segment_scan import SEGMENT_HEADER_BYTES
from shared.log.types import Nanoseconds, Position
from tests.support.builders import open_writer
from tests.support.filter_strategies import LOG_ID, TEXTS, nanoseconds, payloads, texts

TYPES = ["a", "ab", "error.disk", "audit.read", "pipeline.started", "é"]
RETENTION = {"error": 365, "audit": 2555}
PROMOTED = ["a", "b", "b.a", '"é"']
Event = dict[str, Any]


@dataclass
class SegmentPlan:
    """Frames of events without positions; whether it is sealed, and which frame or retention class is destroyed.

    Of a sealed segment, 0 destroys its first frame before it is sealed, other numbers a file afterwards.
    """

    frames: list[list[Event]]
    sealed: bool
    damaged: int | None


@dataclass
class SmallLog:
    """A log on disk: all events that were written, by position, and the positions that cannot be read."""

    fs: LocalFileSystem
    events: list[Event] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)

    @property
    def last(self) -> int:
        """Committed position."""
        return len(self.events)

    def readable(self) -> list[Event]:
        """The events that are not damaged."""
        return [event for event in self.events if event["position"] not in self.damaged]


_optional = st.none() | st.sampled_from(TEXTS[:6])
_times = nanoseconds | st.integers(0, 5)
events = st.fixed_dictionaries(
    {
        "timestamp": _times,
        "type": st.sampled_from(TYPES),
        "source": texts,
        "correlation_id": _optional,
        "payload": payloads,
        "host": texts,
        "version": st.just("1"),
        "user": _optional,
        "session_id": _optional,
        "tags": st.lists(st.sampled_from(TEXTS[:6]), max_size=3),
    }
)
_frames = st.lists(st.lists(events, min_size=1, max_size=4), min_size=1, max_size=3)
_segments = st.builds(SegmentPlan, _frames, st.booleans(), st.none() | st.none() | st.integers(0, 2))
plans = st.lists(_segments, min_size=1, max_size=4)


def write_log(directory: Path, plan: Sequence[SegmentPlan]) -> SmallLog:
    """Write a log as planned. Frames of one segment have ascending times of recording."""
    log = SmallLog(LocalFileSystem(directory))
    firsts: list[list[int]] = []
    with_writer = open_writer(log.fs, new_log_id=LOG_ID)
    for number, segment in enumerate(plan):
        firsts.append([])
        for frame in segment.frames:
            firsts[-1].append(log.last + 1)
            with_writer.append(_frame(log, frame))
        if number < len(plan) - 1:
            with_writer.rotate()
    with_writer.close()
    for number, segment in enumerate(plan):
        end = firsts[number + 1][0] if number < len(plan) - 1 else log.last + 1
        sealed = segment.sealed and number < len(plan) - 1
        if segment.damaged is not None and not (sealed and segment.damaged):
            _destroy_frame(log, [*firsts[number], end], segment.damaged % len(segment.frames))
        if sealed:
            seal(log.fs, firsts[number][0], end)
            if segment.damaged:
                _destroy_class(log, firsts[number][0], segment.damaged)
    return log


def seal(fs: LocalFileSystem, first: int, end: int) -> None:
    """Seal the segment of positions [first, end)."""
    order = SealOrder(
        base_path="",
        log_id=LOG_ID,
        first=first,
        until=end,
        retention_default_s=90,
        retention_by_type_s=RETENTION,
        promoted_paths=PROMOTED,
        compress=True,
        write_index=True,
        hurry=True,
    )
    seal_segment(fs, order)


def _frame(log: SmallLog, rows: list[Event]) -> EncodedFrame:
    first = log.last + 1
    recorded_at = first * 10
    for row in rows:
        position = log.last + 1
        log.events.append(
            {"id": format_event_id(LOG_ID, position), "position": position, "recorded_at": recorded_at, **row}
        )
    batch = pa.RecordBatch.from_pylist(rows, schema=FRAME_SCHEMA)
    return encode_frame(Frame(Position(first), Nanoseconds(recorded_at), batch, ()))


def _destroy_class(log: SmallLog, first: int, which: int) -> None:
    """Destroy the rows of one sealed file beyond repair: its repair data goes, and a byte of its first column."""
    (segment,) = [each for each in list_segments(log.fs.list(SEGMENTS)) if each.first == first]
    name = segment.sealed[which % len(segment.sealed)]
    path = log.fs.path(name)
    metadata = pq.read_metadata(path)
    log.damaged |= set(pq.read_table(path, columns=["position"]).column("position").to_pylist())
    flip(path, metadata.row_group(0).column(0).data_page_offset)
    path.with_suffix(".par").unlink()


def _destroy_frame(log: SmallLog, firsts: list[int], which: int) -> None:
    """Destroy a byte in the body of one frame of a .log file."""
    path = log.fs.path(f"{SEGMENTS}/{firsts[0]:020d}.log")
    data = path.read_bytes()
    at = SEGMENT_HEADER_BYTES
    for _ in range(which):
        at += HEADER_BYTES + int.from_bytes(data[at + 20 : at + 24], "little")
    flip(path, at + HEADER_BYTES + 3)
    log.damaged |= set(range(firsts[which], firsts[which + 1]))


def flip(path: Path, offset: int) -> None:
    """Flip the bits of one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


@contextmanager
def small_steps() -> Iterator[None]:
    """Make steps, blocks and chunks so small that a dozen events are many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "ROWS_MIN", 2)
        patch.setattr(descending_reading, "ROWS_MIN", 2)
        patch.setattr(ascending_reading, "MERGED_ROWS", 3)
        patch.setattr(timestamp_reading, "ROWS_MIN", 2)
        patch.setattr(timestamp_reading, "_STEP_ROWS", 2)
        patch.setattr(pace, "FIRST_ROWS", 5)
        patch.setattr(pace, "CAUTIOUS_ROWS_PER_S", 1)
        patch.setattr(segment_columns, "CAREFUL_ROWS", 3)
        patch.setattr(segment_columns, "TAIL_ROWS", 5)
        patch.setattr(tail_columns, "BLOCK_ROWS", 4)
        patch.setattr(reading, "CHUNK_ROWS_MAX", 2)
        patch.setattr(matching, "_POSITIONS", 3)
        patch.setattr(matching, "_FEW_ROWS_MAX", 2)
        yield
