"""EventStore: the specification's store, as a client of the services that keep and read the log. For asyncio.

async with EventStore(load_config(path)) as store:
await store.append(Event(type="user.action", payload={"action": "login"}))
events = await store.query(EventFilters(type_patterns=["user.*"]), limit=100)
"""

import datetime as dt
from types import TracebackType
from typing import Any, Self

import grpc
from eventlog.v1 import log_admin_service_pb2
from eventlog.v1.log_admin_service_pb2_grpc import LogAdminServiceStub

from shared.client.async_event_logger import AsyncEventLogger
from shared.client.async_event_query import AsyncEventQuery
from shared.client.event_messages import timestamp_message
from shared.client.options import LoggerOptions, address_of
from shared.client.query_options import Filters, QueryOptions
from shared.clock import Clock, SystemClock
from shared.config import EventConfig
from shared.events.model import Event, RecordedEvent
from shared.rpc.channel import connect
from shared.rpc.remote_error import from_rpc_error

_SEGMENTS_A_PAGE = 1_000
_NANOS_PER_SECOND = 1_000_000_000


class EventStore:
    """Appends, queries, rotates and archives. Belongs to the event loop in which it is first used."""

    def __init__(
        self,
        config: EventConfig,
        *,
        logger_options: LoggerOptions | None = None,
        query_options: QueryOptions | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self._clock = clock or SystemClock()
        self._logger_options = logger_options or LoggerOptions()
        self._query_options = query_options or QueryOptions()
        self._logger = AsyncEventLogger(config, self._logger_options, clock=self._clock)
        self._query = AsyncEventQuery(config, self._query_options, clock=self._clock)
        self._channel: grpc.aio.Channel | None = None

    async def append(self, event: Event) -> str:
        """Append an event; return its id when it is acknowledged. Raises as AsyncEventLogger.log_batch."""
        ids = await self._logger.log_batch([event])
        return ids[0]

    async def query(self, filters: Filters, limit: int | None = None) -> list[RecordedEvent]:
        """Return the events that match, oldest first, at most `limit`. All of them are held in memory.

        Raises as EventQuery.events.
        """
        return [event async for event in self._query.events(filters, limit)]

    async def rotate_if_needed(self) -> bool:
        """Rotate the log if its active segment has reached a limit of `storage.rotation`; return whether it did.

        The ingest service does so by itself before it appends: this is for a log that nothing is appended to.
        Raises RemoteError.
        """
        active = await self._active_segment()
        if active is None or not self._is_due(active):
            return False
        answer = await self._admin_call("RotateLog", log_admin_service_pb2.RotateLogRequest())
        return bool(answer.rotated)

    async def archive_old_logs(self, older_than: dt.datetime) -> int:
        """Archive the sealed segments whose newest event was recorded before a time; return how many.

        Raises RemoteError, with the reason NOT_IMPLEMENTED where the service cannot do it.
        """
        request = log_admin_service_pb2.ArchiveLogsRequest(older_than=timestamp_message(older_than))
        answer = await self._admin_call("ArchiveLogs", request)
        return int(answer.archived_segments)

    async def close(self) -> None:
        """Send what is buffered, and close the connections."""
        await self._logger.close()
        await self._query.close()
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _active_segment(self) -> log_admin_service_pb2.Segment | None:
        request = log_admin_service_pb2.ListSegmentsRequest(page_size=_SEGMENTS_A_PAGE)
        while True:
            answer = await self._admin_call("ListSegments", request)
            for segment in answer.segments:
                if segment.state == log_admin_service_pb2.SEGMENT_STATE_ACTIVE:
                    return segment  # type: ignore[no-any-return]
            if not answer.next_page_token:
                return None
            request.page_token = answer.next_page_token

    def _is_due(self, segment: log_admin_service_pb2.Segment) -> bool:
        limits = self.config.storage.rotation
        events = segment.last_position + 1 - segment.first_position
        if events == 0:
            return False
        age_s = (self._clock.now_ns() - segment.first_recorded_at.ToNanoseconds()) / _NANOS_PER_SECOND
        return segment.bytes >= limits.max_size or events >= limits.max_events or age_s >= limits.max_age

    async def _admin_call(self, rpc: str, request: Any) -> Any:
        if self._channel is None:
            self._channel = connect(address_of(self.config, self._logger_options))
        method = getattr(LogAdminServiceStub(self._channel), rpc)
        try:
            return await method(request, timeout=self._query_options.call_timeout_s)
        except grpc.RpcError as failure:
            raise from_rpc_error(failure) from failure
