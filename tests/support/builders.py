"""Small builders for tests of the log: events, frames, writers, and a reader that shows all there is."""

from dataclasses import dataclass, field

import pyarrow as pa

from shared.clock import Clock
from shared.columns.schema import FRAME_SCHEMA
from shared.errors import LogCorrupted, StorageUnavailable
from shared.log.committed_position import Committed, read_committed
from shared.log.file_system import FileSystem
from shared.log.frame import EncodedFrame, Frame, RequestMark, encode_frame
from shared.log.frame_index import FrameIndex
from shared.log.log_writer import LocalLogWriter, RotationLimits
from shared.log.names import SEGMENTS, list_segments
from shared.log.types import Nanoseconds, Position
from tests.support.fake_clock import START_NS, FakeClock

LOG_ID = "testlog1"
NEVER = RotationLimits(bytes_max=1 << 40, raw_bytes_max=1 << 40, age_max_s=1e9, events_max=1 << 40)


def event_batch(payloads: list[str]) -> pa.RecordBatch:
    """Events of FRAME_SCHEMA with the given payloads; every optional field is missing in every second one."""
    rows = [
        {
            "timestamp": START_NS + number,
            "type": "test.happened",
            "source": "tests",
            "correlation_id": f"chain-{number}" if number % 2 else None,
            "payload": payload,
            "host": "host-1",
            "version": "1.0.0",
            "user": "anna" if number % 2 else None,
            "session_id": None if number % 2 else "session-1",
            "tags": ["a", "b"][: number % 3],
        }
        for number, payload in enumerate(payloads)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=FRAME_SCHEMA)


def frame_of(
    first: int,
    payloads: list[str],
    *,
    recorded_at: int = START_NS,
    marks: tuple[RequestMark, ...] = (),
) -> EncodedFrame:
    """One frame, encoded, with the given payloads from position `first` on."""
    return encode_frame(Frame(Position(first), Nanoseconds(recorded_at), event_batch(payloads), marks))


def payload(text: str) -> str:
    """A payload that says a text."""
    return f'{{"text":"{text}"}}'


def numbered_frame(first: int, count: int, *, recorded_at: int = START_NS, word: str = "event") -> EncodedFrame:
    """One frame of `count` events; each says its own position, and the request id is the first's."""
    payloads = [payload(f"{word} {first + row}") for row in range(count)]
    return frame_of(first, payloads, recorded_at=recorded_at, marks=(RequestMark(f"{word}-{first}", 0, count),))


def open_writer(
    fs: FileSystem,
    clock: Clock | None = None,
    *,
    limits: RotationLimits = NEVER,
    free_bytes_min: int = 0,
    new_log_id: str = LOG_ID,
) -> LocalLogWriter:
    """A writer of the log in a file system, which rotates only when told unless limits say otherwise."""
    return LocalLogWriter(fs, clock or FakeClock(), limits=limits, free_bytes_min=free_bytes_min, new_log_id=new_log_id)


def append_until_well(writer: LocalLogWriter, frame: EncodedFrame, *, attempts: int = 20) -> int:
    """Append a frame as the group commit does: the same again until it is taken. Returns the failures."""
    for failures in range(attempts):
        try:
            writer.append(frame)
        except StorageUnavailable:
            continue
        return failures
    raise AssertionError(f"the frame was refused {attempts} times")


@dataclass
class Contents:
    """What a reader finds: payloads by position, and the positions that it is told are damaged."""

    events: dict[int, str] = field(default_factory=dict)
    damaged: list[tuple[int, int]] = field(default_factory=list)

    @property
    def damaged_positions(self) -> set[int]:
        """Every damaged position."""
        return {position for first, last in self.damaged for position in range(first, last + 1)}


def read_range(fs: FileSystem, from_position: int, until: int) -> Contents:
    """Read committed positions of [from_position, until) from .log segments as a reader in another process does."""
    committed = read_committed(fs)
    assert committed is not None
    return _read(fs, committed, from_position, min(until, committed.position + 1))


def read_all(fs: FileSystem) -> Contents:
    """Read all that is committed from .log segments as a reader in another process does."""
    return read_range(fs, 1, 1 << 62)


def _read(fs: FileSystem, committed: Committed, from_position: int, until: int) -> Contents:
    contents = Contents()
    segments = [segment for segment in list_segments(fs.list(SEGMENTS)) if segment.first <= committed.position]
    expected = from_position
    for number, segment in enumerate(segments):
        following = segments[number + 1].first if number + 1 < len(segments) else committed.position + 1
        stop = min(following, until)
        if expected >= stop:
            continue
        if expected < segment.first:
            contents.damaged.append((expected, segment.first - 1))
        assert segment.log is not None, "these tests do not seal"
        index = FrameIndex(fs, segment.log, segment.first)
        index.extend(committed.active_end if segment.first == committed.active_first else None)
        _read_segment(index, max(expected, segment.first), stop, contents)
        expected = stop
    if expected < until:
        contents.damaged.append((expected, until - 1))
    return contents


def _read_segment(index: FrameIndex, first: int, stop: int, contents: Contents) -> None:
    while first < stop:
        try:
            for batch in index.batches(Position(first), Position(stop)):
                for position, text in zip(
                    batch.column("position").to_pylist(), batch.column("payload").to_pylist(), strict=True
                ):
                    assert position == first, "positions come in order, each once"
                    contents.events[position] = str(text)
                    first = position + 1
        except LogCorrupted as error:
            last = int(error.metadata["last_position"])
            contents.damaged.append((int(error.metadata["first_position"]), last))
            first = last + 1
