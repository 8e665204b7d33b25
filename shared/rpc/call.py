"""What surrounds every RPC: request id, metrics, errors, logs. One Rpc for each method, one _Call for each call.

Invariants: requests are parsed and responses serialised here, not in gRPC, so that a malformed request is an
answer with a reason; every call that began is counted as ended; an exception that is not an EventException
tells the caller nothing but its request id; a response generator is closed before the call ends.
Servicers raise; they set no codes. Does not authenticate.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from shared.clock import Clock
from shared.errors import EventException, EventStreamException
from shared.rpc.drain import Drain, draining_error
from shared.rpc.reasons import INTERNAL
from shared.rpc.status import internal_error, reason_of, to_status
from shared.telemetry.request_id import accepted_request_id, current_request_id, new_request_id
from shared.telemetry.rpc_metrics import MethodMetrics, RpcMetrics

REQUEST_ID_KEY = "x-request-id"

Context = grpc.aio.ServicerContext[bytes, bytes]

_log = logging.getLogger("eventlog.rpc")

_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_LEVELS = {
    grpc.StatusCode.INTERNAL: logging.ERROR,
    grpc.StatusCode.DATA_LOSS: logging.ERROR,
    grpc.StatusCode.UNAVAILABLE: logging.WARNING,
    grpc.StatusCode.RESOURCE_EXHAUSTED: logging.WARNING,
    grpc.StatusCode.DEADLINE_EXCEEDED: logging.WARNING,
}


@dataclass(frozen=True, slots=True)
class RpcEnvironment:
    """What the calls of a process share."""

    metrics: RpcMetrics
    clock: Clock
    drain: Drain


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of a service. Its four coroutines are what gRPC calls, by the kind of the method."""

    # Full name, such as "eventlog.v1.IngestService/LogBatch".
    name: str
    # The servicer's method: a coroutine function, or an async generator function where the response streams.
    behaviour: Callable[..., Any]
    parse: Callable[[bytes], Any]
    serialise: Callable[[Any], bytes]
    metrics: MethodMetrics
    environment: RpcEnvironment
    # Whether the caller is sent the request id before the first response: costs an operation of its own.
    greets: bool
    # Whether the method is refused during a drain.
    drains: bool
    # How long a response of a stream may wait for its caller to take it; None for any time.
    write_timeout_s: float | None = None

    async def unary_unary(self, request: bytes, context: Context) -> bytes:
        """Serve one request with one response."""
        async with _Call(self, context) as call:
            await call.begin()
            return call.sent(await self._answer(call.received(request), context))

    async def unary_stream(self, request: bytes, context: Context) -> None:
        """Serve one request with a stream of responses."""
        async with _Call(self, context) as call:
            await call.begin()
            await call.send_all(self.behaviour(call.received(request), context))

    async def stream_unary(self, requests: AsyncIterable[bytes], context: Context) -> bytes:
        """Serve a stream of requests with one response."""
        async with _Call(self, context) as call, aclosing(_Requests(call, requests)) as parsed:
            await call.begin()
            return call.sent(await self._answer(parsed, context))

    async def stream_stream(self, requests: AsyncIterable[bytes], context: Context) -> None:
        """Serve a stream of requests with a stream of responses."""
        async with _Call(self, context) as call, aclosing(_Requests(call, requests)) as parsed:
            await call.begin()
            await call.send_all(self.behaviour(parsed, context))

    def _answer(self, request: object, context: Context) -> Awaitable[Any]:
        answer: Awaitable[Any] = self.behaviour(request, context)
        return answer


class _Requests:
    """The parsed requests of a stream. A malformed one raises where the servicer reads it."""

    __slots__ = ("_call", "_raw")

    def __init__(self, call: "_Call", raw: AsyncIterable[bytes]) -> None:
        self._call = call
        self._raw = aiter(raw)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return self._call.received(await anext(self._raw))

    async def aclose(self) -> None:
        """Let go of requests that the servicer did not read."""
        # gRPC reads with an async generator, which the event loop would complain about if it were left open.
        if isinstance(self._raw, AsyncGenerator):
            await self._raw.aclose()


class _Call:
    """One call, from its first byte to its status."""

    __slots__ = ("_context", "_request_id", "_rpc", "_started_s")

    def __init__(self, rpc: Rpc, context: Context) -> None:
        self._rpc = rpc
        self._context = context
        self._request_id = ""
        self._started_s = 0.0

    async def __aenter__(self) -> Self:
        self._started_s = self._rpc.environment.clock.monotonic_s()
        self._rpc.metrics.began()
        return self

    async def begin(self) -> None:
        """Bind and echo the request id; refuse the call if the service drains."""
        brought = _brought_request_id(self._context)
        self._request_id = brought or new_request_id()
        current_request_id.set(self._request_id)
        if brought or self._rpc.greets:
            # Costs an operation of its own: whoever did not ask learns the id where a call fails.
            await self._context.send_initial_metadata(((REQUEST_ID_KEY, self._request_id),))
        if self._rpc.drains and self._rpc.environment.drain.begun:
            await self._rpc.environment.drain.refuse("the service")

    def received(self, request: bytes) -> Any:
        """Count and parse a request."""
        self._rpc.metrics.received_bytes(len(request))
        return self._rpc.parse(request)

    def sent(self, response: Any) -> bytes:
        """Serialise and count a response."""
        message = self._rpc.serialise(response)
        self._rpc.metrics.sent_bytes(len(message))
        return message

    async def send_all(self, responses: Any) -> None:
        """Send what an async generator yields, and close it, however the call ends.

        A response that its caller does not take in time raises in the generator, where it was yielded.
        """
        drain = self._rpc.environment.drain
        async with aclosing(responses):
            async for response in responses:
                message = self.sent(response)
                try:
                    async with drain.write_timeout(self._rpc.write_timeout_s):
                        await self._context.write(message)
                except TimeoutError:
                    await responses.athrow(_not_taken(drain))
                    raise AssertionError("nothing more can be sent") from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._ended("OK")
        elif isinstance(error, grpc.aio.AbortError):
            # The servicer ended the call itself; gRPC has sent the status.
            self._ended(_CODE_NAMES.get(_number(self._context.code()), "UNKNOWN"))
        elif _is_cancellation(error):
            self._ended("CANCELLED")
        elif isinstance(error, Exception | asyncio.CancelledError):
            await self._fail(sole_cause(error))
        else:
            self._ended("UNKNOWN")  # the process is being stopped

    async def _fail(self, error: BaseException) -> None:
        """Log the error and end the call with its status. Raises grpc.aio.AbortError, as gRPC expects."""
        answer = error if isinstance(error, EventException) else internal_error(self._request_id)
        reason = reason_of(answer)
        if reason.name == INTERNAL:
            answer.metadata.setdefault("request_id", self._request_id)
        self._ended(reason.code.name, reason=reason.name, error=error, level=_LEVELS.get(reason.code, logging.INFO))
        status = to_status(answer)
        assert status.trailing_metadata is not None
        trailing = (*status.trailing_metadata, (REQUEST_ID_KEY, self._request_id))
        await self._context.abort(status.code, status.details, trailing)

    def _ended(
        self,
        code: str,
        *,
        reason: str | None = None,
        error: BaseException | None = None,
        level: int = logging.DEBUG,
    ) -> None:
        """Count and log the end of the call."""
        seconds = self._rpc.environment.clock.monotonic_s() - self._started_s
        self._rpc.metrics.ended(code=code, reason=reason, seconds=seconds)
        if not _log.isEnabledFor(level):
            return
        fields: dict[str, object] = {"rpc": self._rpc.name, "code": code, "duration_ms": round(seconds * 1000, 3)}
        fields["peer"] = self._context.peer()
        if error is not None:
            fields |= {"reason": reason, "problem": str(error)}
        trace = error if reason == INTERNAL else None
        _log.log(level, "call ended" if error is None else "call failed", extra=fields, exc_info=trace)


def _not_taken(drain: Drain) -> EventException:
    if drain.begun:
        return draining_error("the service")
    return EventStreamException(
        "the caller has taken nothing for too long: resume where it was, and take what comes", reason="SLOW_CONSUMER"
    )


def sole_cause(error: BaseException) -> BaseException:
    """Return the exception inside groups of one, such as a TaskGroup raises; otherwise the error itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _brought_request_id(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY:
            return accepted_request_id(value)
    return None


def _is_cancellation(error: BaseException) -> bool:
    """Whether the call was cancelled, by the caller, its deadline or the end of the server.

    A CancelledError without that comes from something that the servicer awaited: a fault, and gRPC would
    leave its caller without any status.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _number(code: object) -> int:
    return code.value[0] if isinstance(code, grpc.StatusCode) else int(str(code))
