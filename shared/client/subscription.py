"""One handler of an event bus: its queue, its order, its failures.

A handler gets its events one at a time and in the order in which they were emitted. Its queue is bounded: when
it is full the oldest event gives way, counted; the log has it all the same. What a handler raises is counted and
logged, and ends nothing.
"""

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from shared.client.handler_pool import HandlerPool

_logger = logging.getLogger(__name__)

# Events that one handler gets before another gets its turn in the thread.
TURN_EVENTS = 16


@dataclass(frozen=True, slots=True)
class EmittedEvent:
    """What a handler gets."""

    type: str
    # Shared by all handlers, and read-only.
    data: MappingProxyType[str, Any]
    correlation_id: str | None


Handler = Callable[[EmittedEvent], None] | Callable[[EmittedEvent], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """Counts of one handler, or of all of a bus."""

    handled: int = 0
    failed: int = 0
    dropped: int = 0
    waiting: int = 0

    def __add__(self, other: "SubscriptionStatistics") -> "SubscriptionStatistics":
        return SubscriptionStatistics(
            self.handled + other.handled,
            self.failed + other.failed,
            self.dropped + other.dropped,
            self.waiting + other.waiting,
        )


class Subscription:
    """A handler registered with EventBus.on(). cancel() ends it. Thread-safe."""

    def __init__(
        self,
        pattern: str,
        handler: Handler,
        pool: HandlerPool,
        *,
        queue_events_max: int,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.pattern = pattern
        self.handler = handler
        self._pool = pool
        self._queue_events_max = queue_events_max
        self._asynchronous = _is_asynchronous(handler)
        # Loop of an asynchronous handler: the one in which it was registered, else the pool's.
        self._loop = loop
        self._condition = threading.Condition()
        self._queue: deque[tuple[EmittedEvent, Context]] = deque()
        self._running = False
        self._cancelled = False
        self._task: asyncio.Task[None] | None = None
        self._handled = self._failed = self._dropped = 0

    def deliver(self, event: EmittedEvent, context: Context) -> None:
        """Queue an event; the handler runs in the context, elsewhere and soon."""
        with self._condition:
            if self._cancelled:
                return
            if len(self._queue) >= self._queue_events_max:
                self._queue.popleft()
                self._dropped += 1
            self._queue.append((event, context))
            if self._running:
                return
            self._running = True
        self._schedule()

    def cancel(self) -> None:
        """No event reaches the handler any more, except one that it is handling now."""
        with self._condition:
            self._cancelled = True
            self._queue.clear()

    def wait_idle(self, timeout_s: float | None) -> bool:
        """Wait until nothing is queued and the handler rests. Returns False when the time is over."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._running, timeout_s)

    def statistics(self) -> SubscriptionStatistics:
        """What happened so far."""
        with self._condition:
            return SubscriptionStatistics(self._handled, self._failed, self._dropped, len(self._queue))

    def _schedule(self) -> None:
        if not self._asynchronous:
            self._pool.submit(self._take_turn)
            return
        loop = self._loop or self._pool.loop()
        try:
            loop.call_soon_threadsafe(self._start_task, loop)
        except RuntimeError:  # the loop is closed: nobody can run the handler any more
            self._stop("has a closed event loop; call off() before closing it")

    def _next(self) -> tuple[EmittedEvent, Context] | None:
        """The next event; None, and at rest, where there is none."""
        with self._condition:
            if self._queue:
                return self._queue.popleft()
            self._running = False
            self._condition.notify_all()
            return None

    def _take_turn(self) -> None:
        for _ in range(TURN_EVENTS):
            queued = self._next()
            if queued is None:
                return
            event, context = queued
            try:
                context.run(self._call, event)
            except BaseException as error:  # noqa: BLE001 — whatever a handler raises disturbs nobody
                self._count_failure(event, error)
            else:
                self._count_success()
        self._pool.submit(self._take_turn)

    def _call(self, event: EmittedEvent) -> None:
        result = self.handler(event)
        if inspect.isawaitable(result):  # a plain function that returns a coroutine
            asyncio.run_coroutine_threadsafe(_await(result), self._loop or self._pool.loop()).result()

    def _start_task(self, loop: asyncio.AbstractEventLoop) -> None:
        # Kept, because a loop holds its tasks weakly.
        self._task = loop.create_task(self._drain(loop), name=f"eventlog-handler-{self.pattern}")

    async def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        while (queued := self._next()) is not None:
            event, context = queued
            task = loop.create_task(self._call_asynchronously(event), context=context)
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:  # the loop ends
                task.cancel()
                self._stop("was cancelled with its event loop")
                raise
            if task.cancelled():
                self._count_failure(event, RuntimeError("the handler was cancelled"))
            elif (error := task.exception()) is not None:
                self._count_failure(event, error)
            else:
                self._count_success()

    async def _call_asynchronously(self, event: EmittedEvent) -> None:
        result = self.handler(event)
        assert result is not None, "an asynchronous handler returns an awaitable"
        await result

    def _stop(self, why: str) -> None:
        """Give up what is queued: nobody can run the handler any more."""
        with self._condition:
            left = len(self._queue)
            self._failed += left
            self._queue.clear()
            self._running = False
            self._condition.notify_all()
        _logger.warning("the handler for %r %s; %d events did not reach it", self.pattern, why, left)

    def _count_success(self) -> None:
        with self._condition:
            self._handled += 1

    def _count_failure(self, event: EmittedEvent, error: BaseException) -> None:
        with self._condition:
            self._failed += 1
        _logger.error("the handler for %r failed at an event of type %r", self.pattern, event.type, exc_info=error)


def _is_asynchronous(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 — an object whose __call__ is asynchronous
    )


async def _await(result: Awaitable[None]) -> None:
    await result
