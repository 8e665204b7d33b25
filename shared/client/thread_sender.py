"""The thread that sends what a synchronous logger hands over.

The thread and its connection begin with the first event and not before, so a logger made before a fork is
whole in each child. One that was used before the fork starts afresh in the child: what the parent still has to
send is the parent's, and is forgotten there. A fork waits a moment for the request under way, because gRPC
cannot be forked in the middle of a call.

No event is lost silently: whatever ends the thread fails what it has not sent.
"""

import atexit
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import wait as wait_for_futures

import grpc

from shared.client.options import Durability, LoggerOptions
from shared.client.outbox_driver import (
    AckRequest,
    AckSubmission,
    OutboxDriver,
    Settlement,
    first_failure,
    not_flushed,
)
from shared.client.statistics import ClientStatistics
from shared.client.transport import Transport, TransportClosed
from shared.errors import BufferFull, EventException, EventStorageException, StorageUnavailable
from shared.rpc.status import from_rpc_error

_logger = logging.getLogger(__name__)

# After its connection is closed the thread has nothing left to wait for.
JOIN_S_MAX = 1.0
# A fork waits this long for a request under way; if that takes longer, the child may not be able to log.
FORK_WAIT_S_MAX = 2.0


class ThreadSender:
    """Takes events from any thread and sends them from its own; see the module."""

    def __init__(
        self,
        make_driver: Callable[[], OutboxDriver],
        make_transport: Callable[[], Transport],
        options: LoggerOptions,
    ) -> None:
        self._make_driver = make_driver
        self._make_transport = make_transport
        self._options = options
        # Connections of before a fork. Kept, because destroying them could disturb the parent's.
        self._transports_of_parent: list[Transport | None] = []
        self._begin()
        _watch_forks(self)

    def _begin(self) -> None:
        lock = threading.RLock()
        # Held while gRPC does something, and across a fork. Whoever wants it comes by the turnstile, which a fork
        # closes: else the thread that has just given it back would take it again and again before the fork can.
        self._calling = threading.Lock()
        self._turnstile = threading.Lock()
        self._held_by_fork: list[threading.Lock] = []
        self._lock = lock
        self._work = threading.Condition(lock)
        self._space = threading.Condition(lock)
        self._driver = self._make_driver()
        self._thread: threading.Thread | None = None
        self._transport: Transport | None = None

    def before_fork(self) -> None:
        """Let the call under way end, and no other begin."""
        locks = (self._turnstile, self._calling)
        self._held_by_fork = [lock for lock in locks if lock.acquire(timeout=FORK_WAIT_S_MAX)]

    def after_fork_in_parent(self) -> None:
        """Go on."""
        while self._held_by_fork:
            self._held_by_fork.pop().release()

    def after_fork_in_child(self) -> None:
        """Forget what belongs to the parent."""
        self._transports_of_parent.append(self._transport)
        closed = self._driver.closed
        self._begin()
        if closed:
            self._driver.close()

    # What producers do.

    def submit(self, submission: AckSubmission) -> None:
        """Hand over events. When the buffer is full: wait, raise BufferFull or drop, as the policy says."""
        with self._lock:
            if submission.handle.awaited and self._in_own_thread():
                raise EventStorageException(
                    "called by the logger's own thread (a callback of a future, or on_lost), which cannot wait "
                    "for itself; use log_buffered there"
                )
            while (settlement := self._driver.offer(submission)) is None:
                if self._in_own_thread():
                    raise BufferFull("the buffer is full, and the logger's own thread cannot wait for space")
                self._space.wait()
            self._start()
            if self._driver.should_wake_sender():
                self._work.notify()
        settlement.tell()

    def flush(self, timeout_s: float | None) -> None:
        """Wait until everything handed over before is settled; raise the first failure among it.

        Raises StorageUnavailable when the time is over.
        """
        with self._lock:
            pending = self._driver.urge()
            self._work.notify()
            transport = self._transport
        if self._in_own_thread():
            return
        if wait_for_futures([each.handle.future for each in pending], timeout_s).not_done:  # type: ignore[misc]
            raise not_flushed(timeout_s, pending)
        if (failure := first_failure(pending)) is not None:
            raise failure
        if self._options.durability is Durability.BUFFERED and transport is not None:
            try:
                with self._call():
                    transport.flush(timeout_s=timeout_s)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from error

    def begin_close(self) -> None:
        """Take nothing more in. The thread sends what is left and ends."""
        with self._lock:
            self._driver.close()
            self._work.notify_all()
            self._space.notify_all()

    def close(self, timeout_s: float) -> None:
        """Send what is left and end the thread. Raises StorageUnavailable for what is left after the time."""
        self.begin_close()
        thread = self._thread
        if thread is None or self._in_own_thread():
            return
        thread.join(timeout_s)
        if not thread.is_alive():
            return
        lost = self._abandon(f"close() waited {timeout_s:g} s in vain for the ingest service")
        thread.join(JOIN_S_MAX)
        if lost:
            raise StorageUnavailable(
                f"closed {timeout_s:g} s after the last event, with {lost} events not acknowledged; "
                "is the ingest service running? Give close() more time, or flush() before"
            )

    def statistics(self) -> ClientStatistics:
        """What happened so far."""
        with self._lock:
            return self._driver.statistics()

    # What the thread does.

    def _start(self) -> None:
        if self._thread is None:
            # Not beside a fork: the child would wait for ever for what gRPC holds while it makes its first connection.
            with self._call():
                self._transport = self._make_transport()
            self._thread = threading.Thread(
                target=self._run, args=(self._transport,), name="eventlog-sender", daemon=True
            )
            self._thread.start()
            atexit.register(self._at_exit)

    def _run(self, transport: Transport) -> None:
        try:
            while self._step(transport):
                pass
        except Exception as error:
            _logger.exception("the thread that sends events ended; nothing more is logged")
            self._abandon(f"the sending thread ended with {type(error).__name__}: {error}")
        finally:
            transport.close()
            atexit.unregister(self._at_exit)
            self._driver.report_rest()

    def _step(self, transport: Transport) -> bool:
        """Send one request or sleep until one is due. Returns False at the end."""
        with self._lock:
            request, settlement = self._driver.next_request()
            if request is None and not settlement.failed:
                if self._driver.finished:
                    return False
                self._work.wait(self._driver.wait_s())
                return True
            self._space.notify_all()
        settlement.tell()
        if request is not None:
            self._attempt(request, transport).tell()
        return True

    def _attempt(self, request: AckRequest, transport: Transport) -> Settlement:
        body, timeout_s = self._driver.encode(request)
        try:
            with self._call():
                response = transport.log_batch(body, timeout_s=timeout_s)
        except grpc.RpcError as error:
            with self._lock:
                return self._driver.refused(request, error)
        except TransportClosed:
            with self._lock:
                return self._driver.abandon("the connection was closed")
        with self._lock:
            return self._driver.answered(request, response)

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        """Use gRPC within: not while a fork is under way."""
        with self._turnstile:
            self._calling.acquire()
        try:
            yield
        finally:
            self._calling.release()

    def _abandon(self, why: str) -> int:
        """Fail all that is left, and end the attempt under way. Returns how many events were left."""
        with self._lock:
            settlement = self._driver.abandon(why)
            self._work.notify_all()
            self._space.notify_all()
            transport = self._transport
        if transport is not None:
            transport.close()
        settlement.tell()
        return sum(each.submission.count for each in settlement.failed)

    def _in_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _at_exit(self) -> None:
        with contextlib.suppress(EventException):  # what is lost was warned of
            self.close(self._options.exit_timeout_s)


def _watch_forks(sender: ThreadSender) -> None:
    """Have the sender told of forks for as long as it lives."""
    reference = weakref.ref(sender)

    def tell(method: Callable[[ThreadSender], None]) -> None:
        living = reference()
        if living is not None:
            method(living)

    os.register_at_fork(
        before=lambda: tell(ThreadSender.before_fork),
        after_in_parent=lambda: tell(ThreadSender.after_fork_in_parent),
        after_in_child=lambda: tell(ThreadSender.after_fork_in_child),
    )
