"""The task that sends what an asynchronous logger hands over.

It lives in the event loop in which the logger is first used, begins with the first event, and must be closed
there: a loop that ends takes unsent events with it (they fail, and a warning says how many).
"""

import asyncio
import logging
from collections.abc import Callable

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
from shared.client.transport import AsyncTransport
from shared.errors import EventStorageException, StorageUnavailable
from shared.rpc.status import from_rpc_error

_logger = logging.getLogger(__name__)


class TaskSender:
    """Takes events in one event loop and sends them from a task of it; see the module."""

    def __init__(
        self, driver: OutboxDriver, make_transport: Callable[[], AsyncTransport], options: LoggerOptions
    ) -> None:
        self._driver = driver
        self._make_transport = make_transport
        self._options = options
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: AsyncTransport | None = None
        self._work = asyncio.Event()
        self._space = asyncio.Event()

    # What producers do.

    async def submit(self, submission: AckSubmission) -> None:
        """Hand over events. When the buffer is full: wait, raise BufferFull or drop, as the policy says."""
        self._check_loop()
        while (settlement := self._driver.offer(submission)) is None:
            self._space.clear()
            await self._space.wait()
        self._start()
        if self._driver.should_wake_sender():
            self._work.set()
        settlement.tell()

    async def flush(self, timeout_s: float | None) -> None:
        """Wait until everything handed over before is settled; raise the first failure among it.

        Raises StorageUnavailable when the time is over.
        """
        self._check_loop()
        pending = self._driver.urge()
        self._work.set()
        if pending:
            futures = [each.handle.future for each in pending]
            if (await asyncio.wait(futures, timeout=timeout_s))[1]:  # type: ignore[type-var]
                raise not_flushed(timeout_s, pending)
        if (failure := first_failure(pending)) is not None:
            raise failure
        if self._options.durability is Durability.BUFFERED and self._transport is not None:
            try:
                await self._transport.flush(timeout_s=timeout_s)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from error

    async def close(self, timeout_s: float) -> None:
        """Send what is left and end the task. Raises StorageUnavailable for what is left after the time."""
        self._check_loop()
        self._driver.close()
        self._work.set()
        self._space.set()
        if self._task is None:
            return
        await asyncio.wait([self._task], timeout=timeout_s)
        if self._task.done():
            return
        lost = self._abandon(f"close() waited {timeout_s:g} s in vain for the ingest service")
        self._task.cancel()
        await asyncio.wait([self._task])
        if lost:
            raise StorageUnavailable(
                f"closed {timeout_s:g} s after the last event, with {lost} events not acknowledged; "
                "is the ingest service running? Give close() more time, or flush() before"
            )

    def statistics(self) -> ClientStatistics:
        """What happened so far."""
        return self._driver.statistics()

    # What the task does.

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise EventStorageException("this AsyncEventLogger belongs to another event loop; make one in each loop")

    def _start(self) -> None:
        if self._task is None:
            self._transport = self._make_transport()
            self._task = asyncio.create_task(self._run(self._transport), name="eventlog-sender")

    async def _run(self, transport: AsyncTransport) -> None:
        try:
            while await self._step(transport):
                pass
        except asyncio.CancelledError:
            self._abandon("the event loop ended before close()")
            raise
        except Exception as error:
            _logger.exception("the task that sends events ended; nothing more is logged")
            self._abandon(f"the sending task ended with {type(error).__name__}: {error}")
        finally:
            self._driver.report_rest()
            await transport.close()

    async def _step(self, transport: AsyncTransport) -> bool:
        """Send one request or sleep until one is due. Returns False at the end."""
        request, settlement = self._driver.next_request()
        self._space.set()
        settlement.tell()
        if request is not None:
            (await self._attempt(request, transport)).tell()
        elif self._driver.finished:
            return False
        elif not settlement.failed:
            await self._sleep(self._driver.wait_s())
        return True

    async def _attempt(self, request: AckRequest, transport: AsyncTransport) -> Settlement:
        body, timeout_s = self._driver.encode(request)
        try:
            response = await transport.log_batch(body, timeout_s=timeout_s)
        except grpc.RpcError as error:
            return self._driver.refused(request, error)
        return self._driver.answered(request, response)

    async def _sleep(self, seconds: float | None) -> None:
        self._work.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._work.wait()
        except TimeoutError:
            pass

    def _abandon(self, why: str) -> int:
        settlement = self._driver.abandon(why)
        self._space.set()
        settlement.tell()
        return sum(each.submission.count for each in settlement.failed)
