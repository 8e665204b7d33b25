"""The connection that the streams of one client share, made anew where it has gone dead without a word.

A network that drops packets tells nobody: the connection stands, and nothing comes. gRPC would go on calling over it
until its own pings have failed, which takes half a minute; whoever hears nothing for too long knows before.

Invariants: there is one connection at a time, and it is nobody else's; a call over one that is given up ends in a
RemoteError, which is no different from a call over one that breaks. Belongs to one event loop.
"""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

import grpc
from eventlog.v1.stream_service_pb2_grpc import StreamServiceStub

from shared.rpc.channel import connect
from shared.rpc.remote_error import RemoteError, from_rpc_error

if TYPE_CHECKING:
    from eventlog.v1.stream_service_pb2_grpc import StreamServiceAsyncStub


T = TypeVar("T")

_GONE = "DEPENDENCY_UNAVAILABLE"


class StreamConnection:
    """Calls of StreamService, to be awaited with `answered`. Connects at the first of them."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.aio.Channel | None = None
        self._calls: StreamServiceAsyncStub | None = None

    @property
    def calls(self) -> "StreamServiceAsyncStub":
        """The service. Ask for it anew before each call."""
        if self._calls is None:
            self._channel = connect(self._address, shared=False)
            self._calls = StreamServiceStub(self._channel)
        return self._calls

    async def give_up(self, calls: "StreamServiceAsyncStub") -> None:
        """Let the next call make another connection. Those of others that are under way fail."""
        if self._calls is calls:
            await self.close()

    async def close(self) -> None:
        """Hang up."""
        channel, self._channel, self._calls = self._channel, None, None
        if channel is not None:
            await channel.close()


async def answered(call: Awaitable[T]) -> T:
    """What a call, or a read from it, gives. Raises RemoteError."""
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody has cancelled us: the connection was given up, and gRPC tells that in this way.
        raise broken_off("was given up with its connection") from None


def broken_off(how: str) -> RemoteError:
    """The error for a call of which nothing is to be expected any more."""
    error = RemoteError(f"the call {how}; the connection or the stream service is gone", reason=_GONE)
    error.code = grpc.StatusCode.UNAVAILABLE
    return error
