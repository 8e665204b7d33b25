"""Chains, causes, predictions and states: what their RPCs do."""

from collections.abc import Iterable
from contextlib import aclosing

import numpy as np
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2

from analysis_service import asked, messages
from analysis_service.chains.causes import rank_causes
from analysis_service.chains.chain import chain_of
from analysis_service.chains.drawing import draw_graphviz, draw_mermaid, draw_text
from analysis_service.chains.related import LINK_FIELDS, related_chains
from analysis_service.chains.shape import Comparison, compare_with_usual
from analysis_service.chains.spans import SpanFields, Spans, find_spans
from analysis_service.chains.timing import Timing, measure
from analysis_service.columns import EventColumns, Mask, together
from analysis_service.desk import Job
from analysis_service.expressions import equals, one_of
from analysis_service.fold import FoldedEvent, Snapshot, StateFolder, decode_events, nearest_snapshot, reducer_of
from analysis_service.log_source import SAMPLE_BYTES_MAX, LogSource, Wanted
from analysis_service.patterns.cases import group_into_cases
from analysis_service.prediction import NextEventModel
from analysis_service.scan_columns import ScanColumns
from analysis_service.statistics.cache import AnswerCache
from shared.clock import Clock
from shared.errors import invalid_field
from shared.events.limits import TEXT_BYTES_MAX
from shared.rpc.filters import nanoseconds

# So that an answer about a chain is below the 64 MiB that our clients take, whatever its events are called.
CHAIN_EVENTS_MAX = 100_000
# Of an answer with its events: gRPC's clients take 4 MiB unless told otherwise.
ANSWER_BYTES_MAX = 3_600_000
# Snapshots that are kept between calls: so many for each state, of at most so many bytes.
SNAPSHOTS_KEPT, SNAPSHOT_BYTES_MAX = 16, 64 * 1024
_IN_A_CHAIN = "correlation_id IS NOT NULL"
_HOUR_NS = 3_600_000_000_000
_POSITION_MAX = 2**63 - 1
_DAY_NS = 24 * _HOUR_NS
_WEEK_S = 7 * 86_400.0
_RELATED_FIELDS = ("metadata.session_id", *LINK_FIELDS)
# Of an expression of at most 8 KiB, that each of these fields may have.
_RELATED_BYTES_MAX = 1_000
_DRAWINGS = {
    pb.CHAIN_DRAWING_TEXT: draw_text,
    pb.CHAIN_DRAWING_MERMAID: draw_mermaid,
    pb.CHAIN_DRAWING_GRAPHVIZ: draw_graphviz,
}


class ChainCalls:
    """The rules of five RPCs. One for all calls; belongs to one event loop."""

    def __init__(
        self,
        source: LogSource,
        models: AnswerCache[NextEventModel],
        snapshots: AnswerCache[list[Snapshot]],
        clock: Clock,
    ) -> None:
        self._source = source
        self._models = models
        self._snapshots = snapshots
        self._clock = clock

    async def trace(self, request: pb.TraceEventChainRequest, job: Job) -> pb.TraceEventChainResponse:
        """One chain."""
        fields = asked.span_fields(request.fields)
        if request.drawing not in pb.ChainDrawing.values():
            raise invalid_field("drawing", f"has the unknown value {request.drawing}")
        events = await self._chain_events(request.correlation_id, fields, job)
        if not len(events):
            return pb.TraceEventChainResponse(coverage=messages.coverage(job.coverage))
        answer = await job.compute(lambda: _chain(events, fields, request.drawing), "chain")
        await self._add_events(answer, job)
        if request.include_related:
            answer.related.extend(await self._related(request.correlation_id, events, job))
        answer.coverage.CopyFrom(messages.coverage(job.coverage))
        return answer

    async def compare(self, request: pb.CompareChainsRequest, job: Job) -> pb.CompareChainsResponse:
        """One chain against the usual ones of its kind."""
        fields = asked.span_fields(request.fields)
        mine = await self._chain_events(request.correlation_id, fields, job)
        if not len(mine):
            raise invalid_field("correlation_id", "has no events")
        end = int(mine.times.max()) + 1
        given = asked.time_range(request.time_range, "time_range")
        within = given if request.HasField("time_range") else asked.Range(end - _DAY_NS, end)
        wanted = Wanted(request.filters, asked.span_columns(fields), (within.expression(), _IN_A_CHAIN))
        others = await self._source.groups(wanted, job.coverage, key="correlation_id", timeout_s=job.reading_s)

        def work() -> Comparison:
            events = together(others.take(_other_chains(others, request.correlation_id)), mine)
            spans, timing = _measured(events, fields, job)
            job.budget.begin("compare")
            return compare_with_usual(events, spans, timing, spans.names.index(request.correlation_id))

        answer = messages.comparison(await job.compute(work))
        answer.coverage.CopyFrom(messages.coverage(job.coverage))
        return answer

    async def causes(self, request: pb.RankCausesRequest, job: Job) -> pb.RankCausesResponse:
        """Causes of errors and slowness."""
        fields = asked.span_fields(request.fields)
        given = asked.time_range(request.time_range, "time_range")
        now_ns = self._clock.now_ns()
        within = given if request.HasField("time_range") else asked.Range(now_ns - _HOUR_NS, now_ns)
        wanted = Wanted(request.filters, asked.span_columns(fields), (within.expression(), _IN_A_CHAIN))
        events = await self._source.groups(wanted, job.coverage, key="correlation_id", timeout_s=job.reading_s)

        def work() -> list[pb.Cause]:
            spans, timing = _measured(events, fields, job)
            job.budget.begin("causes")
            return [messages.cause(each) for each in rank_causes(events, spans, timing)]

        return pb.RankCausesResponse(causes=await job.compute(work), coverage=messages.coverage(job.coverage))

    async def predict(self, request: pb.PredictNextRequest, job: Job) -> pb.PredictNextResponse:
        """What comes next in a chain. The model is learnt anew when its time is over."""
        if bool(request.correlation_id) == bool(request.event_types):
            raise invalid_field("correlation_id", "and event_types: set exactly one of them")
        types = list(request.event_types)
        if request.correlation_id:
            _check_correlation_id(request.correlation_id)
            columns = ScanColumns(["correlation_id"])
            expression = equals("correlation_id", request.correlation_id)
            wanted = Wanted(event_pb2.EventFilters(), columns, (expression,))
            events = await self._source.events(wanted, job.coverage, timeout_s=job.reading_s)
            cases = group_into_cases(events, "correlation_id")
            types = list(cases.texts(tuple(cases.codes.tolist())))
        model = await self._model(request, job)
        answer = messages.prediction(model.predict(types))
        answer.coverage.CopyFrom(messages.coverage(job.coverage))
        return answer

    async def fold(self, request: pb.FoldStateRequest, job: Job) -> pb.FoldStateResponse:
        """The state at a position or a time, from the nearest snapshot on."""
        name = request.reducer or "merge_patch"
        reducer = reducer_of(name)
        until_ns = nanoseconds(request.at_time, "at_time") if request.HasField("at_time") else None
        within = asked.Range(None, None if until_ns is None else until_ns + 1)
        key = (name, until_ns, request.filters.SerializeToString(deterministic=True))
        kept = self._snapshots.get(key)
        snapshots = kept.answer if kept is not None else []
        start = nearest_snapshot(snapshots, min(request.at_position, _POSITION_MAX) or _POSITION_MAX)
        folder = StateFolder(reducer, start=start)
        wanted = Wanted(
            request.filters,
            ScanColumns(["payload"]),
            (within.expression(),),
            from_position=start.position + 1 if start.position else 0,
            until_position=min(request.at_position, _POSITION_MAX) + 1 if request.at_position else 0,
        )
        async with aclosing(self._source.batches(wanted, job.coverage, timeout_s=job.reading_s)) as batches:
            async for batch in batches:
                await job.compute(lambda batch=batch: folder.advance(_folded(batch)))  # type: ignore[misc]
        last = folder.snapshot()
        if len(last.state_json) <= SNAPSHOT_BYTES_MAX and not wanted.uses_now:
            kept_now = [*snapshots, *folder.snapshots, last][-SNAPSHOTS_KEPT:]
            self._snapshots.put(key, kept_now, snapshot_position=last.position)
        return pb.FoldStateResponse(
            state_json=last.state_json.decode(),
            position=last.position,
            events=last.events,
            events_from_snapshot=start.events,
            coverage=messages.coverage(job.coverage),
        )

    async def _chain_events(self, correlation_id: str, fields: SpanFields, job: Job) -> EventColumns:
        _check_correlation_id(correlation_id)
        columns = asked.span_columns(fields, _RELATED_FIELDS)
        wanted = Wanted(event_pb2.EventFilters(), columns, (equals("correlation_id", correlation_id),))
        events = await self._source.events(wanted, job.coverage, timeout_s=job.reading_s)
        if len(events) <= CHAIN_EVENTS_MAX:
            return events
        job.coverage.cut("EVENTS_MAX")
        job.coverage.notes.append(
            f"only the first {CHAIN_EVENTS_MAX} of the chain's {len(events)} events were looked at"
        )
        return events.take(np.arange(CHAIN_EVENTS_MAX))

    async def _add_events(self, answer: pb.TraceEventChainResponse, job: Job) -> None:
        """The events of the spans, as many of the first ones as a message has room for."""
        positions = [span.position for span in answer.spans]
        room = min(SAMPLE_BYTES_MAX, ANSWER_BYTES_MAX - answer.ByteSize())
        found = await self._source.at_positions(positions, job.coverage, timeout_s=job.reading_s, bytes_max=room)
        answer.events.extend(found[position] for position in positions if position in found)
        if len(found) < len(positions):
            job.coverage.notes.append(
                f"events has {len(found)} of the {len(positions)} events; spans has the positions of all"
            )

    async def _related(self, correlation_id: str, events: EventColumns, job: Job) -> list[pb.RelatedChain]:
        """Chains of the same session, those that the chain names and those that name it."""
        ways = [equals(field, correlation_id) for field in LINK_FIELDS]
        ways += [
            one_of(
                "metadata.session_id" if field == "metadata.session_id" else "correlation_id",
                values,
                bytes_max=_RELATED_BYTES_MAX,
            )
            for field in _RELATED_FIELDS
            if (values := [text for text in events.labels(field).values if 0 < len(text.encode()) <= TEXT_BYTES_MAX])
        ]
        wanted = Wanted(
            event_pb2.EventFilters(expression=" OR ".join(ways)), ScanColumns(["correlation_id", *_RELATED_FIELDS])
        )
        around = await self._source.events(wanted, job.coverage, timeout_s=job.reading_s)
        both = together(around, events)
        return messages.related(await job.compute(lambda: related_chains(both, correlation_id), "related"))

    async def _model(self, request: pb.PredictNextRequest, job: Job) -> NextEventModel:
        start, end = asked.range_or_window(
            request.time_range if request.HasField("time_range") else None,
            request.history,
            now_ns=self._clock.now_ns(),
            default_s=_WEEK_S,
            field="history",
        )
        learnt_from = pb.PredictNextRequest(
            history=request.history, time_range=request.time_range, filters=request.filters
        )
        key = learnt_from.SerializeToString(deterministic=True)
        kept = self._models.get(key)
        if kept is not None:
            job.coverage.took_into_account(kept.snapshot_position)
            job.coverage.events += kept.answer.events
            return kept.answer
        within = asked.Range(start, end)
        wanted = Wanted(request.filters, ScanColumns(["correlation_id"]), (within.expression(),))
        events = await self._source.groups(wanted, job.coverage, key="correlation_id", timeout_s=job.reading_s)
        model = await job.compute(lambda: NextEventModel(group_into_cases(events, "correlation_id")), "learning")
        if not job.coverage.partial_reason and not wanted.uses_now:
            self._models.put(key, model, snapshot_position=job.coverage.snapshot_position)
        return model


def _check_correlation_id(given: str) -> None:
    """Raises EventValidationException (INVALID_FIELD) for what no event has."""
    if not given:
        raise invalid_field("correlation_id", "is missing")
    if len(given.encode()) > TEXT_BYTES_MAX:
        raise invalid_field(
            "correlation_id", f"has {len(given.encode())} bytes; no event has more than {TEXT_BYTES_MAX}"
        )


def _measured(events: EventColumns, fields: SpanFields, job: Job) -> tuple[Spans, Timing]:
    """The events as spans with their times. Raises Unwanted."""
    job.budget.begin("spans")
    spans = find_spans(events, fields)
    job.budget.begin("timing")
    return spans, measure(spans)


def _chain(events: EventColumns, fields: SpanFields, drawing: pb.ChainDrawing.ValueType) -> pb.TraceEventChainResponse:
    spans = find_spans(events, fields)
    chain = chain_of(events, spans, measure(spans), 0)
    answer = messages.chain(chain)
    if draw := _DRAWINGS.get(drawing):
        answer.drawing = draw(chain)
    return answer


def _other_chains(events: EventColumns, correlation_id: str) -> Mask:
    labels = events.labels("correlation_id")
    codes = [code for code, text in enumerate(labels.values) if text == correlation_id]
    return ~np.isin(labels.codes, codes)


def _folded(batch: EventColumns) -> Iterable[FoldedEvent]:
    types = batch.labels("type")
    return decode_events(
        batch.positions.tolist(),
        batch.times.tolist(),
        [types.values[code] for code in types.codes.tolist()],
        [str(text) for text in batch.table.column("payload").to_pylist()],
    )
