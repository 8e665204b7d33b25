"""AsyncEventLogger and AsyncContextualLogger: EventLogger and ContextualLogger for asyncio.

Everything that differs from the threaded form is the waiting; what is logged, when, and how often it is tried is
decided by the same code. One logger belongs to the event loop in which it is first used.
"""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from shared.client.acknowledgement import Acknowledgement
from shared.client.call_fields import EventFields
from shared.client.correlation import CorrelationScope
from shared.client.error_payload import ERROR_TYPE, error_payload
from shared.client.event_encoder import EventEncoder
from shared.client.options import LoggerOptions, address_of, limits_of
from shared.client.outbox_driver import OutboxDriver
from shared.client.request_ids import RequestIds
from shared.client.statistics import ClientStatistics
from shared.client.submission import Submission
from shared.client.task_sender import TaskSender
from shared.client.transport import AsyncGrpcTransport
from shared.clock import Clock, SystemClock
from shared.config import EventConfig
from shared.events import Event, SchemaRegistry


class _Engine:
    """What a logger and its contextual loggers share."""

    def __init__(self, config: EventConfig, options: LoggerOptions, clock: Clock) -> None:
        self.options = options
        self.encoder = EventEncoder(options, clock)
        self.registry = SchemaRegistry()
        self.waits_always = not config.logging.async_writes
        address = address_of(config, options)
        driver = OutboxDriver(limits_of(config, options), options, clock, RequestIds())
        self.sender = TaskSender(driver, lambda: AsyncGrpcTransport(address), options)

    async def hand_over(self, fragment: bytes, *, count: int, single: bool, awaited: bool) -> asyncio.Future[Any]:
        """Give encoded events to the sender. A future of the id, or of the list of ids."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        handle = Acknowledgement(future, single=single, awaited=awaited)
        urgent = awaited or self.waits_always
        await self.sender.submit(Submission(fragment, count, handle, urgent=urgent))
        if self.waits_always:
            await asyncio.wait([future])
        return future


class _AsyncLoggingMethods:
    """The methods that AsyncEventLogger and AsyncContextualLogger have in common."""

    _engine: _Engine
    _correlation_id: str | None

    async def log(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        source: str | None = None,
        correlation_id: str | None = None,
        **fields: Unpack[EventFields],
    ) -> str:
        """Log an event and return its id, when it is acknowledged; as EventLogger.log.

        A task that is cancelled while it waits has not called the event back: it is logged all the same.
        """
        future = await self._log_one(event_type, payload, source, correlation_id, fields, awaited=True)
        return await future

    async def log_buffered(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        source: str | None = None,
        correlation_id: str | None = None,
        **fields: Unpack[EventFields],
    ) -> asyncio.Future[str]:
        """Log an event without waiting for it; as EventLogger.log_buffered.

        Awaiting this waits for space in the buffer only; awaiting the future that it returns, for the id.
        """
        return await self._log_one(event_type, payload, source, correlation_id, fields, awaited=False)

    async def log_structured(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        source: str | None = None,
        correlation_id: str | None = None,
        **fields: Unpack[EventFields],
    ) -> str:
        """log(), for a payload that has the schema of its type; as EventLogger.log_structured."""
        self._engine.registry.validate(event_type, payload)
        return await self.log(event_type, payload, source, correlation_id, **fields)

    async def log_error(
        self,
        error: BaseException | str,
        source: str | None = None,
        correlation_id: str | None = None,
        *,
        event_type: str = ERROR_TYPE,
        context: Mapping[str, Any] | None = None,
        **fields: Unpack[EventFields],
    ) -> str:
        """Log an exception with its traceback and causes, or a message; as EventLogger.log_error."""
        return await self.log(event_type, error_payload(error, context), source, correlation_id, **fields)

    async def log_batch(self, events: Sequence[Event]) -> list[str]:
        """Log events atomically, in one request; as EventLogger.log_batch."""
        if not events:
            return []
        fragment = self._engine.encoder.encode_batch(events, self._correlation_id)
        future = await self._engine.hand_over(fragment, count=len(events), single=False, awaited=True)
        ids: list[str] = await future
        return ids

    def with_correlation(self, correlation_id: str) -> "AsyncContextualLogger":
        """A logger whose events have this correlation id; for `with` and `async with`, as in EventLogger."""
        return AsyncContextualLogger(self._engine, correlation_id)

    async def _log_one(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        source: str | None,
        correlation_id: str | None,
        fields: EventFields,
        *,
        awaited: bool,
    ) -> asyncio.Future[str]:
        fragment = self._engine.encoder.encode_one(
            event_type, payload, source, correlation_id or self._correlation_id, fields
        )
        return await self._engine.hand_over(fragment, count=1, single=True, awaited=awaited)


class AsyncEventLogger(_AsyncLoggingMethods):
    """Logs events to the ingest service that the configuration names, from the tasks of one event loop.

    It connects with the first event, not before. Use it in an `async with`, or await close() before the loop
    ends: a loop that ends fails what is still buffered.
    """

    def __init__(
        self, config: EventConfig, options: LoggerOptions | None = None, *, clock: Clock | None = None
    ) -> None:
        self._engine = _Engine(config, options or LoggerOptions(), clock or SystemClock())
        self._correlation_id = None

    def register_schema(self, event_type: str, schema: Any) -> None:
        """Have log_structured() check payloads of this type against the schema."""
        self._engine.registry.register(event_type, schema)

    async def flush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 — as EventLogger.flush
        """Send what is buffered, and wait until it is acknowledged; as EventLogger.flush."""
        await self._engine.sender.flush(timeout)

    async def close(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 — as EventLogger.close
        """Send what is buffered and end; as EventLogger.close."""
        await self._engine.sender.close(self._engine.options.close_timeout_s if timeout is None else timeout)

    def statistics(self) -> ClientStatistics:
        """Counts of what happened so far; a snapshot."""
        return self._engine.sender.statistics()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncContextualLogger(_AsyncLoggingMethods):
    """A logger under one correlation id; made by with_correlation(). Needs no closing."""

    def __init__(self, engine: _Engine, correlation_id: str) -> None:
        self._engine = engine
        self._scope = CorrelationScope(correlation_id)
        self._correlation_id = correlation_id

    @property
    def correlation_id(self) -> str:
        """The id of its events."""
        return self._scope.correlation_id

    def __enter__(self) -> Self:
        self._scope.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.leave()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.leave()
