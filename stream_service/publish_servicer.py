"""Publish of StreamService over gRPC: takes frames from the ingest service."""

from collections.abc import AsyncIterator

from eventlog.v1 import stream_service_pb2

from shared.rpc.call import Context
from shared.rpc.drain import Drain, draining_error
from stream_service.feed import Feed


class PublishServicer:
    """Serves Publish."""

    def __init__(self, feed: Feed, drain: Drain) -> None:
        self._feed = feed
        self._drain = drain

    async def publish(
        self, requests: AsyncIterator[stream_service_pb2.PublishRequest], context: Context
    ) -> AsyncIterator[stream_service_pb2.PublishResponse]:
        """Take frames until the ingest service ends the call."""
        del context
        async for request in self._drain.until_begun(requests):
            position = await self._feed.take(request.frame, request.log_id, request.passed_position)
            yield stream_service_pb2.PublishResponse(position=position)
        if self._drain.begun:
            raise draining_error("the stream service")
