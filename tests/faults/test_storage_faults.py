"""Each file operation failing in turn, the power going at each, the process dying at each.

One short life of a log is told again for every operation in it: opened, appended to, rotated, closed.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from shared.errors import StorageUnavailable
from shared.log.frame import EncodedFrame
from shared.log.log_writer import LocalLogWriter
from shared.log.names import COMMITTED, IDENTITY
from tests.support.builders import NEVER, append_until_well, frame_of, open_writer, payload, read_all
from tests.support.fake_clock import FakeClock
from tests.support.memory_file_system import Keep, MemoryFileSystem, PowerLoss, io_error, no_space

LIMITS = replace(NEVER, events_max=6)
# What the producer does: append so many events, or rotate. The limit rotates, too.
LIFE: tuple[int | str, ...] = (2, 1, "rotate", 3, 2, 2)
LAST = sum(step for step in LIFE if isinstance(step, int))
KEEPS: tuple[Keep, ...] = ("nothing", "all", "random", "random")


@dataclass
class Producer:
    """Proposes events, and keeps in mind what it proposed and what was acknowledged."""

    proposed: dict[int, set[str]] = field(default_factory=dict)
    acknowledged: dict[int, str] = field(default_factory=dict)
    lives: int = 0

    def live(self, fs: MemoryFileSystem, *, close: bool = True) -> LocalLogWriter:
        """Live one life on a disk, retrying what fails as ingest does."""
        self.lives += 1
        writer = open_again(fs)
        for step in LIFE:
            if isinstance(step, str):
                rotate(writer)
            else:
                self.append(writer, step, append_until_well)
        if close:
            writer.close()
        return writer

    def append(self, writer: LocalLogWriter, count: int, do: Callable[[LocalLogWriter, EncodedFrame], object]) -> None:
        """Propose events at the next positions and append them; what returns is acknowledged."""
        first = writer.last_position + 1
        events = {first + row: payload(f"life {self.lives} event {first + row}") for row in range(count)}
        for position, text in events.items():
            self.proposed.setdefault(position, set()).add(text)
        do(writer, frame_of(first, list(events.values())))
        self.acknowledged |= events

    def check(self, fs: MemoryFileSystem, writer: LocalLogWriter) -> None:
        """Every acknowledged event is there, nothing is there that was not proposed, and no position is missing."""
        found = read_all(fs)
        assert found.damaged == []
        assert list(found.events) == list(range(1, writer.last_position + 1))
        for position, text in self.acknowledged.items():
            assert found.events.get(position) == text, f"position {position} was acknowledged"
        for position, text in found.events.items():
            assert text in self.proposed[position], f"position {position} holds what nobody proposed"
        assert writer.recovered.damage == []
        # What is there after recovery is committed from now on.
        self.acknowledged = found.events


def open_again(fs: MemoryFileSystem, attempts: int = 10) -> LocalLogWriter:
    """Open the log as a supervisor does: again where it fails."""
    for _ in range(attempts):
        try:
            return open_writer(fs, FakeClock(), limits=LIMITS)
        except OSError:
            fs.kill()
    raise AssertionError(f"the log did not open in {attempts} attempts")


def rotate(writer: LocalLogWriter) -> None:
    """Rotate as the administrator's request does; where it fails, the next append makes the segment."""
    try:
        writer.rotate()
    except StorageUnavailable:
        assert writer.active is None


def operations_of(act: Callable[[MemoryFileSystem], object], before: MemoryFileSystem | None = None) -> list[str]:
    """The operations of an act on a well disk."""
    fs = before.crash("all") if before else MemoryFileSystem()
    act(fs)
    return fs.trace


def each_operation() -> Iterator[int]:
    """Numbers of all operations of the life."""
    return iter(range(1, len(operations_of(Producer().live)) + 1))


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("error", [no_space, io_error])
def test_any_operation_may_fail_once(error, part):
    """Each operation failing, undone, half done or done: nothing is lost, invented or doubled, without a restart."""
    for number in each_operation():
        fs, producer = MemoryFileSystem(), Producer()
        fs.fail_nth(number, error(), part=part)
        writer = producer.live(fs, close=False)
        assert writer.last_position == LAST
        producer.check(fs, writer)
        before = fs.operations
        producer.append(writer, 1, LocalLogWriter.append)
        assert fs.operations - before <= 12, "a well disk is written to without detours"
        fs.kill()
        producer.check(fs, open_again(fs))
        after = fs.crash("nothing")
        producer.check(after, open_again(after))


@pytest.mark.parametrize("again", [2, 3, 7])
def test_operations_may_fail_several_times(again):
    """A fault that comes again at a later operation, also within the first retry, is survived as one is."""
    for number in each_operation():
        fs, producer = MemoryFileSystem(), Producer()
        fs.fail_nth(number, part=0.5)
        fs.fail_nth(number + again, part=0.5)
        fs.fail_nth(number + 2 * again, part=1.0)
        producer.check(fs, producer.live(fs))
        after = fs.crash("nothing")
        producer.check(after, open_again(after))


@pytest.mark.parametrize("mode", ["full", "read_only"])
def test_disk_may_be_full_or_read_only_for_a_while(mode):
    """While the disk refuses, appends raise and reads go on; once it is well, the same writer goes on."""
    fs, producer = MemoryFileSystem(), Producer()
    writer = producer.live(fs, close=False)
    for _ in range(3):
        before = read_all(fs)
        fs.mode = mode
        frame = frame_of(writer.last_position + 1, ["{}"])
        for _ in range(5):
            with pytest.raises(StorageUnavailable):
                writer.append(frame)
            assert read_all(fs) == before
        with pytest.raises(StorageUnavailable):
            _rotate_with_events(writer)
        fs.heal()
        producer.append(writer, 2, LocalLogWriter.append)
        producer.check(fs, writer)
    after = fs.crash("nothing")
    producer.check(after, open_again(after))


def _rotate_with_events(writer: LocalLogWriter) -> None:
    if not writer.rotate():
        raise StorageUnavailable("there is no segment to rotate after a failed append")


def test_nothing_is_appended_to_a_segment_after_a_failure():
    """After any failed operation on a segment's file, that file never grows again."""
    for number, operation in enumerate(operations_of(Producer().live), start=1):
        what, name = operation.split()
        if what not in ("append", "sync") or not name.endswith(".log"):
            continue
        fs, producer = MemoryFileSystem(), Producer()
        fs.fail_nth(number, part=0.5)
        producer.live(fs)
        later = [each for each in fs.trace[number:] if each in (f"append {name}", f"sync {name}")]
        replaced = [each for each in fs.trace[number:] if each == f"rename {name}.tmp"]
        assert not later or replaced, f"{name} was given up at operation {number}"


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_power_may_go_at_any_operation(part):
    """Whatever part of the unsynced survives: the acknowledged is there, nothing else, and the log goes on."""
    for number in each_operation():
        for seed, keep in enumerate(KEEPS):
            fs, producer = MemoryFileSystem(), Producer()
            fs.lose_power_at(number, part=part)
            with pytest.raises(PowerLoss):
                producer.live(fs)
            fs = fs.crash(keep, seed=1000 * number + seed)
            producer.check(fs, open_again(fs))
            fs.kill()
            producer.check(fs, producer.live(fs))
            fs = fs.crash("nothing")
            producer.check(fs, open_again(fs))


@pytest.mark.parametrize("part", [0.0, 1.0])
def test_process_may_die_at_any_operation(part):
    """After the end of the process at any operation all goes on, and holds even if the power goes later."""
    for number in each_operation():
        fs, producer = MemoryFileSystem(), Producer()
        fs.lose_power_at(number, part=part)
        with pytest.raises(PowerLoss):
            producer.live(fs)
        fs.kill()
        producer.check(fs, open_again(fs))
        for keep in ("nothing", "random"):
            after = fs.crash(keep, seed=number)
            Producer(producer.proposed, dict(producer.acknowledged)).check(after, open_again(after))
        fs.kill()
        producer.check(fs, producer.live(fs))


def test_power_may_go_twice_during_recovery():
    """Recovery interrupted at any operation, and again at any, begun again ends the same."""
    for number in range(1, len(operations_of(Producer().live)) + 1, 2):
        fs, producer = MemoryFileSystem(), Producer()
        fs.lose_power_at(number, part=0.5)
        with pytest.raises(PowerLoss):
            producer.live(fs)
        broken = fs.crash("random", seed=number)
        recovery = operations_of(open_again, broken)
        for first in range(1, len(recovery) + 1):
            again = broken.crash("all")
            again.lose_power_at(first, part=0.5)
            with pytest.raises(PowerLoss):
                open_again(again)
            again = again.crash("random", seed=first)
            again.lose_power_at(1 + (number + 5 * first) % len(recovery), part=1.0)
            # What is left to do may take fewer operations than the first time.
            with contextlib.suppress(PowerLoss):
                open_again(again)
            again = again.crash("random", seed=first + 1)
            own = Producer(producer.proposed, dict(producer.acknowledged))
            own.check(again, open_again(again))


def test_recovery_may_fail_at_any_operation_and_is_done_again():
    """A disk that fails during recovery, with a torn tail to be cut, only delays it."""
    fs, producer = MemoryFileSystem(), Producer()
    writer = producer.live(fs, close=False)
    frame = frame_of(writer.last_position + 1, [payload("torn")])
    fs.fail_next("append", part=0.7)
    with pytest.raises(StorageUnavailable):
        writer.append(frame)
    broken = fs.crash("all")
    for part in (0.0, 0.5, 1.0):
        for number in range(1, len(operations_of(open_again, broken)) + 1):
            again = broken.crash("all")
            again.fail_nth(number, part=part)
            own = Producer(producer.proposed, dict(producer.acknowledged))
            own.check(again, open_again(again))
            assert any(content and name.startswith("quarantine/") for name, content in again.files().items())


@pytest.mark.parametrize("lost", [(COMMITTED,), (IDENTITY,), (COMMITTED, IDENTITY)])
def test_derived_files_may_be_lost_with_the_power(lost):
    """A crash that takes the derived files as well loses no acknowledged event and keeps the log's id."""
    for number in each_operation():
        fs, producer = MemoryFileSystem(), Producer()
        fs.lose_power_at(number)
        with pytest.raises(PowerLoss):
            producer.live(fs)
        fs = fs.crash("random", seed=number)
        for name in set(lost) & fs.files().keys():
            fs.delete(name)
        writer = open_again(fs)
        producer.check(fs, writer)
        if producer.acknowledged:
            assert writer.log_id == "testlog1"


def _live_without_promise(fs: MemoryFileSystem, producer: Producer) -> LocalLogWriter:
    """Append, while somebody removes the committed position again and again."""
    clock = FakeClock()
    writer = open_writer(fs, clock, limits=LIMITS)
    for count in (1, 2, 5):
        fs.delete(COMMITTED)
        clock.advance(1.0)
        producer.append(writer, count, append_until_well)
        fs.delete(COMMITTED)
        for _ in range(2):
            with contextlib.suppress(StorageUnavailable):
                writer.tend()
    return writer


@pytest.mark.parametrize("part", [0.0, 1.0])
def test_committed_position_is_made_anew_whatever_fails(part):
    """Removed while the log is written, with each operation failing in turn: readers see all that is acknowledged."""
    well, producer = MemoryFileSystem(), Producer()
    writer = _live_without_promise(well, producer)
    operations = well.operations
    producer.check(well, writer)
    for number in range(len(operations_of(open_again)) + 1, operations + 1):
        fs, producer = MemoryFileSystem(), Producer()
        fs.fail_nth(number, part=part)
        writer = _live_without_promise(fs, producer)
        assert writer.last_position == 8
        producer.check(fs, writer)
        fs.kill()
        producer.check(fs, open_again(fs))
