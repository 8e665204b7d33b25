"""The log against a plain list: appends, faults, rotations, crashes, in any order."""

import contextlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.errors import StorageUnavailable
from shared.log.committed_position import read_committed
from shared.log.log_writer import LocalLogWriter, RotationLimits
from shared.log.names import COMMITTED, IDENTITY
from tests.support.builders import LOG_ID, append_until_well, frame_of, open_writer, payload, read_all, read_range
from tests.support.fake_clock import FakeClock
from tests.support.memory_file_system import MemoryFileSystem, PowerLoss

LIMITS = RotationLimits(bytes_max=4000, raw_bytes_max=100_000, age_max_s=3600.0, events_max=9)
COUNTS = st.integers(1, 4)
PARTS = st.sampled_from([0.0, 0.3, 0.7, 1.0])
FAILING = st.sampled_from(["create", "append", "sync", "rename", "sync_directory", "free_bytes"])


class LogMachine(RuleBasedStateMachine):
    """`log` is the list of acknowledged events; `proposed` all that was ever proposed for a position."""

    @initialize()
    def begin(self) -> None:
        """A new log on an empty disk."""
        self.fs = MemoryFileSystem()
        self.clock = FakeClock()
        self.log: list[str] = []
        self.proposed: dict[int, set[str]] = {}
        self.proposals = 0
        self.recorded_at = 0
        self.open()

    def open(self) -> None:
        """Open the log; what it holds beyond the acknowledged must be what was proposed."""
        self.writer: LocalLogWriter = open_writer(self.fs, self.clock, limits=LIMITS)
        found = read_all(self.fs)
        assert found.damaged == []
        assert self.writer.recovered.damage == []
        assert self.writer.log_id == LOG_ID
        assert list(found.events) == list(range(1, self.writer.last_position + 1))
        assert list(found.events.values())[: len(self.log)] == self.log
        for position, text in found.events.items():
            assert text in self.proposed[position]
        self.log = list(found.events.values())
        assert self.writer.recovered.last_recorded_at >= (self.recorded_at if self.log else 0)

    def propose(self, count: int):
        """A frame of new events for the next positions."""
        first = len(self.log) + 1
        self.proposals += 1
        texts = [payload(f"{self.proposals}-{row}") for row in range(count)]
        for row, text in enumerate(texts):
            self.proposed.setdefault(first + row, set()).add(text)
        recorded_at = max(self.clock.now_ns(), self.recorded_at)
        return frame_of(first, texts, recorded_at=recorded_at), texts, recorded_at

    @rule(count=COUNTS)
    def append(self, count: int) -> None:
        """Events that nothing stands in the way of."""
        frame, texts, recorded_at = self.propose(count)
        self.writer.append(frame)
        self.log += texts
        self.recorded_at = recorded_at

    @rule(count=COUNTS, operations=st.lists(st.tuples(FAILING, PARTS), min_size=1, max_size=4))
    def append_while_operations_fail(self, count: int, operations: list[tuple[str, float]]) -> None:
        """Events that are retried until the disk takes them."""
        for operation, part in operations:
            self.fs.fail_next(operation, part=part)
        self.clock.advance(1)
        frame, texts, recorded_at = self.propose(count)
        append_until_well(self.writer, frame)
        self.fs.heal()
        self.log += texts
        self.recorded_at = recorded_at

    @rule(count=COUNTS, operation=FAILING, part=PARTS)
    def append_and_die(self, count: int, operation: str, part: float) -> None:
        """Events that fail, in a process that ends before it tries again."""
        self.fs.fail_next(operation, part=part)
        self.clock.advance(1)
        frame, texts, recorded_at = self.propose(count)
        try:
            self.writer.append(frame)
        except StorageUnavailable:
            pass
        else:
            self.log += texts
            self.recorded_at = recorded_at
        self.fs.heal()
        self.fs.kill()
        self.open()

    @rule()
    def rotate(self) -> None:
        """A new segment where there is something in the old one."""
        self.writer.rotate()

    @rule(operation=FAILING, part=PARTS)
    def rotate_and_fail(self, operation: str, part: float) -> None:
        """A rotation that may fail costs nothing."""
        self.fs.fail_next(operation, part=part)
        try:
            self.writer.rotate()
        except StorageUnavailable:
            assert self.writer.active is None
        self.fs.heal()

    @rule()
    def close_and_open(self) -> None:
        """A restart."""
        self.writer.close()
        self.open()

    @rule()
    def kill_and_open(self) -> None:
        """A restart without a farewell."""
        self.fs.kill()
        self.open()

    @rule(keep=st.sampled_from(["nothing", "all", "random"]), seed=st.integers(0, 1000))
    def lose_power(self, keep, seed: int) -> None:
        """The power goes between two operations."""
        self.fs = self.fs.crash(keep, seed)
        self.open()

    @rule(
        count=COUNTS,
        number=st.integers(1, 12),
        part=PARTS,
        keep=st.sampled_from(["nothing", "all", "random"]),
        seed=st.integers(0, 1000),
        recovery=st.none() | st.integers(1, 25),
    )
    def lose_power_while_appending(self, count, number, part, keep, seed, recovery) -> None:
        """The power goes within an append, and perhaps once more within the recovery from it."""
        frame, texts, recorded_at = self.propose(count)
        self.fs.lose_power_at(number, part=part)
        self.clock.advance(1)
        try:
            self.writer.append(frame)
        except PowerLoss:
            pass
        else:
            self.log += texts
            self.recorded_at = recorded_at
        self.fs = self.fs.crash(keep, seed)
        if recovery is not None:
            self.fs.lose_power_at(recovery, part=part)
            with contextlib.suppress(PowerLoss):
                open_writer(self.fs, self.clock, limits=LIMITS)
            self.fs = self.fs.crash("random", seed + 1)
        self.open()

    @rule(name=st.sampled_from([COMMITTED, IDENTITY]), offset=st.none() | st.integers(0, 200))
    def damage_a_derived_file(self, name: str, offset: int | None) -> None:
        """A file that can be made anew rots or is lost while no process runs."""
        self.writer.close()
        if offset is None:
            self.fs.delete(name)
        else:
            self.fs.flip(name, offset % len(self.fs.files()[name]))
        if not any(name.endswith(".log") for name in self.fs.files()):
            # Without a segment nothing but these two files names the log.
            self.fs = MemoryFileSystem()
        self.open()

    @rule(seconds=st.sampled_from([-3600.0, 3600.0, 365 * 86400.0, -365 * 86400.0]))
    def set_the_clock(self, seconds: float) -> None:
        """The time of day jumps."""
        self.clock.jump(seconds)

    @rule(seconds=st.sampled_from([1.0, 600.0, 4000.0]))
    def let_time_pass(self, seconds: float) -> None:
        """Time passes, and an idle service looks whether the segment is old."""
        self.clock.advance(seconds)
        self.writer.rotate_if_old()

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def read_a_range(self, data: st.DataObject) -> None:
        """Any range gives what the list gives."""
        first = data.draw(st.integers(1, len(self.log)))
        until = data.draw(st.integers(first, len(self.log) + 3))
        found = read_range(self.fs, first, until)
        assert found.damaged == []
        assert found.events == dict(enumerate(self.log[first - 1 : until - 1], start=first))

    @invariant()
    def readers_are_promised_what_is_acknowledged(self) -> None:
        """The committed position is the length of the list."""
        committed = read_committed(self.fs)
        assert committed is not None
        assert committed.position == self.writer.last_position == len(self.log)

    def teardown(self) -> None:
        """At the end all that was acknowledged outlives the power."""
        if not hasattr(self, "writer"):
            return
        found = read_all(self.fs)
        assert list(found.events.values()) == self.log
        self.fs = self.fs.crash("nothing")
        self.open()
        self.writer.close()


TestLog = LogMachine.TestCase
TestLog.settings = settings(max_examples=120, stateful_step_count=20)
