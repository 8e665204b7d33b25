"""What waits on its way to the disk: requests, frames, repeated requests, and commands between frames.

    submit ─▶ [intake] ─take_group─▶ (preparing) ─accept─▶ [frames] ─next_work─▶ (appending) ─finish─▶

Invariants: everything from submit to its last answer is charged against buffered_bytes_max, and where
nothing waits nothing is charged; requests leave in the order in which they came, frames in the order
of their positions; a repeated request of events that are not synced yet waits for their frame, unless
it asked for less.

The event loop, the preparing and the appending thread meet here; every method may be called from any
of them, and a few say that they wait. Knows nothing of events, disks, or the event loop.
"""

import enum
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from ingest_service.frame_builder import Built
from ingest_service.pending import Acknowledgement, Outcome, PendingFrame, PendingRequest
from ingest_service.refusals import draining
from shared.clock import Clock
from shared.errors import BufferFull, StorageUnavailable
from shared.log.limits import FRAME_EVENTS_MAX
from shared.log.types import Position

# While one frame is synced, one more may be ready; further requests gather for the next.
_FRAMES_READY_MAX = 2
# Making a frame costs about a millisecond, however small: few bytes gather until the one before is synced.
_WORTH_A_FRAME_BYTES = 64 * 1024
_IDLE_TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class GroupCommitLimits:
    """Bytes that one frame joins, and bytes that may wait between submit and sync."""

    frame_bytes_max: int
    buffered_bytes_max: int


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """Where the pipeline is. `storage_error` is None while the storage works."""

    committed_position: Position
    last_position: Position
    buffered_bytes: int
    storage_error: StorageUnavailable | None


@dataclass(frozen=True, slots=True)
class Command:
    """What is to be done where no frame is being written, and who waits for it."""

    run: Callable[[], object]
    done: "Future[object]"


class Signal(enum.Enum):
    """What the appending thread is told where there is nothing to append."""

    IDLE = enum.auto()
    END = enum.auto()


class CommitQueue:
    """See the module. Begins behind the last position of a log."""

    def __init__(self, clock: Clock, limits: GroupCommitLimits, *, last_position: Position) -> None:
        self._clock = clock
        self._limits = limits
        self._lock = threading.Lock()
        # Each wakes one waiter: the preparing thread, the appending thread, whoever stops them.
        self._to_prepare = threading.Condition(self._lock)
        self._to_append = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._intake: deque[PendingRequest] = deque()
        self._frames: deque[PendingFrame] = deque()
        self._repeats: list[tuple[PendingRequest, Acknowledgement]] = []
        self._commands: deque[Command] = deque()
        self._intake_bytes = 0
        self._buffered_bytes = 0
        self._taken = self._prepared = 0
        self._preparing = self._stopping = self._gave_up = False
        self._storage_error: StorageUnavailable | None = None
        self._committed = self._last_position = last_position

    # For the event loop.

    def submit(self, request: PendingRequest) -> int:
        """Take a request. Returns the bytes that wait now.

        Raises BufferFull where there is no room, StorageUnavailable (SERVER_DRAINING) once it is closed.
        """
        with self._lock:
            if self._stopping:
                raise draining()
            if self._buffered_bytes and self._buffered_bytes + request.cost > self._limits.buffered_bytes_max:
                raise self._full()
            self._buffered_bytes += request.cost
            self._intake_bytes += len(request.body)
            self._intake.append(request)
            self._taken += 1
            self._to_prepare.notify()
            return self._buffered_bytes

    def put_command(self, command: Command) -> None:
        """Let the appending thread run a command. Raises StorageUnavailable (SERVER_DRAINING) once it is closed."""
        with self._lock:
            if self._stopping:
                raise draining()
            self._commands.append(command)
            self._to_append.notify()

    def status(self) -> CommitStatus:
        """Where everything is now."""
        with self._lock:
            return CommitStatus(self._committed, self._last_position, self._buffered_bytes, self._storage_error)

    def taken(self) -> int:
        """How many requests were taken so far."""
        with self._lock:
            return self._taken

    def last_position_of(self, taken: int) -> Position | None:
        """A position at or behind those of the first `taken` requests; None while one of them is not in a frame."""
        with self._lock:
            return self._last_position if self._prepared >= taken else None

    @property
    def gave_up(self) -> bool:
        """Whether nothing that waits will be committed any more."""
        return self._gave_up

    def close(self, grace_s: float) -> None:
        """Take nothing more; return when nothing waits, or give up after grace_s seconds. Waits."""
        give_up_s = self._clock.monotonic_s() + grace_s
        with self._lock:
            self._stopping = True
            self._wake_all()
            while self._is_busy() and (remaining := give_up_s - self._clock.monotonic_s()) > 0:
                self._progress.wait(remaining)
            self._gave_up = self._is_busy()
            self._wake_all()

    def take_abandoned(self) -> list[PendingRequest]:
        """Empty it, once both threads have ended: requests that were not committed, the answered ones included."""
        with self._lock:
            self._gave_up = True
            waiting = [*self._intake, *(request for request, _ in self._repeats)]
            framed = [request for frame in self._frames for request, _ in frame.waiting]
            self._buffered_bytes -= sum(each.cost for each in waiting) + sum(frame.cost for frame in self._frames)
            self._intake.clear()
            self._frames.clear()
            self._repeats.clear()
            commands = list(self._commands)
            self._commands.clear()
        for command in commands:
            if command.done.set_running_or_notify_cancel():
                command.done.set_exception(draining())
        return [*framed, *waiting]

    # For the preparing thread.

    def take_group(self) -> list[PendingRequest] | None:
        """The requests for the next frame, at least one; None at the end. Waits."""
        with self._lock:
            self._preparing = False
            self._progress.notify()
            while not self._intake or not self._may_prepare():
                if self._gave_up or (self._stopping and not self._intake):
                    break
                self._to_prepare.wait()
            if self._gave_up or not self._intake:
                self._to_append.notify()
                return None
            self._preparing = True
            return self._next_group()

    def accept(self, parts: Sequence[Built], group: Sequence[PendingRequest]) -> tuple[list[Outcome], int]:
        """Take what became of a group. Returns the answers that can be given now, and the bytes released."""
        outcomes: list[Outcome] = []
        with self._lock:
            released = sum(request.cost for request in group)
            for request in group:
                # Its events are in a frame now, or nowhere.
                request.body = b""
            for part in parts:
                outcomes += part.refused
                for repeat in part.repeated:
                    released -= self._take_repeat(repeat, outcomes)
                if part.frame is not None:
                    self._frames.append(part.frame)
                    released -= part.frame.cost
                    self._last_position = part.frame.positions.last
                    outcomes += [(request, ack) for request, ack in part.frame.waiting if not request.durable]
            self._buffered_bytes -= released
            self._prepared += len(group)
            self._to_append.notify()
        return outcomes, released

    # For the appending thread.

    def next_work(self) -> PendingFrame | Command | Signal:
        """The next command, or the oldest frame, which stays until it is finished. Waits, for a second at most."""
        with self._lock:
            while not self._gave_up:
                if self._commands:
                    return self._commands.popleft()
                if self._frames:
                    return self._frames[0]
                if self._stopping and not self._is_busy():
                    break
                if not self._to_append.wait(_IDLE_TICK_S):
                    return Signal.IDLE
            return Signal.END

    def note_failure(self, error: StorageUnavailable) -> bool:
        """Note that the oldest frame cannot be appended. Returns whether the storage worked before."""
        with self._lock:
            first = self._storage_error is None
            self._storage_error = error
            # Those who gave up waiting come again with new requests.
            for request, _ in self._repeats:
                if request.abandoned:
                    self._buffered_bytes -= request.cost
            self._repeats = [repeat for repeat in self._repeats if not repeat[0].abandoned]
            self._to_prepare.notify()
            return first

    def finish(self, frame: PendingFrame) -> tuple[list[Outcome], bool]:
        """Note that the oldest frame is synced. Returns the answers that wait for it, and whether storage failed."""
        with self._lock:
            assert self._frames[0] is frame
            self._frames.popleft()
            self._committed = frame.positions.last
            self._buffered_bytes -= frame.cost
            outcomes: list[Outcome] = [(request, ack) for request, ack in frame.waiting if request.durable]
            if self._repeats:
                synced = [repeat for repeat in self._repeats if repeat[1].positions.last <= self._committed]
                self._buffered_bytes -= sum(request.cost for request, _ in synced)
                self._repeats = [repeat for repeat in self._repeats if repeat[1].positions.last > self._committed]
                outcomes += synced
            failed, self._storage_error = self._storage_error is not None, None
            self._to_prepare.notify()
            self._progress.notify()
        return outcomes, failed

    def wait_before_retry(self, seconds: float) -> None:
        """Wait, but not where there is something else to do."""
        give_up_s = self._clock.monotonic_s() + seconds
        with self._lock:
            while not (self._gave_up or self._commands) and (left := give_up_s - self._clock.monotonic_s()) > 0:
                self._to_append.wait(left)

    # Within, under the lock.

    def _is_busy(self) -> bool:
        return bool(self._intake or self._frames or self._preparing)

    def _wake_all(self) -> None:
        for condition in (self._to_prepare, self._to_append, self._progress):
            condition.notify_all()

    def _may_prepare(self) -> bool:
        """Whether the next frame is to be made now, rather than from more requests a little later."""
        if not self._frames or self._storage_error is not None:
            return True
        return len(self._frames) < _FRAMES_READY_MAX and self._intake_bytes >= _WORTH_A_FRAME_BYTES

    def _next_group(self) -> list[PendingRequest]:
        group: list[PendingRequest] = []
        size = events = 0
        while self._intake:
            request = self._intake[0]
            size += len(request.body)
            events += request.head.count
            if group and (size > self._limits.frame_bytes_max or events > FRAME_EVENTS_MAX):
                break
            self._intake_bytes -= len(request.body)
            group.append(self._intake.popleft())
        return group

    def _take_repeat(self, repeat: tuple[PendingRequest, Acknowledgement], outcomes: list[Outcome]) -> int:
        """Answer a repeated request, or let it wait. Returns the bytes it is charged with from now on."""
        request, ack = repeat
        if ack.positions.last <= self._committed:
            outcomes.append((request, Acknowledgement(ack.positions, ack.recorded_at, durable=True, duplicate=True)))
        elif request.durable:
            self._repeats.append(repeat)
            return request.cost
        else:
            outcomes.append(repeat)
        return 0

    def _full(self) -> BufferFull:
        waits = f"{self._buffered_bytes} bytes wait to be synced, and at most {self._limits.buffered_bytes_max} may"
        if self._storage_error is not None:
            return BufferFull(
                f"the storage fails ({self._storage_error}) and {waits}: retry later", reason="BUFFER_FULL"
            )
        return BufferFull(f"{waits}: retry later, or send from fewer producers", reason="APPEND_QUEUE_FULL")
