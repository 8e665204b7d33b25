"""A servicer as a gRPC handler, made from the service's descriptor in the protos.

For each RPC the servicer has a method of the RPC's name in snake_case, (request, context):

    async def get_event(self, request: GetEventRequest, context: Context) -> GetEventResponse: ...
    async def query(self, request: QueryRequest, context: Context) -> AsyncIterator[QueryResponse]: ...  # yields
    async def log_stream(self, requests: AsyncIterator[LogStreamRequest], context: Context) -> AsyncIterator[…]: ...

Invariant: an RPC without a method answers UNIMPLEMENTED, NOT_IMPLEMENTED; no generated servicer base is needed.
"""

import inspect
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from shared.errors import EventException, EventValidationException
from shared.rpc.call import Rpc, RpcEnvironment

F = TypeVar("F", bound=Callable[..., Any])

_RAW_REQUEST = "eventlog_raw_request"
_RAW_RESPONSE = "eventlog_raw_response"

_HANDLERS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    # (requests stream, responses stream)
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def raw_request(method: F) -> F:
    """Mark a servicer's method: it takes each request as the bytes that were sent, which it parses itself."""
    method.__dict__[_RAW_REQUEST] = True
    return method


def raw_response(method: F) -> F:
    """Mark a servicer's method: it gives each response as the bytes to send."""
    method.__dict__[_RAW_RESPONSE] = True
    return method


def service_handler(
    descriptor: ServiceDescriptor,
    servicer: object,
    environment: RpcEnvironment,
    *,
    name: str | None = None,
    drains: bool = True,
    write_timeout_s: float | None = None,
) -> grpc.GenericRpcHandler:
    """Return the handler of a service, for grpc.aio.Server.add_generic_rpc_handlers.

    name: under which to serve it, where that is not the descriptor's full name. drains: whether its calls are
    refused with SERVER_DRAINING once environment.drain has begun. write_timeout_s: how long a response of a stream
    may wait for its caller to take it, before SLOW_CONSUMER is raised in the generator that yielded it.
    """
    service = name or descriptor.full_name
    handlers = {}
    for method in descriptor.methods:
        behaviour = getattr(servicer, snake_case(method.name), None)
        rpc = _rpc(service, method, behaviour, environment, drains=drains)
        rpc = replace(rpc, write_timeout_s=write_timeout_s)
        kind, handler = _HANDLERS[method.client_streaming, method.server_streaming]
        handlers[method.name] = handler(getattr(rpc, kind))
    return grpc.method_handlers_generic_handler(service, handlers)


def snake_case(name: str) -> str:
    """Return the name of the method that serves an RPC: GetEvent is served by get_event."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _rpc(
    service: str,
    method: MethodDescriptor,
    behaviour: Callable[..., Any] | None,
    environment: RpcEnvironment,
    *,
    drains: bool,
) -> Rpc:
    full_name = f"{service}/{method.name}"
    if behaviour is None:
        behaviour = _unbuilt(full_name, streams=method.server_streaming)
    streams = inspect.isasyncgenfunction(behaviour)
    assert streams == method.server_streaming, f"{full_name}: only RPCs whose response streams are generators"
    assert streams or inspect.iscoroutinefunction(behaviour), f"{full_name} needs a coroutine function"
    return Rpc(
        name=full_name,
        behaviour=behaviour,
        parse=_as_is if getattr(behaviour, _RAW_REQUEST, False) else _parser(method),
        serialise=_as_bytes if getattr(behaviour, _RAW_RESPONSE, False) else _serialise,
        metrics=environment.metrics.of(service, method.name),
        environment=environment,
        greets=method.server_streaming,
        drains=drains,
    )


def _unbuilt(full_name: str, *, streams: bool) -> Callable[..., Any]:
    def refusal() -> EventException:
        return EventException(
            f"{full_name} is not built yet in this version; use a later one, or do without it",
            reason="NOT_IMPLEMENTED",
            rpc=full_name,
        )

    @raw_request
    async def refuse(_request: object, _context: object) -> bytes:
        raise refusal()

    @raw_request
    async def refuse_stream(_request: object, _context: object) -> AsyncIterator[bytes]:
        raise refusal()
        yield b""  # makes this a generator

    return refuse_stream if streams else refuse


def _parser(method: MethodDescriptor) -> Callable[[bytes], Message]:
    message_class = GetMessageClass(method.input_type)
    name = method.input_type.full_name

    def parse(request: bytes) -> Message:
        try:
            return message_class.FromString(request)
        except DecodeError as error:
            raise EventValidationException(
                f"the request is not a valid {name}; make the client's stubs anew from this version's protos",
                reason="MALFORMED_REQUEST",
                message_type=name,
            ) from error

    return parse


def _as_is(request: bytes) -> bytes:
    return request


def _as_bytes(response: object) -> bytes:
    assert isinstance(response, bytes), type(response)
    return response


def _serialise(response: Message) -> bytes:
    return response.SerializeToString()
