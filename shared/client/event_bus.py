"""EventBus: what a program emits is logged, and given to the handlers registered in the same process.

The log is the truth, handlers are company: an event is handed to the logger first, and only then to handlers,
which run in threads of their own. A handler that fails, hangs or is slow disturbs neither the emitter nor the
log; it may miss events (its queue is bounded), which is counted. There is no delivery to other processes here:
subscribe to the stream service for that.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar, overload

from shared.client.correlation import current_correlation_id
from shared.client.event_logger import ContextualLogger, EventLogger
from shared.client.handler_pool import HandlerPool
from shared.client.subscription import EmittedEvent, Handler, Subscription, SubscriptionStatistics
from shared.client.type_pattern import matches_pattern
from shared.clock import SystemClock
from shared.errors import EventStorageException

HandlerT = TypeVar("HandlerT", bound=Handler)

# Types for which the matching handlers are remembered.
MATCHES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """What a bus has done so far. The counts of handlers include those that were taken off."""

    emitted: int
    handlers: SubscriptionStatistics


class EventBus:
    """Emits events to a logger and to handlers. Thread-safe. Close it before the logger.

    `queue_events_max` events wait for each handler at most; `threads_max` handlers that are plain functions run
    at the same time. A bus does not survive a fork: make one in each process.
    """

    def __init__(
        self,
        logger: EventLogger | ContextualLogger,
        *,
        source: str | None = None,
        queue_events_max: int = 1_000,
        threads_max: int = 4,
    ) -> None:
        assert queue_events_max >= 1, queue_events_max
        assert threads_max >= 1, threads_max
        self._logger = logger
        self._source = source
        self._queue_events_max = queue_events_max
        self._pool = HandlerPool(threads_max)
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._subscriptions: list[Subscription] = []
        self._matches: dict[str, list[Subscription]] = {}
        self._gone = SubscriptionStatistics()
        self._emitted = 0
        self._closed = False

    def emit(self, event_type: str, data: Mapping[str, Any]) -> None:
        """Log an event, without waiting for its acknowledgement, and give it to the handlers of its type.

        Returns before the handlers run. They run in the emitter's context, so what they log inherits its
        correlation id. May be called by a handler. Raises what EventLogger.log_buffered raises, in which case no
        handler gets the event; an event that fails later is reported as the logger reports it.
        """
        with self._lock:
            self._check_open()
        self._logger.log_buffered(event_type, data, self._source)
        with self._lock:
            self._emitted += 1
            matching = self._matching(event_type)
        if not matching:
            return
        correlation_id = getattr(self._logger, "correlation_id", None) or current_correlation_id()
        event = EmittedEvent(event_type, MappingProxyType(dict(data)), correlation_id)
        for subscription in matching:
            # One context each: a context cannot be entered twice at a time.
            subscription.deliver(event, copy_context())

    @overload
    def on(self, event_type: str, handler: Handler) -> Subscription: ...

    @overload
    def on(self, event_type: str) -> Callable[[HandlerT], HandlerT]: ...

    def on(self, event_type: str, handler: Handler | None = None) -> Subscription | Callable[[HandlerT], HandlerT]:
        """Have the handler called with each EmittedEvent of this type; * and ? make it a pattern.

        The handler is a function or a coroutine function. The latter runs in the event loop in which on() is
        called, or in one of the bus if there is none. Each handler gets its events in order, one at a time.
        Returns a subscription for off(). Without a handler it is a decorator that returns the function as it is.
        """
        if handler is not None:
            return self._add(event_type, handler)

        def register(decorated: HandlerT) -> HandlerT:
            self._add(event_type, decorated)
            return decorated

        return register

    def off(self, target: Subscription | Handler) -> int:
        """Take off a subscription, or all subscriptions of a handler. Returns how many there were."""
        with self._lock:
            found = [each for each in self._subscriptions if each is target or each.handler == target]
            for subscription in found:
                subscription.cancel()
                self._subscriptions.remove(subscription)
                self._gone += subscription.statistics()
            self._matches.clear()
        return len(found)

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all handlers have done what was emitted so far, and rest.

        `timeout` is in seconds. Returns whether they do. Not for handlers: they would wait for themselves.
        """
        deadline_s = None if timeout is None else self._clock.monotonic_s() + timeout
        with self._lock:
            subscriptions = list(self._subscriptions)
        idle = True
        for subscription in subscriptions:
            left_s = None if deadline_s is None else max(deadline_s - self._clock.monotonic_s(), 0.0)
            idle &= subscription.wait_idle(left_s)
        return idle

    def close(self, timeout: float = 5.0) -> None:
        """Take nothing more, let the handlers finish for up to `timeout` seconds, and end. Leaves the logger open."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.drain(timeout)
        for subscription in list(self._subscriptions):
            self.off(subscription)
        self._pool.close()

    def statistics(self) -> BusStatistics:
        """Counts so far; a snapshot."""
        with self._lock:
            together = self._gone
            for subscription in self._subscriptions:
                together += subscription.statistics()
            return BusStatistics(self._emitted, together)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, pattern: str, handler: Handler) -> Subscription:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        subscription = Subscription(pattern, handler, self._pool, queue_events_max=self._queue_events_max, loop=loop)
        with self._lock:
            self._check_open()
            self._subscriptions.append(subscription)
            self._matches.clear()
        return subscription

    def _matching(self, event_type: str) -> list[Subscription]:
        matching = self._matches.get(event_type)
        if matching is None:
            if len(self._matches) >= MATCHES_MAX:
                self._matches.clear()
            matching = [each for each in self._subscriptions if matches_pattern(each.pattern, event_type)]
            self._matches[event_type] = matching
        return matching

    def _check_open(self) -> None:
        if self._closed:
            raise EventStorageException("the event bus is closed; make a new one")
