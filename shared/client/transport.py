"""Connections to the ingest service, threaded and asyncio. They carry bytes and know nothing of events."""

from typing import Protocol

import grpc
import grpc.aio
from eventlog.v1 import ingest_service_pb2

from shared.client.wire import FLUSH, LOG_BATCH
from shared.rpc.channel import connect, connect_sync


class TransportClosed(Exception):  # noqa: N818 — a state, told by the closer, not a fault
    """The connection was closed by its owner."""


class Transport(Protocol):
    """A connection for threads. Any thread may close it, which ends what it is doing."""

    def log_batch(self, request: bytes, *, timeout_s: float) -> ingest_service_pb2.LogBatchResponse:
        """Send an encoded LogBatchRequest. Raises grpc.RpcError, and TransportClosed after close()."""

    def flush(self, *, timeout_s: float | None) -> None:
        """Have the service sync all that it accepted. Raises like log_batch."""

    def close(self) -> None:
        """Close the connection."""


class AsyncTransport(Protocol):
    """A connection for one event loop."""

    async def log_batch(self, request: bytes, *, timeout_s: float) -> ingest_service_pb2.LogBatchResponse:
        """Send an encoded LogBatchRequest. Raises grpc.RpcError."""

    async def flush(self, *, timeout_s: float | None) -> None:
        """Have the service sync all that it accepted. Raises grpc.RpcError."""

    async def close(self) -> None:
        """Close the connection."""


class GrpcTransport:
    """A gRPC connection for threads."""

    def __init__(self, address: str) -> None:
        self._channel = connect_sync(address)
        self._log_batch: grpc.UnaryUnaryMultiCallable[bytes, ingest_service_pb2.LogBatchResponse] = (
            self._channel.unary_unary(
                LOG_BATCH,
                request_serializer=None,
                response_deserializer=ingest_service_pb2.LogBatchResponse.FromString,
            )
        )
        self._flush: grpc.UnaryUnaryMultiCallable[bytes, ingest_service_pb2.FlushResponse] = self._channel.unary_unary(
            FLUSH, request_serializer=None, response_deserializer=ingest_service_pb2.FlushResponse.FromString
        )

    def log_batch(self, request: bytes, *, timeout_s: float) -> ingest_service_pb2.LogBatchResponse:
        """Send an encoded LogBatchRequest. Raises grpc.RpcError, and TransportClosed after close()."""
        try:
            return self._log_batch(request, timeout=timeout_s)
        except ValueError as error:  # what grpc says of a closed channel
            raise TransportClosed from error

    def flush(self, *, timeout_s: float | None) -> None:
        """Have the service sync all that it accepted. Raises like log_batch."""
        try:
            self._flush(b"", timeout=timeout_s)
        except ValueError as error:
            raise TransportClosed from error

    def close(self) -> None:
        """Close the connection; calls under way fail with CANCELLED."""
        self._channel.close()


class AsyncGrpcTransport:
    """A gRPC connection for one event loop. Made inside of it."""

    def __init__(self, address: str) -> None:
        self._channel = connect(address)
        self._log_batch: grpc.aio.UnaryUnaryMultiCallable[bytes, ingest_service_pb2.LogBatchResponse] = (
            self._channel.unary_unary(
                LOG_BATCH,
                request_serializer=None,
                response_deserializer=ingest_service_pb2.LogBatchResponse.FromString,
            )
        )
        self._flush: grpc.aio.UnaryUnaryMultiCallable[bytes, ingest_service_pb2.FlushResponse] = (
            self._channel.unary_unary(
                FLUSH, request_serializer=None, response_deserializer=ingest_service_pb2.FlushResponse.FromString
            )
        )

    async def log_batch(self, request: bytes, *, timeout_s: float) -> ingest_service_pb2.LogBatchResponse:
        """Send an encoded LogBatchRequest. Raises grpc.RpcError."""
        return await self._log_batch(request, timeout=timeout_s)

    async def flush(self, *, timeout_s: float | None) -> None:
        """Have the service sync all that it accepted. Raises grpc.RpcError."""
        await self._flush(b"", timeout=timeout_s)

    async def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        await self._channel.close()
