"""What ingest promises to other processes."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.log.committed_position import Committed, CommittedPositionWriter, read_committed
from shared.log.file_system import LocalFileSystem
from shared.log.names import COMMITTED
from shared.log.types import Nanoseconds, Offset, Position
from tests.support.builders import LOG_ID, append_until_well, numbered_frame, open_writer, read_all
from tests.support.fake_clock import FakeClock
from tests.support.memory_file_system import MemoryFileSystem


def promise(position: int) -> Committed:
    return Committed(LOG_ID, Position(position), Nanoseconds(position * 10), Position(1), Offset(32 + position))


def test_reader_gets_the_newest_promise():
    """What was published last is what is read, in this process and through the file."""
    fs = MemoryFileSystem()
    writer = CommittedPositionWriter(fs)
    assert read_committed(fs) is None
    for position in range(1, 6):
        writer.publish(promise(position))
        assert read_committed(fs) == promise(position)
    writer.close()
    writer.close()
    assert read_committed(fs) == promise(5)


def test_promise_goes_on_after_a_restart():
    """A new writer writes over the older slot first, so that the newest promise is never lost."""
    fs = MemoryFileSystem()
    for position in range(1, 8):
        writer = CommittedPositionWriter(fs)
        writer.publish(promise(position))
        writer.close()
        assert read_committed(fs) == promise(position)


def test_missing_file_promises_nothing():
    """Without the file there is no promise and no error."""
    assert read_committed(MemoryFileSystem()) is None


def test_every_torn_slot_falls_back_to_the_older_promise():
    """However much of a promise has been written, a reader sees the one before or the new one."""
    fs = MemoryFileSystem()
    writer = CommittedPositionWriter(fs)
    writer.publish(promise(1))
    writer.publish(promise(2))
    before = fs.read(COMMITTED)
    writer.publish(promise(3))
    after = fs.read(COMMITTED)
    writer.close()
    for torn in range(len(before) + 1):
        fs.put(COMMITTED, after[:torn] + before[torn:])
        assert read_committed(fs) in (promise(2), promise(3))


def test_no_flipped_bit_hides_a_promise():
    """Rot in one slot changes nothing: the other one says the same."""
    fs = MemoryFileSystem()
    writer = CommittedPositionWriter(fs)
    for position in (4, 5):
        writer.publish(promise(position))
    writer.close()
    data = fs.read(COMMITTED)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        fs.put(COMMITTED, bytes(damaged))
        assert read_committed(fs) == promise(5)
        assert CommittedPositionWriter(fs) is not None


@pytest.mark.parametrize("content", [b"", b"\0" * 128, b"\xff" * 128, b"short", b"\0" * 1000])
def test_senseless_file_promises_nothing(content):
    """A file of any other content is no promise, and a writer goes on from it."""
    fs = MemoryFileSystem()
    fs.put(COMMITTED, content)
    assert read_committed(fs) is None
    writer = CommittedPositionWriter(fs)
    writer.publish(promise(9))
    writer.close()
    assert read_committed(fs) == promise(9)


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 3)


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x" * 128)


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"x" * 128)
    other.rename(path)


SPOIL = [_remove, _empty, _cut, _lengthen, _overwrite, _replace]


@pytest.mark.parametrize("spoil", SPOIL)
@pytest.mark.parametrize("publish_first", [True, False])
def test_writer_makes_a_spoiled_file_anew(tmp_path, spoil, publish_first):
    """Removed, cut, overwritten or replaced while it is mapped: the writer lives on, and readers see its promises."""
    fs = LocalFileSystem(tmp_path)
    writer = CommittedPositionWriter(fs)
    for position in range(1, 4):
        writer.publish(promise(position))
    assert not writer.mend()
    spoil(fs.path(COMMITTED))
    if publish_first:
        writer.publish(promise(4))
    writer.mend()
    assert read_committed(fs) == promise(4 if publish_first else 3)
    assert not writer.mend()
    writer.publish(promise(5))
    writer.close()
    assert read_committed(fs) == promise(5)
    assert fs.size(COMMITTED) == 128


@pytest.mark.parametrize("operation", ["read", "map_shared"])
def test_file_that_cannot_be_made_anew_is_an_error_and_tried_again(operation):
    """A failing disk is told to the caller; the next attempt succeeds, and no promise is lost."""
    fs = MemoryFileSystem()
    writer = CommittedPositionWriter(fs)
    writer.publish(promise(1))
    fs.put(COMMITTED, b"spoiled")
    fs.fail_next(operation)
    with pytest.raises(OSError, match="Input/output"):
        writer.mend()
    writer.publish(promise(2))
    assert writer.mend()
    assert read_committed(fs) == promise(2)


def test_readers_see_promises_grow_while_they_are_written(tmp_path):
    """A reader beside a writer sees whole promises, never an older one after a newer one."""
    fs = LocalFileSystem(tmp_path)
    writer = CommittedPositionWriter(fs)
    writer.publish(promise(1))
    done = threading.Event()
    seen: list[Committed | None] = []

    def read() -> None:
        while not done.is_set():
            seen.append(read_committed(fs))

    reader = threading.Thread(target=read)
    reader.start()
    for position in range(2, 3000):
        writer.publish(promise(position))
    done.set()
    reader.join()
    writer.close()
    assert all(each is not None and each == promise(each.position) for each in seen)
    positions = [each.position for each in seen if each is not None]
    assert positions == sorted(positions)


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["append", "rotate", "fail append", "fail sync", "fail create", "reopen"]),
            st.integers(1, 3),
        ),
        max_size=6,
    )
)
def test_reader_never_sees_more_than_is_synced(steps):
    """At every operation of the writer, all that a reader may see would survive a loss of power."""
    fs = MemoryFileSystem()
    looks = []

    def look() -> None:
        if COMMITTED not in fs.files() or read_committed(fs) is None:
            return
        seen = read_all(fs)
        assert seen.damaged == []
        after = fs.crash("nothing")
        after.put(COMMITTED, fs.read(COMMITTED))
        assert read_all(after).events == seen.events
        assert len(seen.events) >= (looks[-1] if looks else 0), "the committed position went back"
        looks.append(len(seen.events))

    fs.watch = look
    clock = FakeClock()
    writer = open_writer(fs, clock)
    for step, count in steps:
        if step == "rotate":
            writer.rotate()
        elif step == "reopen":
            writer.close()
            writer = open_writer(fs, clock)
        else:
            if step.startswith("fail"):
                fs.fail_next(step.removeprefix("fail "), part=0.5)
            append_until_well(writer, numbered_frame(writer.last_position + 1, count))
        fs.heal()
    writer.close()
    look()
    assert looks[-1] == writer.last_position
