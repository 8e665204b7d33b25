"""The way of a request from the event loop to the disk and back, in two threads.

    event loop --submit--> [intake] --preparing thread--> [frames] --appending thread--> disk
        ^                                                                   |
        +---------------------------- acknowledgements ---------------------+

All requests that wait while a frame is being synced go into the next frame. Where the storage fails,
frames wait in memory while the appending thread retries the oldest with back-off: a request that
wants DURABLE waits on, one that wants BUFFERED is answered once it is in a frame.

Invariants: a durable acknowledgement is given after the sync; frames are appended in the order of
their positions; neither thread ends before stop, whatever goes wrong while a frame is made or written.
What waits, and how much may, is the business of `commit_queue`.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, cast

from ingest_service.commit_queue import Command, CommitQueue, CommitStatus, GroupCommitLimits, Signal
from ingest_service.frame_builder import Built, FrameBuilder
from ingest_service.metrics import IngestMetrics
from ingest_service.pending import Outcome, PendingFrame, PendingRequest, deliver
from ingest_service.refusals import internal_fault, unavailable
from shared.clock import Clock
from shared.errors import EventException, StorageUnavailable
from shared.log.frame import EncodedFrame
from shared.log.log_writer import LocalLogWriter
from shared.log.types import Position

_RETRY_FIRST_S = 0.05
_RETRY_MAX_S = 2.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


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
        on_committed: Callable[[EncodedFrame], None] | None = None,
    ) -> None:
        """on_committed: given each frame once it is synced, on the appending thread; must not block or raise."""
        self._writer = writer
        self._builder = builder
        self._clock = clock
        self._metrics = metrics
        self._loop = loop
        self._on_committed = on_committed
        self._queue = CommitQueue(clock, limits, last_position=writer.last_position)
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
        self._metrics.buffered_bytes.set(self._queue.submit(request))

    async def wait_for_room(self) -> None:
        """Return after some waiting request was finished: the way of a stream, which waits instead of failing."""
        waiter = self._loop.create_future()
        self._room_waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):
                    self._room_waiters.remove(waiter)

    async def flush(self) -> Position:
        """Return the committed position once all that was submitted before is synced.

        Raises StorageUnavailable where it never will be, because the service was stopped.
        """
        taken = self._queue.taken()
        target = None
        while True:
            target = target or self._queue.last_position_of(taken)
            status = self._queue.status()
            if target is not None and status.committed_position >= target:
                return status.committed_position
            if self._queue.gave_up:
                raise unavailable(status.storage_error)
            await self.wait_for_room()

    async def run_between_frames(self, command: Callable[[], T]) -> T:
        """Run a command on the appending thread, where no frame is being written. Raises what it raises."""
        future: Future[object] = Future()
        self._queue.put_command(Command(command, future))
        return cast(T, await asyncio.wrap_future(future, loop=self._loop))

    def status(self) -> CommitStatus:
        """Where the pipeline is now."""
        return self._queue.status()

    def stop(self, grace_s: float) -> None:
        """Take nothing more, commit what waits for up to grace_s seconds, then end. Blocks."""
        self._queue.close(grace_s)
        for thread in self._threads:
            thread.join()
        error = self._queue.status().storage_error
        if lost := self._queue.take_abandoned():
            _log.error("storage failed until the end", extra={"abandoned_requests": len(lost)})
        self._deliver([(request, unavailable(error)) for request in lost])

    # The preparing thread.

    def _prepare_forever(self) -> None:
        while (group := self._queue.take_group()) is not None:
            parts = self._build([request for request in group if not request.abandoned])
            outcomes, released = self._queue.accept(parts, group)
            self._metrics.refused_requests.inc(sum(len(part.refused) for part in parts))
            self._metrics.duplicate_requests.inc(sum(len(part.repeated) for part in parts))
            if outcomes or released:
                self._deliver(outcomes)

    def _build(self, requests: list[PendingRequest]) -> list[Built]:
        if not requests:
            return []
        try:
            return [self._builder.build(requests)]
        except BaseException:  # noqa: BLE001 — the thread outlives any bug, and a panic of a library is no Exception
            _log.exception("cannot prepare requests", extra={"requests": len(requests)})
        if len(requests) == 1:
            return [_faulty(requests[0])]
        return [part for request in requests for part in self._build([request])]

    # The appending thread.

    def _append_forever(self) -> None:
        retry_s = _RETRY_FIRST_S
        while (work := self._queue.next_work()) is not Signal.END:
            if work is Signal.IDLE:
                self._tend()
            elif isinstance(work, Command):
                _run(work)
            elif self._append(work):
                retry_s = _RETRY_FIRST_S
            else:
                self._queue.wait_before_retry(retry_s)
                retry_s = min(2 * retry_s, _RETRY_MAX_S)

    def _tend(self) -> None:
        try:
            self._writer.tend()
        except Exception:  # noqa: BLE001 — the next append does it, or fails and is retried
            _log.exception("cannot look after the log while nothing is appended")

    def _append(self, frame: PendingFrame) -> bool:
        started_s = self._clock.monotonic_s()
        try:
            encoded = frame.encoded()
            self._writer.append(encoded)
        except StorageUnavailable as error:
            self._note_failure(error)
            return False
        except Exception as error:  # noqa: BLE001 — a bug in the way of a frame is retried like a failing disk
            _log.exception("cannot append a frame")
            self._note_failure(StorageUnavailable(f"cannot append: {error}"))
            return False
        commit_s = self._clock.monotonic_s() - started_s
        # First: those who wait are answered, and the frame is not appended again whatever comes.
        self._finish(frame)
        self._metrics.observe_commit(
            events=encoded.header.count,
            written_bytes=encoded.header.length,
            batches=[acknowledgement.positions.count for _, acknowledgement in frame.waiting],
            commit_s=commit_s,
            sync_s=self._writer.last_sync_s,
        )
        return True

    def _note_failure(self, error: StorageUnavailable) -> None:
        self._metrics.storage_failures.inc()
        if self._queue.note_failure(error):
            _log.error("storage fails, appends wait in memory", extra={"error": str(error)})

    def _finish(self, frame: PendingFrame) -> None:
        outcomes, had_failed = self._queue.finish(frame)
        if self._on_committed is not None:
            self._on_committed(frame.encoded())
        committed = frame.positions.last
        if had_failed:
            _log.warning("storage works again", extra={"committed_position": committed})
        self._metrics.buffered_bytes.set(self._queue.status().buffered_bytes)
        self._metrics.committed_position.set(committed)
        self._deliver(outcomes)

    # Both threads.

    def _deliver(self, outcomes: list[Outcome]) -> None:
        self._loop.call_soon_threadsafe(self._on_loop, outcomes)

    def _on_loop(self, outcomes: list[Outcome]) -> None:
        deliver(outcomes)
        while self._room_waiters:
            waiter = self._room_waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)


def _run(command: Command) -> None:
    """Run a command, unless whoever asked for it is gone."""
    if not command.done.set_running_or_notify_cancel():
        return
    try:
        command.done.set_result(command.run())
    except Exception as error:  # noqa: BLE001 — whoever asked for it gets it
        command.done.set_exception(error)


def _faulty(request: PendingRequest) -> Built:
    error: EventException = internal_fault()
    if request.stream is not None:
        request.stream.failed = True
    return Built(refused=[(request, error)])
