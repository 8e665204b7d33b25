"""A service with one RPC of each kind, an in-process server for it, and a channel to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2
from google.protobuf.descriptor import ServiceDescriptor

from shared.clock import SystemClock
from shared.rpc.channel import connect
from shared.rpc.server import Server, ServerLimits
from shared.telemetry.metrics import Metrics

ECHO = "test.v1.EchoService"


def echo_descriptor() -> ServiceDescriptor:
    """Return test.v1.EchoService: Say, SayMany (responses stream), Collect (requests stream), Chat (both)."""
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    file = descriptor_pb2.FileDescriptorProto(
        name="test/v1/echo.proto", package="test.v1", syntax="proto3", dependency=[wrappers.name]
    )
    service = file.service.add(name="EchoService")
    for name, requests_stream, responses_stream in (
        ("Say", False, False),
        ("SayMany", False, True),
        ("Collect", True, False),
        ("Chat", True, True),
    ):
        service.method.add(
            name=name,
            input_type=".google.protobuf.StringValue",
            output_type=".google.protobuf.StringValue",
            client_streaming=requests_stream,
            server_streaming=responses_stream,
        )
    pool.Add(file)
    return pool.FindServiceByName(ECHO)


@asynccontextmanager
async def echo_server(
    servicer: object,
    *,
    limits: ServerLimits | None = None,
    serving: bool = True,
    write_timeout_s: float | None = None,
) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    """Serve the servicer on ports that the system chooses, and connect to it."""
    server = Server(
        service="test_service",
        listen="127.0.0.1:0",
        metrics_listen="127.0.0.1:0",
        metrics=Metrics("test_service"),
        clock=SystemClock(),
        limits=limits,
    )
    server.add_service(echo_descriptor(), servicer, write_timeout_s=write_timeout_s)
    async with server, connect(server.address) as channel:
        server.set_serving("", serving=serving)
        yield server, channel


def text(value: str) -> bytes:
    """Return an encoded StringValue."""
    return wrappers_pb2.StringValue(value=value).SerializeToString()


def said(message: bytes) -> str:
    """Return the text of an encoded StringValue."""
    return wrappers_pb2.StringValue.FromString(message).value


def value(text: str) -> Any:
    """Return a StringValue, as a servicer answers it."""
    return wrappers_pb2.StringValue(value=text)
