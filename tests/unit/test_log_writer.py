"""The writer of the log: rotation, retries, the lock, and when it refuses."""

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shared.errors import LogLocked, StorageUnavailable
from shared.log.committed_position import read_committed
from shared.log.file_system import LocalFileSystem
from shared.log.log_writer import RotationLimits
from shared.log.names import SEGMENTS, log_name
from shared.log.segment_scan import decode_segment_header
from shared.log.types import Position
from tests.support.builders import (
    LOG_ID,
    NEVER,
    append_until_well,
    frame_of,
    numbered_frame,
    open_writer,
    payload,
    read_all,
)
from tests.support.fake_clock import FakeClock
from tests.support.memory_file_system import MemoryFileSystem, no_space

HOUR_S = 3600.0
YEAR_S = 365 * 24 * HOUR_S


def limits(**changes: float) -> RotationLimits:
    return replace(NEVER, **changes)


def segments(fs) -> list[int]:
    """First positions of the segments in a file system."""
    return [int(name[-24:-4]) for name in fs.list(SEGMENTS) if name.endswith(".log")]


def append(writer, count: int, clock: FakeClock | None = None) -> None:
    """Append a frame of `count` events as ingest builds it: its time never decreases."""
    recorded_at = max(clock.now_ns(), read_committed(writer._fs).recorded_at) if clock else 0
    writer.append(numbered_frame(writer.last_position + 1, count, recorded_at=recorded_at))


def assert_holds(fs, last: int) -> None:
    """The log holds exactly the events up to a position."""
    found = read_all(fs)
    assert found.damaged == []
    assert found.events == {position: payload_of(found, position) for position in range(1, last + 1)}


def payload_of(found, position: int) -> str:
    """What the event at a position must say, whichever frame it came with."""
    text = found.events[position]
    assert text == payload(f"event {position}")
    return text


def test_new_log_begins_empty_and_named():
    """A new directory becomes a log with the given id, nothing in it, and readers are told so."""
    fs = MemoryFileSystem()
    writer = open_writer(fs, new_log_id="abcdefgh")
    assert (writer.log_id, writer.last_position, writer.active) == ("abcdefgh", 0, None)
    committed = read_committed(fs)
    assert committed is not None
    assert (committed.log_id, committed.position) == ("abcdefgh", 0)
    writer.close()
    again = open_writer(fs, new_log_id="other678")
    assert again.log_id == "abcdefgh"


def test_append_is_synced_and_published_when_it_returns():
    """What append returns from survives the loss of power, and readers may see it."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    append(writer, 3)
    assert_holds(fs, 3)
    append(writer, 2)
    assert_holds(fs, 5)
    assert fs.is_durable()
    reopened = open_writer(fs.crash("nothing"))
    assert reopened.last_position == 5


def test_append_out_of_turn_is_our_own_bug():
    """Positions have no gap: a frame at any other position is refused before anything is written."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    append(writer, 2)
    before = fs.files()
    for first in (2, 4):
        with pytest.raises(AssertionError):
            writer.append(numbered_frame(first, 1))
    assert fs.files() == before


def test_rotation_by_size():
    """No segment grows beyond the limit, and each begins where the one before ended."""
    fs = MemoryFileSystem()
    writer = open_writer(fs, limits=limits(bytes_max=2000))
    for _ in range(12):
        append(writer, 2)
    firsts = segments(fs)
    assert len(firsts) > 2
    for first in firsts:
        assert fs.size(log_name(Position(first))) <= 2000
        assert decode_segment_header(fs.read(log_name(Position(first)))) == LOG_ID
    assert_holds(fs, 24)


def test_rotation_by_count():
    """A frame that would bring a segment above its number of events begins the next."""
    fs = MemoryFileSystem()
    writer = open_writer(fs, limits=limits(events_max=5))
    for count in (2, 3, 1, 5, 4, 1, 1):
        append(writer, count)
    assert segments(fs) == [1, 6, 7, 12, 17]
    assert_holds(fs, 17)


def test_frame_above_the_limits_has_a_segment_of_its_own():
    """A frame never spans segments: one above every limit is written whole, alone."""
    fs = MemoryFileSystem()
    writer = open_writer(fs, limits=limits(events_max=2, bytes_max=100))
    for count in (3, 1, 4):
        append(writer, count)
    assert segments(fs) == [1, 4, 5]
    assert_holds(fs, 8)


def test_rotation_by_raw_size():
    """A segment whose events take more than the limit before compression is closed, however small its file."""
    fs = MemoryFileSystem()
    one = frame_of(1, ["x" * 100_000])
    assert one.header.length < 1000
    assert one.header.raw_length > 100_000
    writer = open_writer(fs, limits=limits(raw_bytes_max=2 * one.header.raw_length))
    for first in range(1, 6):
        writer.append(frame_of(first, ["x" * 100_000]))
    assert segments(fs) == [1, 3, 5]
    writer.append(frame_of(6, ["x" * 500_000]))
    writer.append(numbered_frame(7, 1))
    assert segments(fs) == [1, 3, 5, 6, 7]


def test_rotation_by_age():
    """A segment older than the limit is closed by the next frame, or without one by rotate_if_old."""
    fs, clock = MemoryFileSystem(), FakeClock()
    writer = open_writer(fs, clock, limits=limits(age_max_s=HOUR_S))
    append(writer, 1, clock)
    clock.advance(HOUR_S - 1)
    append(writer, 1, clock)
    assert not writer.rotate_if_old()
    clock.advance(2)
    append(writer, 1, clock)
    assert segments(fs) == [1, 3]
    clock.advance(HOUR_S + 1)
    assert writer.rotate_if_old()
    assert segments(fs) == [1, 3, 4]
    clock.advance(HOUR_S + 1)
    assert not writer.rotate_if_old(), "an empty segment is not rotated"
    assert_holds(fs, 3)


@pytest.mark.parametrize("jumps", [(-HOUR_S,), (YEAR_S,), (YEAR_S, -YEAR_S), (-HOUR_S, HOUR_S), (YEAR_S, -2 * YEAR_S)])
def test_clock_jumps_rotate_nothing(jumps):
    """A clock set forward or back, and back again, neither rotates at each frame nor stops rotation by age."""
    fs, clock = MemoryFileSystem(), FakeClock()
    writer = open_writer(fs, clock, limits=limits(age_max_s=10 * HOUR_S))
    for jump in jumps:
        append(writer, 1, clock)
        clock.jump(jump)
        for _ in range(5):
            clock.advance(60)
            append(writer, 1, clock)
            assert not writer.rotate_if_old()
    assert len(segments(fs)) <= 1 + len(jumps)
    before = len(segments(fs))
    clock.advance(11 * HOUR_S)
    append(writer, 1, clock)
    assert len(segments(fs)) == before + 1
    for _ in range(5):
        append(writer, 1, clock)
    assert len(segments(fs)) == before + 1
    assert_holds(fs, writer.last_position)


def test_rotate_closes_a_segment_with_events_only():
    """Rotating gives a new empty segment once; a second rotation has nothing to close."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    assert not writer.rotate()
    append(writer, 2)
    assert writer.rotate()
    assert not writer.rotate()
    assert segments(fs) == [1, 3]
    append(writer, 1)
    assert segments(fs) == [1, 3]
    writer.close()
    writer = open_writer(fs)
    append(writer, 1)
    assert_holds(fs, 4)


def test_failed_append_is_taken_again_in_a_new_segment():
    """After a failed write or sync the segment is given up, and the same frame goes to a new one."""
    for operation in ("append", "sync"):
        for part in (0.0, 0.5, 1.0):
            fs = MemoryFileSystem()
            writer = open_writer(fs)
            append(writer, 2)
            fs.fail_next(operation, no_space(), part=part)
            frame = numbered_frame(3, 2)
            with pytest.raises(StorageUnavailable, match=r"cannot append to segments/0+1\.log: No space"):
                writer.append(frame)
            assert (writer.last_position, writer.active) == (2, None)
            assert_holds(fs, 2)
            given_up = fs.read(log_name(Position(1)))
            writer.append(frame)
            append(writer, 1)
            assert segments(fs) == [1, 3]
            assert fs.read(log_name(Position(1))) == given_up, "nothing is appended to a segment given up"
            assert_holds(fs, 5)


def test_append_that_ends_in_any_other_error_gives_the_segment_up():
    """Whatever is raised while bytes are written leaves a file that nobody appends to again."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    append(writer, 2)
    frame = numbered_frame(3, 2)
    fs.fail_next("append", MemoryError(), part=0.5)
    with pytest.raises(MemoryError):
        writer.append(frame)
    writer.append(frame)
    append(writer, 1)
    assert_holds(fs, 5)
    assert open_writer(fs.crash("nothing")).last_position == 5


def test_first_frame_failing_again_and_again_leaves_one_segment():
    """However often the first frame of a segment fails, its name is used again and nothing piles up."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    append(writer, 1)
    writer.rotate()
    for _ in range(5):
        fs.fail_next("sync")
    assert append_until_well(writer, numbered_frame(2, 2)) >= 3
    assert segments(fs) == [1, 2]
    assert_holds(fs, 3)


def test_rotation_that_fails_costs_nothing():
    """Where the new segment cannot be made, rotate says so, and the next append makes it."""
    for operation in ("create", "append", "sync", "sync_directory"):
        fs = MemoryFileSystem()
        writer = open_writer(fs)
        append(writer, 2)
        fs.fail_next(operation)
        with pytest.raises(StorageUnavailable, match="cannot open a new segment"):
            writer.rotate()
        assert_holds(fs, 2)
        append(writer, 1)
        assert_holds(fs, 3)
        assert segments(fs) == [1, 3]


def test_reserve_of_free_space_is_kept():
    """Below the reserve nothing is written, the message says what to do, and room made is used at once."""
    fs, clock = MemoryFileSystem(), FakeClock()
    writer = open_writer(fs, clock, free_bytes_min=1000)
    append(writer, 1)
    fs.free = 999
    clock.advance(1)
    with pytest.raises(StorageUnavailable, match="999 bytes are free and 1000 are kept in reserve") as caught:
        append(writer, 1)
    assert caught.value.metadata["storage"] == "full"
    fs.free = 1000
    append(writer, 1)
    fs.fail_next("free_bytes")
    clock.advance(1)
    with pytest.raises(StorageUnavailable, match="how much space"):
        append(writer, 1)
    append(writer, 1)
    assert_holds(fs, 3)


def test_second_writer_is_refused_and_told_who_holds_the_log():
    """Two writers of one directory cannot be: the second fails with the holder's name and changes nothing."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    append(writer, 1)
    before = fs.files()
    with pytest.raises(LogLocked, match="written by process 1 on memory: stop that process"):
        open_writer(fs)
    assert fs.files() == before
    append(writer, 1)
    writer.close()
    writer.close()
    assert open_writer(fs).last_position == 2


def test_writer_that_cannot_recover_gives_the_lock_back():
    """A failed start does not keep the next one from starting."""
    fs = MemoryFileSystem()
    fs.fail_next("map_shared", OSError(errno.EACCES, "Permission denied"))
    with pytest.raises(OSError, match="Permission denied"):
        open_writer(fs)
    open_writer(fs)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_killed_writer_leaves_the_log_free(tmp_path, end):
    """While another process writes, it is named; once it is killed, its log opens with all it had acknowledged."""
    code = (
        "import sys, time; from pathlib import Path; from shared.log.file_system import LocalFileSystem\n"
        "from tests.support.builders import numbered_frame, open_writer\n"
        "writer = open_writer(LocalFileSystem(Path(sys.argv[1])))\n"
        "writer.append(numbered_frame(1, 4))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            fs = LocalFileSystem(tmp_path)
            with pytest.raises(LogLocked, match=f"process {process.pid} on {os.uname().nodename}"):
                open_writer(fs)
        finally:
            process.send_signal(end)
            process.wait()
    writer = open_writer(fs)
    assert writer.last_position == 4
    append(writer, 1)
    assert_holds(fs, 5)
    writer.close()
