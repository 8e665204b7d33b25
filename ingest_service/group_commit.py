"""The way of a request from the event loop to the disk and back, in two threads.

    event loop --submit--> [intake] --preparing thread--> [frames] --appending thread--> disk
        ^                                                                   |
        +---------------------------- acknowledgements ---------------------+

All requests that wait while a frame is being synced go into the next frame. Where the storage fails,
frames wait in memory while the appending thread retries the oldest with back-off: a request that
wants DURABLE waits on, one that wants BUFFERED is answered once it is in a frame.

Invariants: a durable acknowledgement is given after the sync; frames are appended in the order of
their positions; everything between submit and sync is charged against buffered_bytes_max.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar, cast

from ingest_service.frame_builder import Built, FrameBuilder
from ingest_service.metrics import IngestMetrics
from ingest_service.pending import Acknowledgement, Outcome, PendingFrame, PendingRequest, deliver
from shared.clock import Clock
from shared.errors import BufferFull, EventException, EventStorageException, StorageUnavailable
from shared.log.limits import FRAME_EVENTS_MAX
from shared.log.log_writer import LocalLogWriter
from shared.log.types import Position

# While one frame is synced, one more may be ready; further requests gather for the next.
_FRAMES_READY_MAX = 2
# Making a frame costs about a millisecond, however small: few bytes gather until the one before is synced.
_WORTH_A_FRAME_BYTES = 64 * 1024
_RETRY_FIRST_S = 0.05
_RETRY_MAX_S = 2.0
_IDLE_TICK_S = 1.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


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


class GroupCommit:
    """Commits requests in groups. submit belongs to the event loop; the rest may be called from any thread."""

    def __init__(
        self,
        writer: LocalLogWriter,
        builder: FrameBuilder,
        clock: Clock,
        metrics: IngestMetrics,
        limits: GroupCommitLimits,
        *,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._writer = writer
        self._builder = builder
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._loop = loop
        self._lock = threading.Lock()
        # Each wakes one waiter: the preparing thread, the appending thread, stop.
        self._to_prepare = threading.Condition(self._lock)
        self._to_append = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._intake: deque[PendingRequest] = deque()
        self._frames: deque[PendingFrame] = deque()
        self._repeats: list[tuple[PendingRequest, Acknowledgement]] = []
        self._commands: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._intake_bytes = 0
        self._buffered_bytes = 0
        self._preparing = False
        self._stopping = False
        self._storage_error: StorageUnavailable | None = None
        self._last_position = writer.last_position
        self._room_waiters: deque[asyncio.Future[None]] = deque()
        self._threads = [
            threading.Thread(target=self._prepare_forever, name="prepare"),
            threading.Thread(target=self._append_forever, name="append"),
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, request: PendingRequest) -> None:
        """Take a request; its answer comes by its future. Raises BufferFull where there is no room."""
        with self._lock:
            if self._stopping:
                raise draining()
            if self._buffered_bytes and self._buffered_bytes + request.cost > self._limits.buffered_bytes_max:
                raise self._full()
            self._buffered_bytes += request.cost
            self._intake_bytes += len(request.body)
            self._intake.append(request)
            self._to_prepare.notify()
        self._metrics.buffered_bytes.set(self._buffered_bytes)

    async def wait_for_room(self) -> None:
        """Return after some waiting request was finished: the way of a stream, which waits instead of failing."""
        waiter = self._loop.create_future()
        self._room_waiters.append(waiter)
        await waiter

    async def flush(self) -> Position:
        """Return the committed position once all that was submitted before is synced."""
        while True:
            with self._lock:
                target = self._last_position
                idle = not self._intake and not self._preparing
                committed = self._writer.last_position
            if idle and committed >= target:
                return committed
            await self.wait_for_room()

    async def run_between_frames(self, command: Callable[[], T]) -> T:
        """Run a command on the appending thread, where no frame is being written."""
        future: Future[object] = Future()
        with self._lock:
            if self._stopping:
                raise draining()
            self._commands.append((command, future))
            self._to_append.notify()
        return cast(T, await asyncio.wrap_future(future, loop=self._loop))

    def status(self) -> CommitStatus:
        """Where the pipeline is now."""
        with self._lock:
            return CommitStatus(
                self._writer.last_position, self._last_position, self._buffered_bytes, self._storage_error
            )

    def stop(self, grace_s: float) -> None:
        """Take nothing more, commit what waits for up to grace_s seconds, then end. Blocks."""
        give_up_s = self._clock.monotonic_s() + grace_s
        with self._lock:
            self._stopping = True
            self._wake_all()
            while self._is_busy() and (remaining := give_up_s - self._clock.monotonic_s()) > 0:
                self._progress.wait(remaining)
            lost = [*self._intake, *(request for frame in self._frames for request, _ in frame.waiting)]
            self._intake.clear()
            self._frames.clear()
            self._wake_all()
        for thread in self._threads:
            thread.join()
        if lost:
            _log.error("storage failed until the end", extra={"abandoned_requests": len(lost)})
            self._deliver([(request, unavailable(self._storage_error)) for request in lost])

    def _wake_all(self) -> None:
        for condition in (self._to_prepare, self._to_append, self._progress):
            condition.notify_all()

    def _is_busy(self) -> bool:
        return bool(self._intake or self._frames or self._preparing)

    # The preparing thread.

    def _prepare_forever(self) -> None:
        while (group := self._take_group()) is not None:
            try:
                self._accept(self._build(group), group)
            except Exception:  # noqa: BLE001 — the thread must outlive any bug; the requests get their answer
                _log.exception("cannot prepare a group of requests")
                self._accept(Built(refused=[(request, _internal()) for request in group]), group)

    def _take_group(self) -> list[PendingRequest] | None:
        with self._lock:
            self._preparing = False
            self._progress.notify()
            while not self._intake or not self._may_prepare():
                if self._stopping and not self._intake:
                    self._to_append.notify()
                    return None
                self._to_prepare.wait()
            self._preparing = True
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

    def _may_prepare(self) -> bool:
        """Whether the next frame is to be made now, rather than from more requests a little later."""
        if not self._frames or self._storage_error is not None:
            return True
        return len(self._frames) < _FRAMES_READY_MAX and self._intake_bytes >= _WORTH_A_FRAME_BYTES

    def _build(self, group: list[PendingRequest]) -> list[Built]:
        live = [request for request in group if not request.abandoned]
        if not live:
            return []
        try:
            return [self._builder.build(live)]
        except Exception:
            if len(live) == 1:
                raise
            _log.exception("cannot prepare requests together; preparing each by itself")
        return [self._build_alone(request) for request in live]

    def _build_alone(self, request: PendingRequest) -> Built:
        try:
            return self._builder.build([request])
        except Exception:  # noqa: BLE001 — it gets its answer, the others theirs
            _log.exception("cannot prepare a request")
            return Built(refused=[(request, _internal())])

    def _accept(self, built: list[Built] | Built, group: list[PendingRequest]) -> None:
        parts = built if isinstance(built, list) else [built]
        outcomes: list[Outcome] = []
        waiting_cost = 0
        with self._lock:
            for part in parts:
                outcomes += part.refused
                for repeat in part.repeated:
                    self._answer_repeat(repeat, outcomes)
                if part.frame is not None:
                    self._frames.append(part.frame)
                    waiting_cost += part.frame.cost
                    self._last_position = part.frame.encoded.header.positions.last
                    outcomes += [(request, ack) for request, ack in part.frame.waiting if not request.durable]
            released = sum(request.cost for request in group) - waiting_cost
            self._buffered_bytes -= released
            self._to_append.notify()
        self._metrics.refused_requests.inc(sum(len(part.refused) for part in parts))
        self._metrics.duplicate_requests.inc(sum(len(part.repeated) for part in parts))
        if outcomes or released:
            self._deliver(outcomes)

    def _answer_repeat(self, repeat: tuple[PendingRequest, Acknowledgement], outcomes: list[Outcome]) -> None:
        request, acknowledgement = repeat
        if acknowledgement.positions.last <= self._writer.last_position:
            durable = Acknowledgement(
                acknowledgement.positions, acknowledgement.recorded_at, durable=True, duplicate=True
            )
            outcomes.append((request, durable))
        elif request.durable:
            self._repeats.append(repeat)
        else:
            outcomes.append(repeat)

    # The appending thread.

    def _append_forever(self) -> None:
        retry_s = _RETRY_FIRST_S
        while (work := self._next_work()) is not None:
            if not isinstance(work, PendingFrame):
                self._run(*work)
            elif self._append(work):
                retry_s = _RETRY_FIRST_S
            else:
                self._wait_before_retry(retry_s)
                retry_s = min(2 * retry_s, _RETRY_MAX_S)

    def _next_work(self) -> "PendingFrame | tuple[Callable[[], object], Future[object]] | None":
        with self._lock:
            while True:
                if self._commands:
                    return self._commands.popleft()
                if self._frames:
                    return self._frames[0]
                if self._stopping and not self._is_busy():
                    return None
                if not self._to_append.wait(_IDLE_TICK_S):
                    return self._writer.rotate_if_old, Future()

    def _run(self, command: Callable[[], object], future: "Future[object]") -> None:
        try:
            future.set_result(command())
        except Exception as error:  # noqa: BLE001 — whoever asked for it gets it
            future.set_exception(error)

    def _append(self, frame: PendingFrame) -> bool:
        started_s = self._clock.monotonic_s()
        try:
            self._writer.append(frame.encoded)
        except Exception as error:  # noqa: BLE001 — whatever it is, the frame must not be lost
            if not isinstance(error, StorageUnavailable):
                _log.exception("cannot append a frame")
                error = StorageUnavailable(f"cannot append: {error}")
            self._note_failure(error)
            return False
        self._metrics.observe_commit(
            events=frame.encoded.header.count,
            written_bytes=frame.encoded.header.length,
            requests=len(frame.waiting),
            commit_s=self._clock.monotonic_s() - started_s,
            sync_s=self._writer.last_sync_s,
        )
        self._finish(frame)
        return True

    def _note_failure(self, error: StorageUnavailable) -> None:
        with self._lock:
            first = self._storage_error is None
            self._storage_error = error
            self._to_prepare.notify()
        self._metrics.storage_failures.inc()
        if first:
            _log.error("storage fails, appends wait in memory", extra={"error": str(error)})

    def _finish(self, frame: PendingFrame) -> None:
        committed = self._writer.last_position
        outcomes: list[Outcome] = [(request, ack) for request, ack in frame.waiting if request.durable]
        with self._lock:
            if self._frames and self._frames[0] is frame:
                self._frames.popleft()
                self._buffered_bytes -= frame.cost
            if self._repeats:
                outcomes += [repeat for repeat in self._repeats if repeat[1].positions.last <= committed]
                self._repeats = [repeat for repeat in self._repeats if repeat[1].positions.last > committed]
            recovered, self._storage_error = self._storage_error, None
            buffered = self._buffered_bytes
            self._to_prepare.notify()
            self._progress.notify()
        if recovered is not None:
            _log.warning("storage works again", extra={"committed_position": committed})
        self._metrics.buffered_bytes.set(buffered)
        self._metrics.committed_position.set(committed)
        self._deliver(outcomes)

    def _wait_before_retry(self, seconds: float) -> None:
        give_up_s = self._clock.monotonic_s() + seconds
        with self._lock:
            while self._frames and not self._commands and (left := give_up_s - self._clock.monotonic_s()) > 0:
                self._to_append.wait(left)

    # Both threads.

    def _deliver(self, outcomes: list[Outcome]) -> None:
        self._loop.call_soon_threadsafe(self._on_loop, outcomes)

    def _on_loop(self, outcomes: list[Outcome]) -> None:
        deliver(outcomes)
        while self._room_waiters:
            waiter = self._room_waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _full(self) -> BufferFull:
        waits = f"{self._buffered_bytes} bytes wait to be synced, and at most {self._limits.buffered_bytes_max} may"
        if self._storage_error is not None:
            return BufferFull(
                f"the storage fails ({self._storage_error}) and {waits}: retry later", reason="BUFFER_FULL"
            )
        return BufferFull(f"{waits}: retry later, or send from fewer producers", reason="APPEND_QUEUE_FULL")


def draining() -> EventStorageException:
    """The error for requests that come while the service shuts down."""
    return StorageUnavailable(
        "the service is shutting down: retry, another instance may answer", reason="SERVER_DRAINING"
    )


def unavailable(error: EventException | None) -> StorageUnavailable:
    """The error for a request whose events were not synced in time."""
    because = f": {error}" if error else ""
    return StorageUnavailable(
        f"not synced in time{because}. The events may still be committed: retry with the same request id"
    )


def _internal() -> EventException:
    return EventException("the request could not be logged because of a fault in the service", reason="INTERNAL")
