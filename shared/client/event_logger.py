"""EventLogger, which logs events from any thread, and ContextualLogger, the same under one correlation id.

`log` returns when its event is acknowledged, that is (by default) synced to disk. It does not pay for that
alone: while one request is under way, the events of all threads gather, and travel in the next one.
`log_buffered` does not wait. See docs/decisions/0004-client-acknowledgements.md.

What is done where: event_encoder makes the bytes, outbox decides what is sent when, thread_sender sends it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
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
from shared.client.thread_sender import ThreadSender
from shared.client.transport import GrpcTransport
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
        limits = limits_of(config, options)
        address = address_of(config, options)
        self.sender = ThreadSender(
            lambda: OutboxDriver(limits, options, clock, RequestIds()),
            lambda: GrpcTransport(address),
            options,
        )

    def hand_over(self, fragment: bytes, *, count: int, single: bool, awaited: bool) -> Future[Any]:
        """Give encoded events to the sender. A future of the id, or of the list of ids."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # what is handed over cannot be called back
        handle = Acknowledgement(future, single=single, awaited=awaited)
        urgent = awaited or self.waits_always
        self.sender.submit(Submission(fragment, count, handle, urgent=urgent))
        if self.waits_always:
            wait_for_futures([future])
        return future


class _LoggingMethods:
    """The methods that EventLogger and ContextualLogger have in common."""

    _engine: _Engine
    _correlation_id: str | None

    def log(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        source: str | None = None,
        correlation_id: str | None = None,
        **fields: Unpack[EventFields],
    ) -> str:
        """Log an event and return its id, when it is acknowledged: durable, unless the options say BUFFERED.

        Without a correlation id the event takes that of the contextual logger, else that of the innermost
        `with_correlation` around the call. Waits for one round trip to the service, longer while that fails:
        attempts go on for `give_up_after_s`.

        Raises EventValidationException (the event is wrong), StorageUnavailable (given up; the message says
        whether it may have been logged all the same), BufferFull (refused or dropped by the overflow policy),
        EventStorageException (the logger is closed).
        """
        return self._log_one(event_type, payload, source, correlation_id, fields, awaited=True).result()

    def log_buffered(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        source: str | None = None,
        correlation_id: str | None = None,
        **fields: Unpack[EventFields],
    ) -> Future[str]:
        """Log an event without waiting for it: it is sent within `logging.flush_interval`.

        Returns a future of the id; its result() waits and raises like log(). An event that fails unobserved is
        counted, warned of, and told to `on_lost`. Waits only where the buffer is full and the policy is BLOCK.
        With `logging.async_writes` off it returns when the event is acknowledged or has failed.

        Raises EventValidationException, BufferFull (policy RAISE), EventStorageException (closed).
        """
        return self._log_one(event_type, payload, source, correlation_id, fields, awaited=False)

    def log_structured(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        source: str | None = None,
        correlation_id: str | None = None,
        **fields: Unpack[EventFields],
    ) -> str:
        """log(), for a payload that has the schema of its type: a standard one, or one of register_schema().

        Raises EventValidationException naming each field that is wrong, or that the type has no schema.
        """
        self._engine.registry.validate(event_type, payload)
        return self.log(event_type, payload, source, correlation_id, **fields)

    def log_error(
        self,
        error: BaseException | str,
        source: str | None = None,
        correlation_id: str | None = None,
        *,
        event_type: str = ERROR_TYPE,
        context: Mapping[str, Any] | None = None,
        **fields: Unpack[EventFields],
    ) -> str:
        """Log an exception with its traceback and causes, or a message.

        A message takes along the exception that is being handled, if any. `context` becomes payload.context.
        The payload is described in shared.client.error_payload. Waits and raises like log().
        """
        return self.log(event_type, error_payload(error, context), source, correlation_id, **fields)

    def log_batch(self, events: Sequence[Event]) -> list[str]:
        """Log events atomically: all of them, at consecutive positions in their order, or none.

        Returns their ids. The `id` that an event has already is not used: the log gives it a new one. Waits and
        raises like log(); violations name the event's index. Raises EventValidationException with the reason
        BATCH_TOO_LARGE for more than 10,000 events or 16 MiB.
        """
        if not events:
            return []
        fragment = self._engine.encoder.encode_batch(events, self._correlation_id)
        ids: list[str] = self._engine.hand_over(fragment, count=len(events), single=False, awaited=True).result()
        return ids

    def with_correlation(self, correlation_id: str) -> "ContextualLogger":
        """A logger whose events have this correlation id.

        In a `with` it also sets the id for everything called inside, asyncio tasks made there included, that logs
        without an id of its own. Threads do not inherit it: hand them the contextual logger.
        """
        return ContextualLogger(self._engine, correlation_id)

    def _log_one(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        source: str | None,
        correlation_id: str | None,
        fields: EventFields,
        *,
        awaited: bool,
    ) -> Future[str]:
        fragment = self._engine.encoder.encode_one(
            event_type, payload, source, correlation_id or self._correlation_id, fields
        )
        return self._engine.hand_over(fragment, count=1, single=True, awaited=awaited)


class EventLogger(_LoggingMethods):
    """Logs events to the ingest service that the configuration names. Any number of threads may use one.

    It connects with the first event, not before. Close it, or use it in a `with`: what is buffered is sent then.
    When the interpreter exits first, that is done for up to `exit_timeout_s`; a process that ends by os._exit
    (as multiprocessing's children do) must close it itself. After a fork the child's logger is as new.
    """

    def __init__(
        self, config: EventConfig, options: LoggerOptions | None = None, *, clock: Clock | None = None
    ) -> None:
        self._engine = _Engine(config, options or LoggerOptions(), clock or SystemClock())
        self._correlation_id = None

    def register_schema(self, event_type: str, schema: Any) -> None:
        """Have log_structured() check payloads of this type against the schema."""
        self._engine.registry.register(event_type, schema)

    def flush(self, timeout: float | None = None) -> None:
        """Send what is buffered, now, and wait until everything logged before the call is acknowledged.

        With the options' durability BUFFERED it also has the service sync it. `timeout` is in seconds, None
        waits as long as the attempts go on. Raises the error of the first event that fails meanwhile, and
        StorageUnavailable when the time is over (the events are still being sent).
        """
        self._engine.sender.flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Send what is buffered and end. Logging afterwards raises EventStorageException.

        `timeout` is in seconds; None is the options' close_timeout_s. What is not acknowledged by then fails, and
        StorageUnavailable says how many events. Closing again does nothing.
        """
        self._engine.sender.close(self._engine.options.close_timeout_s if timeout is None else timeout)

    def statistics(self) -> ClientStatistics:
        """Counts of what happened so far; a snapshot."""
        return self._engine.sender.statistics()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ContextualLogger(_LoggingMethods):
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
