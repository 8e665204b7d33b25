"""AsyncEventQuery: EventQuery for asyncio.

Everything that differs from the threaded form is the waiting; what is asked, and what an answer means, is decided
by the same code. One AsyncEventQuery belongs to the event loop in which it is first used.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from eventlog.v1 import query_service_pb2
from eventlog.v1.query_service_pb2_grpc import QueryServiceStub

from shared.client import query_messages as messages
from shared.client.attempts import Attempts
from shared.client.event_messages import event_of
from shared.client.export_file import AsyncExportFile
from shared.client.options import reachable_address
from shared.client.query_answers import EventPage, ExportReport, FilterExplanation, OnProgress
from shared.client.query_options import EventOrder, Filters, QueryOptions, Selection
from shared.client.query_run import CountRun, ExportRun, QueryRun
from shared.clock import Clock, SystemClock
from shared.config import EventConfig
from shared.events.model import RecordedEvent
from shared.rpc.channel import connect
from shared.rpc.remote_error import from_rpc_error

R = TypeVar("R")


class AsyncEventQuery:
    """Asks the query service that the configuration names. Methods as in EventQuery."""

    def __init__(self, config: EventConfig, options: QueryOptions | None = None, *, clock: Clock | None = None) -> None:
        self._options = options or QueryOptions()
        self._clock = clock or SystemClock()
        self._address = reachable_address(self._options.address or config.query.listen)
        self._channel: grpc.aio.Channel | None = None

    async def events(
        self,
        filters: Filters = None,
        limit: int | None = None,
        *,
        order: EventOrder = EventOrder.POSITION_ASCENDING,
        **selection: Unpack[Selection],
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Iterate over the events that match, at most `limit`; as EventQuery.events."""
        run = QueryRun(messages.query_request(filters, order, selection), limit)
        attempts = self._attempts()
        while not run.complete:
            call = self._stub.Query(run.request(), timeout=self._options.call_timeout_s)
            try:
                async for response in call:
                    for event in run.take(response):
                        yield event
                    attempts.progressed()
                    if run.complete:
                        return
                run.check_ended()
            except grpc.RpcError as failure:
                await self._wait(attempts, failure, can_go_on=run.go_on())
            finally:
                call.cancel()

    async def page(
        self,
        filters: Filters = None,
        page_size: int = 100,
        page_token: str = "",
        *,
        order: EventOrder = EventOrder.POSITION_ASCENDING,
        **selection: Unpack[Selection],
    ) -> EventPage:
        """Return a page of events; as EventQuery.page."""
        request = messages.page_request(filters, page_size, page_token, order, selection)
        return messages.page_of(await self._call(self._stub.ListEvents, request))

    async def count(self, filters: Filters = None, **selection: Unpack[Selection]) -> int:
        """Return how many events match; as EventQuery.count."""
        run = CountRun(messages.count_request(filters, selection))
        while not run.complete:
            run.take(await self._call(self._stub.CountEvents, run.request))
        return run.count

    async def get(self, event: str | int) -> RecordedEvent:
        """Return the event with an id or at a position; as EventQuery.get."""
        answer: query_service_pb2.GetEventResponse = await self._call(self._stub.GetEvent, messages.get_request(event))
        return event_of(answer.event)

    async def explain(self, filters: Filters) -> FilterExplanation:
        """Return how a filter is understood and what it would read; as EventQuery.explain."""
        return messages.explanation_of(await self._call(self._stub.ExplainFilter, messages.explain_request(filters)))

    async def export(
        self,
        path: str | Path,
        format: str = "json",  # noqa: A002 — the name it has in requests
        filters: Filters = None,
        *,
        zstd: bool = False,
        on_progress: OnProgress | None = None,
        **selection: Unpack[Selection],
    ) -> ExportReport:
        """Export the events that match to a file; as EventQuery.export. on_progress must not block."""
        run, attempts = ExportRun(on_progress), self._attempts()
        request = messages.export_request(filters, format, selection, zstd=zstd)
        async with AsyncExportFile(Path(path)) as file:
            while not run.complete:
                call = self._stub.Export(request, timeout=self._options.export_timeout_s)
                try:
                    async for response in call:
                        await file.write(run.take(response))
                    run.check_ended()
                except grpc.RpcError as failure:
                    await self._wait(attempts, failure, can_go_on=run.restart())
                    await file.restart()
                finally:
                    call.cancel()
            await file.commit()
        return run.report(Path(path))

    async def close(self) -> None:
        """Close the connection; calls under way end."""
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @cached_property
    def _stub(self) -> Any:
        # Made in the event loop, which a channel belongs to.
        self._channel = connect(self._address)
        return QueryServiceStub(self._channel)

    def _attempts(self) -> Attempts:
        return Attempts(self._options.back_off, self._clock, give_up_after_s=self._options.give_up_after_s)

    async def _call(self, method: Callable[..., Awaitable[R]], request: Any) -> R:
        attempts = self._attempts()
        while True:
            try:
                return await method(request, timeout=self._options.call_timeout_s)
            except grpc.RpcError as failure:
                await self._wait(attempts, failure)

    @staticmethod
    async def _wait(attempts: Attempts, failure: grpc.RpcError, *, can_go_on: bool = True) -> None:
        """Wait for the next attempt. Raises RemoteError where there is none."""
        error = from_rpc_error(failure)
        if not can_go_on:
            raise error from failure
        await asyncio.sleep(attempts.failed(error))
