"""QueryService over gRPC: translates requests, waits for positions, hands the work to threads."""

import asyncio
import logging
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eventlog.v1 import query_service_pb2 as pb
from google.protobuf.message import Message

from query_service import messages
from query_service.aggregating import Aggregating
from query_service.asked_columns import asked_columns
from query_service.counting import CountCache, Counting
from query_service.event_projection import EVENTS
from query_service.explanation import explain, promoted_paths
from query_service.exporters import ExportContext, Exporter, ExportFormats, export_pieces
from query_service.lanes import Lane, timed
from query_service.message_sizes import MESSAGE_BYTES_MAX, STRUCT_GROWTH, halves, pieces
from query_service.messages import Ticket
from query_service.metrics import QueryMetrics
from query_service.question import Order, Question
from query_service.reading import Costs, Engine, Reading
from query_service.readings import Asked, Page, PageReading, open_reading, read_page, worth_a_step
from query_service.scan_projection import ScanProjection
from query_service.tallying import Errand
from query_service.work import Work
from shared.clock import Clock
from shared.columns.answers import AnswerEncoder
from shared.columns.wire import WireCodec
from shared.errors import EventFilterException, PositionTrimmed, invalid_field
from shared.filters.printer import print_filter
from shared.log.committed_position import Committed
from shared.log.log_reader import LogReader
from shared.log.token_key import TokenKey
from shared.rpc.call import Context
from shared.rpc.service import raw_response

# Another process publishes the committed position in memory: there is nothing to wait on but time.
_POSITION_POLL_S = 0.002
_WAIT_MAX_S = 30.0
# Of the time a caller leaves, this share may go into the work; the rest brings the answer home.
_WORKING_SHARE = 0.9

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Call:
    """What every call has: the log as it was committed, its ticket, its question, and its work."""

    kind: str
    committed: Committed
    ticket: Ticket
    question: Question
    work: Work


class QueryServicer:
    """Answers questions about recorded events."""

    def __init__(
        self,
        log: LogReader,
        engine: Engine,
        codec: WireCodec,
        clock: Clock,
        *,
        metrics: QueryMetrics,
        counts: CountCache,
        lookups: Lane,
        searches: Lane,
        formats: ExportFormats,
        token_key: TokenKey,
        slow_s: float,
    ) -> None:
        """lookups: the lane of single events and pages. searches: that of all else. slow_s: see config."""
        self._log = log
        self._engine = engine
        self._codec = codec
        self._clock = clock
        self._metrics = metrics
        self._counts = counts
        self._lookups = lookups
        self._searches = searches
        self._formats = formats
        self._token_key = token_key
        self._slow_s = slow_s

    @raw_response
    async def get_event(self, request: pb.GetEventRequest, context: Context) -> bytes:
        """Return one event by id or position."""
        as_struct = messages.wants_structs(request.payload_form)
        selection = pb.EventSelection(min_position=request.min_position)
        committed = await self._committed(selection, context)
        position = messages.position_of(request, committed)
        selection.from_position, selection.until_position = position, position + 1
        call = self._call("get", request, selection, committed, context)

        def read() -> bytes:
            reading = self._open(call, Order.POSITION_ASCENDING, 1)
            page = read_page(reading, self._asked(call, limit=1), self._clock, bytes_max=1)
            if not page.events.num_rows:
                raise messages.not_found(f"position {position} is not in the log")
            return AnswerEncoder(self._codec, committed.log_id).encode(page.events, payload_as_struct=as_struct)

        with self._lookups.admitted(), self._observed(call, Costs(matched_events=1)):
            try:
                return await self._lookups.run(read, call.work)
            except PositionTrimmed:
                raise messages.not_found(f"position {position} was removed by retention") from None

    @raw_response
    async def list_events(self, request: pb.ListEventsRequest, context: Context) -> bytes:
        """Return one page of events."""
        size = messages.page_size_of(request.page_size)
        order = messages.order_of(request.order)
        as_struct = messages.wants_structs(request.payload_form)
        committed = await self._committed(request.selection, context)
        call = self._call("list", request, request.selection, committed, context, token=request.page_token)
        bytes_max = MESSAGE_BYTES_MAX // STRUCT_GROWTH if as_struct else MESSAGE_BYTES_MAX
        encoder = AnswerEncoder(self._codec, committed.log_id)
        with self._lookups.admitted(), timed(call.work):
            reading = await self._lookups.run(lambda: self._open(call, order, size), call.work)
            asked = self._asked(call, order=order, limit=size)
            pages = PageReading(reading, asked, self._clock, bytes_max=bytes_max)

            def step() -> tuple[bytes, Page] | None:
                if not pages.step():
                    return None
                assert pages.page is not None
                return encoder.encode(pages.page.events, payload_as_struct=as_struct), pages.page

            answer = await self._lookups.run(step, call.work)
            while answer is None:
                # What takes so long is a search, and waits among its like.
                answer = await self._searches.run(step, call.work)
        events, page = answer
        self._observe(call, reading.outcome.costs, reading.outcome.partial_reason)
        token = "" if page.next_place is None else self._token(call, request, page.next_place)
        rest = pb.ListEventsResponse(next_page_token=token, snapshot_position=call.ticket.snapshot)
        return events + rest.SerializeToString()

    @raw_response
    async def query(self, request: pb.QueryRequest, context: Context) -> AsyncIterator[bytes]:
        """Stream the events that match, then the summary."""
        order = messages.order_of(request.order)
        as_struct = messages.wants_structs(request.payload_form)
        committed = await self._committed(request.selection, context)
        call = self._call(
            "query", request, request.selection, committed, context, token=request.resume_token, limit=request.limit
        )
        encoder = AnswerEncoder(self._codec, committed.log_id)
        bytes_max = MESSAGE_BYTES_MAX // STRUCT_GROWTH if as_struct else MESSAGE_BYTES_MAX
        with self._searches.admitted(), timed(call.work):
            reading = await self._searches.run(lambda: self._open(call, order, call.ticket.left), call.work)

            def answers() -> Generator[list[bytes], None, None]:
                for chunk in worth_a_step(reading, self._clock):
                    parts = pieces(chunk.events, bytes_max)
                    yield [encoder.encode(part, payload_as_struct=as_struct) for part in parts]

            async for parts in self._searches.steps(answers(), call.work):
                for part in parts:
                    yield part
        summary = self._summary_of(call, reading, request)
        yield pb.QueryResponse(summary=summary).SerializeToString()

    async def count_events(self, request: pb.CountEventsRequest, context: Context) -> pb.CountEventsResponse:
        """Count the events that match."""
        committed = await self._committed(request.selection, context)
        call = self._call("count", request, request.selection, committed, context, token=request.resume_token)
        with self._searches.admitted(), timed(call.work):
            counting = Counting(await self._searches.run(lambda: self._errand(call), call.work), self._counts)
            while await self._searches.run(counting.step, call.work):
                pass
        reached = counting.reached
        token = self._token(call, request, reached.resume) if reached.partial_reason else ""
        summary = self._summary(call, reached.costs, reached.partial_reason, token)
        return pb.CountEventsResponse(count=reached.costs.matched_events, summary=summary)

    async def scan(self, request: pb.ScanRequest, context: Context) -> AsyncIterator[pb.ScanResponse]:
        """Stream columns of the events that match as Arrow IPC, then the summary."""
        order = messages.order_of(request.order)
        if order not in {Order.POSITION_ASCENDING, Order.POSITION_DESCENDING}:
            raise invalid_field("order", "of a scan is by position")
        committed = await self._committed(request.selection, context)
        projection = ScanProjection(asked_columns(request.columns), log_id=committed.log_id)
        call = self._call("scan", request, request.selection, committed, context)
        schema = projection.result_schema.serialize().to_pybytes()
        yield pb.ScanResponse(arrow_ipc=schema, snapshot_position=call.ticket.snapshot)
        with self._searches.admitted(), timed(call.work):
            asked = self._asked(call, order=order)
            reading = await self._searches.run(
                lambda: open_reading(self._engine, self._clock, asked, call.work, projection), call.work
            )

            def answers() -> Generator[bytes, None, None]:
                for chunk in worth_a_step(reading, self._clock):
                    yield projection.finish(chunk.events).serialize().to_pybytes() if chunk.events.num_rows else b""

            async for batch in self._searches.steps(answers(), call.work):
                if batch:
                    yield pb.ScanResponse(arrow_ipc=batch)
        yield pb.ScanResponse(summary=self._summary_of(call, reading))

    async def aggregate(self, request: pb.AggregateRequest, context: Context) -> AsyncIterator[pb.AggregateResponse]:
        """Stream sums of the events that match by group as Arrow IPC, then the summary."""
        aggregation = messages.aggregation_of(request)
        committed = await self._committed(request.selection, context)
        call = self._call("aggregate", request, request.selection, committed, context)
        schema = aggregation.schema.serialize().to_pybytes()
        yield pb.AggregateResponse(arrow_ipc=schema, snapshot_position=call.ticket.snapshot)
        with self._searches.admitted(), timed(call.work):
            aggregating = Aggregating(await self._searches.run(lambda: self._errand(call), call.work), aggregation)
            async for groups in self._searches.steps(aggregating.steps(), call.work):
                for piece in halves(groups, MESSAGE_BYTES_MAX):
                    batch = piece.serialize().to_pybytes() if piece.num_rows else b""
                    yield pb.AggregateResponse(arrow_ipc=batch, until_position=aggregating.reached.resume)
        reached = aggregating.reached
        yield pb.AggregateResponse(summary=self._summary(call, reached.costs, reached.partial_reason))

    async def export(self, request: pb.ExportRequest, context: Context) -> AsyncIterator[pb.ExportResponse]:
        """Stream the events that match as a file, then the summary."""
        self._formats.find(request.format)
        committed = await self._committed(request.selection, context)
        call = self._call("export", request, request.selection, committed, context)
        exported = 0
        with self._searches.admitted(), timed(call.work):

            def begin() -> tuple[Reading[Any], Exporter]:
                paths = promoted_paths(self._engine, committed)
                exporter = self._formats.exporter(
                    request.format, ExportContext(committed.log_id, paths), zstd=request.zstd
                )
                return self._open(call, Order.POSITION_ASCENDING, None), exporter

            reading, exporter = await self._searches.run(begin, call.work)
            # Chunks without events too: each ends a step, after which others have their turn.
            found = (chunk.events for chunk in reading.chunks())
            async for piece in self._searches.steps(export_pieces(exporter, found), call.work):
                exported = piece.exported_events
                yield pb.ExportResponse(data=piece.data, exported_events=exported)
        yield pb.ExportResponse(exported_events=exported, summary=self._summary_of(call, reading))

    async def explain_filter(self, request: pb.ExplainFilterRequest, context: Context) -> pb.ExplainFilterResponse:
        """Show what a filter means and what it would read."""
        selection = pb.EventSelection()
        selection.filters.CopyFrom(request.filters)
        if request.expression and selection.filters.expression:
            raise invalid_field("expression", "is given twice: leave out that of filters, or join them with AND")
        selection.filters.expression = selection.filters.expression or request.expression
        committed = await self._committed(selection, context)
        call = self._call("explain", pb.QueryRequest(selection=selection), selection, committed, context)
        with self._lookups.admitted(), self._observed(call, Costs()):
            found = await self._lookups.run(lambda: explain(self._engine, call.question, committed), call.work)
        return pb.ExplainFilterResponse(
            normalized_expression=found.normalized,
            tree=found.tree,
            sql=found.sql,
            segments=[
                pb.SegmentDecision(
                    first_position=each.segment.first,
                    last_position=each.segment.until - 1,
                    read=each.read,
                    why=each.why,
                )
                for each in found.segments
            ],
        )

    async def _committed(self, selection: pb.EventSelection, context: Context) -> Committed:
        """What is committed, once it reaches selection.min_position."""
        min_position = selection.min_position
        committed = self._log.committed()
        patience_s = _patience_s(selection, context)
        give_up_s = self._clock.monotonic_s() + (_WAIT_MAX_S if patience_s is None else patience_s)
        while committed.position < min_position:
            if self._clock.monotonic_s() >= give_up_s:
                raise EventFilterException(
                    f"position {min_position} is not committed yet; the last one is {committed.position}: retry later",
                    reason="POSITION_NOT_REACHED",
                    committed_position=committed.position,
                )
            await asyncio.sleep(_POSITION_POLL_S)
            committed = self._log.committed()
        return committed

    def _call(
        self,
        kind: str,
        request: Message,
        selection: pb.EventSelection,
        committed: Committed,
        context: Context,
        *,
        token: str = "",
        limit: int = 0,
    ) -> _Call:
        work = Work(self._clock, _patience_s(selection, context))
        ticket = messages.ticket_of(
            request,
            token,
            committed,
            key=self._token_key.get(),
            now_ns=self._clock.now_ns(),
            limit=messages.limit_of(limit),
        )
        return _Call(kind, committed, ticket, messages.question_of(selection, ticket, committed.log_id), work)

    def _asked(self, call: _Call, *, order: Order = Order.POSITION_ASCENDING, limit: int | None = None) -> Asked:
        return Asked(call.question, call.committed, order, call.ticket.place, limit)

    def _open(self, call: _Call, order: Order, limit: int | None) -> Reading[Any]:
        return open_reading(self._engine, self._clock, self._asked(call, order=order, limit=limit), call.work, EVENTS)

    def _errand(self, call: _Call) -> Errand:
        place = call.ticket.place
        assert not isinstance(place, tuple), "sums go by position"
        start = place or call.question.first or self._engine.reader.first_position()
        return Errand(self._engine, call.question, call.committed, call.work, self._clock, start)

    def _token(self, call: _Call, request: Message, place: Any, left: int | None = None) -> str:
        ticket = Ticket(call.ticket.snapshot, call.ticket.now_ns, place, left)
        return ticket.token(request, self._token_key.get())

    def _summary_of(self, call: _Call, reading: Reading[Any], resumed: Message | None = None) -> pb.ReadSummary:
        """What a reading cost, with a token where it can be resumed by the same request."""
        outcome = reading.outcome
        token = ""
        if outcome.partial_reason and resumed is not None:
            left = None if call.ticket.left is None else call.ticket.left - outcome.costs.matched_events
            token = self._token(call, resumed, outcome.resume, left)
        return self._summary(call, outcome.costs, outcome.partial_reason, token)

    def _summary(self, call: _Call, costs: Costs, partial_reason: str, token: str = "") -> pb.ReadSummary:
        """What an answer cost, told to the metrics too."""
        self._observe(call, costs, partial_reason)
        return messages.summary_of(
            costs,
            elapsed_s=call.work.elapsed_s,
            snapshot=call.ticket.snapshot,
            partial_reason=partial_reason,
            resume_token=token,
        )

    @contextmanager
    def _observed(self, call: _Call, costs: Costs) -> Iterator[None]:
        yield
        self._observe(call, costs, "")

    def _observe(self, call: _Call, costs: Costs, partial_reason: str) -> None:
        seconds = call.work.elapsed_s
        self._metrics.observe(call.kind, seconds, costs, partial_reason)
        if seconds < self._slow_s:
            return
        self._metrics.slow.labels(call.kind).inc()
        _log.warning(
            "slow answer",
            extra={
                "kind": call.kind,
                "seconds": round(seconds, 3),
                "expression": print_filter(call.question.tree),
                "matched_events": costs.matched_events,
                "scanned_events": costs.scanned_events,
                "read_segments": costs.read_segments,
                "partial_reason": partial_reason,
            },
        )


def _patience_s(selection: pb.EventSelection, context: Context) -> float | None:
    """Seconds that the work may take; None for no bound."""
    remaining = context.time_remaining()
    asked = messages.budget_s(selection)
    if remaining is None:
        return asked
    usable = remaining * _WORKING_SHARE
    return usable if asked is None else min(asked, usable)
