"""The ingest service's connection to the stream service: requests of Publish, one after the other, each confirmed.

Invariant: whatever the connection does ends in an EventException; no call waits longer than it was told to.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from eventlog.v1 import stream_service_pb2

from shared.errors import EventException
from shared.rpc.channel import connect
from shared.rpc.remote_error import from_rpc_error

_PUBLISH = "/eventlog.v1.StreamService/Publish"


class PublishCall:
    """One call of Publish. Belongs to one task."""

    def __init__(self, call: Any, log_id: str) -> None:
        self._call = call
        self._log_id = log_id

    async def send(self, frames: bytes, passed_position: int, *, timeout_s: float) -> int:
        """Send frames and return the last position that the stream service knows. Raises EventException."""
        request = stream_service_pb2.PublishRequest(frame=frames, log_id=self._log_id, passed_position=passed_position)
        try:
            async with asyncio.timeout(timeout_s):
                await self._call.write(request)
                answer = await self._call.read()
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        except TimeoutError as error:
            raise unreachable(f"did not confirm within {timeout_s:g} s") from error
        except asyncio.InvalidStateError as error:
            raise unreachable(f"ended the call: {await self._call.details() or 'without a word'}") from error
        if not isinstance(answer, stream_service_pb2.PublishResponse):
            raise unreachable(f"ended the call: {await self._call.details() or 'without a word'}")
        return answer.position


@asynccontextmanager
async def publish_call(address: str, log_id: str) -> AsyncIterator[PublishCall]:
    """Call Publish at host:port; the call and its connection, which is nobody else's, end with the context."""
    async with connect(address, shared=False) as channel:
        publish = channel.stream_stream(
            _PUBLISH,
            request_serializer=stream_service_pb2.PublishRequest.SerializeToString,
            response_deserializer=stream_service_pb2.PublishResponse.FromString,
        )
        call = publish()
        try:
            yield PublishCall(call, log_id)
        finally:
            call.cancel()


def unreachable(what: str) -> EventException:
    """The error for a stream service that does not do as it should."""
    return EventException(f"the stream service {what}", reason="DEPENDENCY_UNAVAILABLE")
