"""EventQuery: reads events back, for threads.

    with EventQuery(load_config(path)) as query:
        for event in query.events("type LIKE 'pipeline.*' AND payload.duration_ms > 1000"):
            print(event.type, event.timestamp)
        query.export("errors.csv", "csv", "payload.status = 'error'")

A filter is an expression of the filter language or EventFilters; none is everything. Calls that fail for now are
tried again; an answer that was partial or broke off is gone on with. What to ask next is decided in query_run.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from eventlog.v1 import query_service_pb2
from eventlog.v1.query_service_pb2_grpc import QueryServiceStub

from shared.client import query_messages as messages
from shared.client.attempts import Attempts
from shared.client.event_messages import event_of
from shared.client.export_file import ExportFile
from shared.client.options import reachable_address
from shared.client.query_answers import EventPage, ExportReport, FilterExplanation, OnProgress
from shared.client.query_options import EventOrder, Filters, QueryOptions, Selection
from shared.client.query_run import CountRun, ExportRun, QueryRun
from shared.clock import Clock, SystemClock
from shared.config import EventConfig
from shared.events.model import RecordedEvent
from shared.rpc.channel import connect_sync
from shared.rpc.remote_error import from_rpc_error

R = TypeVar("R")


class EventQuery:
    """Asks the query service that the configuration names. Any thread may use it; it connects with the first call."""

    def __init__(self, config: EventConfig, options: QueryOptions | None = None, *, clock: Clock | None = None) -> None:
        self._options = options or QueryOptions()
        self._clock = clock or SystemClock()
        self._channel = connect_sync(reachable_address(self._options.address or config.query.listen))
        self._stub = QueryServiceStub(self._channel)

    def events(
        self,
        filters: Filters = None,
        limit: int | None = None,
        *,
        order: EventOrder = EventOrder.POSITION_ASCENDING,
        **selection: Unpack[Selection],
    ) -> Iterator[RecordedEvent]:
        """Iterate over the events that match, at most `limit`.

        Raises EventFilterException (the filter is wrong), PositionTrimmed, LogCorrupted (after the events before the
        damage), and RemoteError for whatever else a call fails with.
        """
        run = QueryRun(messages.query_request(filters, order, selection), limit)
        attempts = self._attempts()
        while not run.complete:
            call = self._stub.Query(run.request(), timeout=self._options.call_timeout_s)
            try:
                for response in call:
                    yield from run.take(response)
                    attempts.progressed()
                    if run.complete:
                        return
                run.check_ended()
            except grpc.RpcError as failure:
                self._wait(attempts, failure, can_go_on=run.go_on())
            finally:
                call.cancel()

    def page(
        self,
        filters: Filters = None,
        page_size: int = 100,
        page_token: str = "",
        *,
        order: EventOrder = EventOrder.POSITION_ASCENDING,
        **selection: Unpack[Selection],
    ) -> EventPage:
        """Return a page of at most `page_size` (1 to 10,000) events; page_token is that of the page before.

        With a token everything else must be as it was then. Raises as events().
        """
        request = messages.page_request(filters, page_size, page_token, order, selection)
        return messages.page_of(self._call(self._stub.ListEvents, request))

    def count(self, filters: Filters = None, **selection: Unpack[Selection]) -> int:
        """Return how many events match. Raises as events()."""
        run = CountRun(messages.count_request(filters, selection))
        while not run.complete:
            run.take(self._call(self._stub.CountEvents, run.request))
        return run.count

    def get(self, event: str | int) -> RecordedEvent:
        """Return the event with an id or at a position. Raises EventStorageException (EVENT_NOT_FOUND)."""
        answer: query_service_pb2.GetEventResponse = self._call(self._stub.GetEvent, messages.get_request(event))
        return event_of(answer.event)

    def explain(self, filters: Filters) -> FilterExplanation:
        """Return how a filter is understood and what it would read. Raises EventFilterException."""
        return messages.explanation_of(self._call(self._stub.ExplainFilter, messages.explain_request(filters)))

    def export(
        self,
        path: str | Path,
        format: str = "json",  # noqa: A002 — the name it has in requests
        filters: Filters = None,
        *,
        zstd: bool = False,
        on_progress: OnProgress | None = None,
        **selection: Unpack[Selection],
    ) -> ExportReport:
        """Export the events that match to a file, which appears when it is complete and replaces what was there.

        format: "json" (JSON lines), "csv", "parquet", or one that the service was given. zstd: compress it.
        on_progress: called for each piece, in this thread. Raises as events(), and OSError.
        """
        run, attempts = ExportRun(on_progress), self._attempts()
        request = messages.export_request(filters, format, selection, zstd=zstd)
        with ExportFile(Path(path)) as file:
            while not run.complete:
                call = self._stub.Export(request, timeout=self._options.export_timeout_s)
                try:
                    for response in call:
                        file.write(run.take(response))
                    run.check_ended()
                except grpc.RpcError as failure:
                    self._wait(attempts, failure, can_go_on=run.restart())
                    file.restart()
                finally:
                    call.cancel()
            file.commit()
        return run.report(Path(path))

    def close(self) -> None:
        """Close the connection; calls under way end."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempts(self) -> Attempts:
        return Attempts(self._options.back_off, self._clock, give_up_after_s=self._options.give_up_after_s)

    def _call(self, method: Callable[..., R], request: Any) -> R:
        attempts = self._attempts()
        while True:
            try:
                return method(request, timeout=self._options.call_timeout_s)
            except grpc.RpcError as failure:
                self._wait(attempts, failure)

    @staticmethod
    def _wait(attempts: Attempts, failure: grpc.RpcError, *, can_go_on: bool = True) -> None:
        """Wait for the next attempt. Raises RemoteError where there is none."""
        error = from_rpc_error(failure)
        if not can_go_on:
            raise error from failure
        time.sleep(attempts.failed(error))
