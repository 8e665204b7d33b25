"""From a rotated .log to sealed files: by order, again after anything, and with nothing left out."""

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import msgspec
import pytest

from ingest_service.request_memory import RequestMemory, load_requests
from shared.columns.schema import EVENT_SCHEMA
from shared.errors import LogCorrupted
from shared.log.file_system import LocalFileSystem
from shared.log.frame import FrameDamaged, FrameHeader, _pack_header
from shared.log.index_sidecar import SidecarBuilder, build_sidecar
from shared.log.log_reader import LocalLogReader
from shared.log.names import COMMITTED, QUARANTINE, SEGMENTS, list_segments, log_name, requests_name
from shared.log.promoted_columns import Promoter
from shared.log.recovery import Recovered
from shared.log.request_file import read_request_file
from shared.log.sealed_reader import read_sealed
from shared.log.sealing import SealOrder, seal_segment
from shared.log.types import Nanoseconds, Position, PositionRange
from tests.support.builders import LOG_ID, frame_of, numbered_frame, open_writer, payload
from tests.support.fake_clock import START_NS
from tests.support.log_reading import read_events
from tests.support.memory_file_system import Keep, MemoryFileSystem, PowerLoss

_LOG = log_name(Position(1))


def _order(until: int = 10, *, write_index: bool = True, promoted: Sequence[str] = ()) -> SealOrder:
    return SealOrder(
        base_path="",
        log_id=LOG_ID,
        first=1,
        until=until,
        retention_default_s=1,
        retention_by_type_s={},
        promoted_paths=list(promoted),
        compress=True,
        write_index=write_index,
    )


def _log(frames: int = 3) -> MemoryFileSystem:
    """A log whose first segment is rotated and holds frames of three events; one frame is behind it."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    for first in range(1, 3 * frames, 3):
        writer.append(numbered_frame(first, 3))
    writer.rotate()
    writer.append(numbered_frame(3 * frames + 1, 1))
    writer.close()
    fs.kill()
    return fs


def _payloads(fs: MemoryFileSystem) -> list[str]:
    batches = read_events(LocalLogReader(fs))
    return [text for batch in batches for text in batch.column("payload").to_pylist()]


def _names(fs: MemoryFileSystem) -> list[str]:
    return [name.rpartition("/")[2] for name in fs.list(SEGMENTS)]


_PREFIX = f"{1:020d}-{9:020d}"
_ALL = [payload(f"event {position}") for position in range(1, 11)]


def test_a_segment_becomes_files_that_say_what_they_hold() -> None:
    """The .log is gone; events, index, repair data and request ids are there and synced."""
    fs = _log()
    seal_segment(fs, _order())
    assert _names(fs) == [
        f"{_PREFIX}.default.idx",
        f"{_PREFIX}.default.par",
        f"{_PREFIX}.default.parquet",
        f"{_PREFIX}.requests",
        f"{10:020d}.log",
    ]
    assert fs.is_durable()
    assert _payloads(fs) == _ALL
    assert fs.list(QUARANTINE) == []


def test_the_options_of_the_order_are_followed() -> None:
    """No index where it is switched off, and declared paths are promoted."""
    fs = _log()
    seal_segment(fs, _order(write_index=False, promoted=["text"]))
    assert not any(name.endswith(".idx") for name in _names(fs))
    metadata = read_sealed(fs, f"{SEGMENTS}/{_PREFIX}.default.parquet").metadata
    assert metadata is not None
    assert [column.path for column in metadata.promoted] == [("text",)]


def test_request_ids_survive() -> None:
    """A repeated request is recognised after sealing and a restart."""
    fs = _log()
    seal_segment(fs, _order())
    found = read_request_file(fs, requests_name(PositionRange(Position(1), Position(9))))
    assert [(each.request_id, each.first_position, each.count) for each in found] == [
        (f"event-{first}", first, 3) for first in (1, 4, 7)
    ]
    memory = RequestMemory(requests_max=10, horizon_s=3600)
    load_requests(memory, fs, Recovered(LOG_ID), now_s=0.0)
    assert memory.find("event-4", 3, {}) == (PositionRange(Position(4), Position(6)), START_NS)


def test_of_the_request_ids_only_the_newest_are_kept() -> None:
    """As many as ingest remembers: sealing holds no more either."""
    fs = _log()
    seal_segment(fs, msgspec.structs.replace(_order(), request_ids_max=2))
    found = read_request_file(fs, requests_name(PositionRange(Position(1), Position(9))))
    assert [each.first_position for each in found] == [4, 7]


_SEAL_AND_MEASURE = """
import re, sys
import msgspec
from shared.log.file_system import LocalFileSystem
from shared.log.sealing import SealOrder, seal_segment
from pathlib import Path
order = msgspec.json.decode(sys.argv[1], type=SealOrder)
seal_segment(LocalFileSystem(Path(order.base_path)), order)
# Not ru_maxrss, which begins with that of the process that started this one.
status = Path("/proc/self/status").read_text()
print(int(re.search("VmHWM:\\s+([0-9]+) kB", status)[1]) // 1024)
"""


def test_memory_is_bounded_however_well_the_events_compress(tmp_path: Path) -> None:
    """A segment of 800 MB before compression, which is small on disk, is sealed in less than 500 MB."""
    writer = open_writer(LocalFileSystem(tmp_path))
    for number in range(100):
        frame = frame_of(1 + 80 * number, [payload("x" * 100_000)] * 80)
        writer.append(frame)
    writer.rotate()
    writer.close()
    order = msgspec.structs.replace(_order(until=8001), base_path=str(tmp_path))
    command = [sys.executable, "-c", _SEAL_AND_MEASURE, msgspec.json.encode(order).decode()]
    peak_mb = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak_mb < 500
    assert [each.is_sealed for each in list_segments(LocalFileSystem(tmp_path).list(SEGMENTS))] == [True, False]


def test_sealing_again_does_nothing() -> None:
    """An order that was carried out is no error, nor is one for a segment that is not there."""
    fs = _log()
    seal_segment(fs, _order())
    before = fs.files()
    seal_segment(fs, _order())
    assert fs.files() == before


def _operations() -> int:
    fs = _log()
    before = fs.operations
    seal_segment(fs, _order())
    return fs.operations - before


_OPERATIONS = _operations()


def _finish(fs: MemoryFileSystem) -> None:
    """Seal again, as the next look at the directory orders it, and check that all is as it should be."""
    seal_segment(fs, _order())
    assert _payloads(fs) == _ALL
    assert not any(name.endswith(".tmp") for name in _names(fs))
    assert _LOG not in fs.list(SEGMENTS)
    whole = [name for name in _names(fs) if name.startswith(_PREFIX)]
    endings = [".default.idx", ".default.par", ".default.parquet", ".requests"]
    assert [name.removeprefix(_PREFIX) for name in whole] == endings


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what takes the time of sealing a small segment, and touches no disk."""
    index = build_sidecar(EVENT_SCHEMA.empty_table())
    monkeypatch.setattr(SidecarBuilder, "add", lambda *_: None)
    monkeypatch.setattr(SidecarBuilder, "finish", lambda _: index)
    monkeypatch.setattr(Promoter, "add", lambda *_: [])


@pytest.mark.parametrize("part", [0.0, 1.0])
@pytest.mark.usefixtures("_quick")
def test_any_operation_may_fail_and_sealing_again_ends_well(part: float) -> None:
    """Whichever operation fails, done or not done, no event is lost meanwhile nor afterwards."""
    for number in range(1, _OPERATIONS + 1):
        fs = _log()
        fs.fail_nth(number, part=part)
        with contextlib.suppress(OSError):
            seal_segment(fs, _order())
        fs.heal()
        assert _payloads(fs) == _ALL, f"operation {number}: {fs.trace[-1]}"
        _finish(fs)


@pytest.mark.parametrize("keep", ["nothing", "all", "random"])
@pytest.mark.usefixtures("_quick")
def test_the_power_may_go_at_any_operation(keep: Keep) -> None:
    """After a restart every event is readable, and sealing again ends as if nothing had happened."""
    for number in range(1, _OPERATIONS + 1):
        fs = _log()
        fs.lose_power_at(number)
        with pytest.raises(PowerLoss):
            seal_segment(fs, _order())
        after = fs.crash(keep, seed=number)
        open_writer(after).close()
        after.kill()
        assert _payloads(after)[:10] == _ALL, f"operation {number}: {fs.trace[-1]}"
        _finish(after)


@pytest.mark.parametrize("promise", ["kept", "lost"])
@pytest.mark.parametrize("keep", ["nothing", "all", "random"])
@pytest.mark.usefixtures("_quick")
def test_the_power_may_go_while_the_last_segment_is_sealed(keep: Keep, promise: str) -> None:
    """After a restart nothing follows it: every event stays, and the next position is the right one."""
    for number in range(1, _OPERATIONS + 1):
        fs = _log_of_one_segment()
        fs.lose_power_at(number)
        with contextlib.suppress(PowerLoss):
            seal_segment(fs, _order())
        after = fs.crash(keep, seed=number)
        if promise == "lost" and COMMITTED in after.files():
            after.delete(COMMITTED)
        writer = open_writer(after)
        assert (writer.last_position, writer.recovered.damage) == (9, [])
        assert _payloads(after) == _ALL[:9], f"operation {number}: {fs.trace[-1]}"
        writer.append(numbered_frame(10, 1))
        _finish(after)
        writer.close()


def _log_of_one_segment() -> MemoryFileSystem:
    """A log that was written by a process that ended, and opened by the next one."""
    fs = MemoryFileSystem()
    for _ in range(2):
        writer = open_writer(fs)
        for first in range(writer.last_position + 1, 10, 3):
            writer.append(numbered_frame(first, 3))
        writer.close()
        fs.kill()
    return fs


def _damage(fs: MemoryFileSystem, number: int) -> tuple[int, int]:
    """Flip a bit in the body of a frame. Returns where the frame begins and ends."""
    data = fs.files()[_LOG]
    starts = [at for at in range(len(data)) if data.startswith(b"EVFR", at)] + [len(data)]
    fs.flip(_LOG, starts[number] + 60)
    return starts[number], starts[number + 1]


@pytest.mark.parametrize(("number", "lost"), [(0, (1, 3)), (1, (4, 6)), (2, (7, 9))])
def test_damaged_frames_are_noted_and_their_bytes_kept(number: int, lost: tuple[int, int]) -> None:
    """The intact ones are sealed; the damaged .log is kept in quarantine, whole."""
    fs = _log()
    start, end = _damage(fs, number)
    damaged = fs.files()[_LOG]
    seal_segment(fs, _order())
    metadata = read_sealed(fs, f"{SEGMENTS}/{_PREFIX}.default.parquet").metadata
    assert metadata is not None
    assert [(each.positions.first, each.positions.last) for each in metadata.damage] == [lost]
    (kept,) = fs.list(QUARANTINE)
    assert fs.files()[kept] == damaged
    assert start < end <= len(damaged)
    assert fs.is_durable()
    assert _LOG not in fs.list(SEGMENTS)
    reader = LocalLogReader(fs)
    with pytest.raises(LogCorrupted):
        list(read_events(reader, lost[0], lost[0] + 1))
    found = read_request_file(fs, requests_name(PositionRange(Position(1), Position(9))))
    assert [each.first_position for each in found] == [first for first in (1, 4, 7) if first != lost[0]]


def test_a_segment_without_any_intact_frame_is_sealed_as_damage() -> None:
    """It does not stay for ever, and says what is lost."""
    fs = _log()
    fs.put(_LOG, b"x" * len(fs.files()[_LOG]))
    seal_segment(fs, _order())
    with pytest.raises(LogCorrupted) as caught:
        _payloads(fs)
    assert (caught.value.metadata["first_position"], caught.value.metadata["last_position"]) == ("1", "9")
    assert len(fs.list(QUARANTINE)) == 1


def test_frames_that_the_next_segment_holds_again_are_left_out() -> None:
    """A segment that was given up after a failed sync may end with what was appended anew."""
    fs = _log()
    given_up = fs.files()[_LOG] + b"".join(numbered_frame(10, 5, word="wrong").pieces) + b"EVFR half a frame"
    fs.put(_LOG, given_up)
    seal_segment(fs, _order())
    assert _payloads(fs) == _ALL
    assert fs.list(QUARANTINE) == []


def test_intact_bytes_that_are_no_events_keep_the_log_unsealed() -> None:
    """What cannot be explained is not removed."""
    fs = _log(1)
    body = b"not what a frame holds"
    header = FrameHeader(Position(4), 2, len(body), Nanoseconds(START_NS), 5, 2, google_crc32c.value(body))
    fs.put(_LOG, fs.files()[_LOG] + _pack_header(header) + body)
    before = fs.files()[_LOG]
    with pytest.raises(FrameDamaged):
        seal_segment(fs, _order(until=6))
    assert fs.files()[_LOG] == before
