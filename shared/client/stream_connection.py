"""The connection that the streams of one client share, made anew where it has gone dead without a word.

A network that drops packets tells nobody: the connection stands, and nothing comes. gRPC would go on calling over it
until its own pings have failed, which takes half a minute; whoever hears nothing for too long knows before.

Invariant: there is one connection at a time, and it is nobody else's. Belongs to one event loop.
"""

from typing import TYPE_CHECKING

import grpc
from eventlog.v1.stream_service_pb2_grpc import StreamServiceStub

from shared.rpc.channel import connect

if TYPE_CHECKING:
    from eventlog.v1.stream_service_pb2_grpc import StreamServiceAsyncStub


class StreamConnection:
    """Calls of StreamService. Connects at the first of them."""

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
        """Let the next call make another connection. Those of others that are under way end as CANCELLED."""
        if self._calls is calls:
            await self.close()

    async def close(self) -> None:
        """Hang up."""
        channel, self._channel, self._calls = self._channel, None, None
        if channel is not None:
            await channel.close()
