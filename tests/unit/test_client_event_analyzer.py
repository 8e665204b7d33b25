"""EventAnalyzer: what it gives for each answer, and what it does where a call breaks, against a service in memory."""

import datetime as dt
from concurrent import futures

import grpc
import pytest
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import analysis_service_pb2_grpc

from shared.client import (
    AnalyzerOptions,
    BackOff,
    ChainDrawing,
    ChainFields,
    EventAnalyzer,
    FieldValues,
    StatisticsMeasures,
)
from shared.config import EventConfig
from shared.errors import EventAnalysisException, EventValidationException

_START = dt.datetime(2024, 1, 15, tzinfo=dt.UTC)
_RANGE = _START, _START + dt.timedelta(hours=1)


class FakeAnalysis(analysis_service_pb2_grpc.AnalysisServiceServicer):
    """Gives one answer to every call of RunAnalysis, after as many calls as `broken` that end without any."""

    def __init__(self) -> None:
        self.answer = pb.RunAnalysisResponse()
        self.broken = 0
        self.requests: list[pb.RunAnalysisRequest] = []
        self.watched: list[pb.WatchAnomaliesRequest] = []
        # Whether an empty answer of the kind that was asked for is given instead.
        self.answers_as_asked = False

    def RunAnalysis(self, request, context):  # noqa: N802 — the name of the RPC
        """Tell a progress, then answer or break."""
        self.requests.append(request)
        yield pb.RunAnalysisResponse(progress=pb.AnalysisProgress(stage="reading", share=0.5, events=7))
        if len(self.requests) <= self.broken:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        if self.answers_as_asked:
            self.answer = _empty_answer(request.WhichOneof("analysis"))
        if self.answer.WhichOneof("answer"):
            yield self.answer

    def WatchAnomalies(self, request, context):  # noqa: N802 — the name of the RPC
        """End at once, without an incident."""
        self.watched.append(request)
        yield pb.WatchAnomaliesResponse(position=1)


def _empty_answer(kind: str) -> pb.RunAnalysisResponse:
    answer = pb.RunAnalysisResponse()
    getattr(answer, kind).SetInParent()
    if kind == "fold":
        answer.fold.state_json = "null"
    return answer


@pytest.fixture
def service():
    """The fake service."""
    return FakeAnalysis()


@pytest.fixture
async def analyzer(service):
    """A client of it."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    analysis_service_pb2_grpc.add_AnalysisServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    options = AnalyzerOptions(address=f"127.0.0.1:{port}", back_off=BackOff(first_s=0.005, max_s=0.01))
    async with EventAnalyzer(EventConfig(), options) as analyzer:
        yield analyzer
    server.stop(0).wait()


async def test_partial_answer_says_so_beside_the_list(service, analyzer):
    """Findings are a list, with what they rest on."""
    service.answer.causes.causes.add(
        trouble="errors", source="api", event_type="api.failed", score=0.5, examples=["c1"]
    )
    service.answer.causes.coverage.CopyFrom(
        pb.AnalysisCoverage(events=9, partial=True, partial_reason="DEADLINE", notes=["time ran out"])
    )
    causes = await analyzer.rank_causes(_RANGE)
    assert [each.examples for each in causes] == [("c1",)]
    assert (causes.coverage.partial, causes.coverage.partial_reason) == (True, "DEADLINE")
    assert causes.coverage.notes == ("time ran out",)
    asked = service.requests[0].causes.time_range
    assert (asked.start.seconds, asked.end.seconds - asked.start.seconds) == (int(_START.timestamp()), 3600)


async def test_comparison_keeps_what_is_missing_apart_from_empty(service, analyzer):
    """The parent of a root's step is None."""
    service.answer.compare.kind = "api.request"
    service.answer.compare.references = 12
    service.answer.compare.differences.add(
        difference="slower", event_type="api.request", expected_low=1, expected_high=3, actual=9
    )
    compared = await analyzer.compare_chains("c1", filters="source = 'api'")
    assert (compared.kind, compared.references) == ("api.request", 12)
    (difference,) = compared.differences
    assert (difference.parent_type, difference.expected, difference.actual) == (None, (1.0, 3.0), 9.0)
    assert service.requests[0].compare.filters.expression == "source = 'api'"
    assert not service.requests[0].compare.HasField("time_range")


@pytest.mark.parametrize(("at", "field"), [(7, "at_position"), (_START, "at_time"), (None, None)])
async def test_state_is_decoded_and_asked_for_at_a_place(service, analyzer, at, field):
    """A position, a time, or the end."""
    service.answer.fold.state_json = '{"a": 9007199254740993}'
    service.answer.fold.position = 7
    state = await analyzer.fold_state("correlation_id = 'c1'", reducer="latest", at=at)
    assert (state.state, state.position) == ({"a": 2**53 + 1}, 7)
    request = service.requests[0].fold
    assert request.reducer == "latest"
    assert [name.name for name, _ in request.ListFields() if name.name.startswith("at_")] == ([field] if field else [])


async def test_call_that_broke_begins_anew(service, analyzer):
    """Progress is told of each attempt."""
    told = []
    service.broken = 2
    service.answer.predict.next.add(event_type="", probability=1)
    likely = await analyzer.predict_next(["a", "b"], on_progress=told.append)
    assert likely.types == ((None, 1.0),)
    assert [(each.stage, each.share, each.events) for each in told] == [("reading", 0.5, 7)] * 3
    assert list(service.requests[2].predict.event_types) == ["a", "b"]


async def test_stream_without_an_answer_is_an_error(service, analyzer):
    """Never an empty answer."""
    with pytest.raises(EventAnalysisException, match="without an answer"):
        await analyzer.detect_anomalies(dt.timedelta(hours=1))
    assert len(service.requests) == 1


async def test_statistics_measure_what_they_are_told(service, analyzer):
    """Durations, values and how many are told go into the request; values, hours and failures come out."""
    group = service.answer.statistics.statistics.add(event_type="job", count=3, failures=1, hours_of_week=[1] * 168)
    group.values.add(field="source", distinct=2, top=[pb.ValueCount(value="a", count=2)])
    measures = StatisticsMeasures(duration_field="payload.took", value_fields=("source",), top_values=1)
    (found,) = await analyzer.group_statistics(measures=measures)
    asked = service.requests[0].statistics
    assert (asked.duration_field, list(asked.value_fields), asked.top_values) == ("payload.took", ["source"], 1)
    assert found.values == {"source": FieldValues(2, distinct_estimated=False, top={"a": 2}, undercount_max=0)}
    assert (found.failures, len(found.hours_of_week)) == (1, 168)


async def test_ranges_are_compared(service, analyzer):
    """A change without a rate there has no ratio."""
    service.answer.statistics.changes.add(count=5, other_count=0, surprise=3.0)
    other = _START - dt.timedelta(days=7), _START - dt.timedelta(days=7) + dt.timedelta(hours=1)
    (change,) = await analyzer.compare_statistics(_RANGE, other)
    assert (change.count, change.other_count, change.rate_ratio, change.surprise) == (5, 0, None, 3.0)
    asked = service.requests[0].statistics
    assert asked.compare_with.start.ToDatetime(dt.UTC) == other[0]
    assert list(asked.group_by) == ["type"]


async def test_fields_of_a_chain_are_handed_on(service, analyzer):
    """Those that are named; related chains only where they are wanted."""
    service.answer.chain.spans.clear()
    service.answer.chain.SetInParent()
    await analyzer.trace_event_chain("c", fields=ChainFields(span_id="payload.id"), include_related=False)
    asked = service.requests[0].chain
    assert (asked.fields.span_id, asked.fields.parent_id, asked.include_related) == ("payload.id", "", False)


async def test_numbers_out_of_range_are_refused_by_name(service, analyzer):
    """Before anything is sent."""
    with pytest.raises(EventValidationException, match="min_occurrence"):
        await analyzer.analyze_patterns(dt.timedelta(hours=1), -1)
    with pytest.raises(EventValidationException, match="top_values"):
        await analyzer.group_statistics(measures=StatisticsMeasures(top_values=-1))
    with pytest.raises(EventValidationException, match="at is"):
        await analyzer.fold_state("type = 'a'", at=2**63)
    assert not service.requests


async def _ask_for_everything(analyzer: EventAnalyzer) -> None:
    """Call every method with every argument."""
    hour = dt.timedelta(hours=1)
    fields = ChainFields(span_id="a", parent_id="b", start="c", end="d", duration="e")
    measures = StatisticsMeasures(duration_field="payload.took", value_fields=("source",), top_values=3)
    every = {"filters": "type = 'a'"}
    judged = {"sensitivity": 0.5, "analyses": ["rate"], "value_fields": ["payload.took"], **every}
    await analyzer.calculate_statistics("a", _RANGE, percentiles=[90], time_zone="Europe/Berlin", **every)
    await analyzer.compare_statistics(_RANGE, _RANGE, ["source"], measures=measures, **every)
    await analyzer.analyze_patterns(hour, 4, group_by="source", analyses=["variant"], parameters={"k": 2}, **every)
    await analyzer.analyze_patterns(time_range=_RANGE)
    await analyzer.detect_anomalies(hour, group_by="source", **judged)
    await analyzer.detect_anomalies(time_range=_RANGE)
    await analyzer.trace_event_chain("c", fields=fields, drawing=ChainDrawing.MERMAID, include_related=True)
    await analyzer.compare_chains("c", _RANGE, fields=fields, **every)
    await analyzer.rank_causes(_RANGE, fields=fields, **every)
    await analyzer.predict_next("c", _RANGE, **every)
    await analyzer.predict_next(["a", "b"], history=hour)
    await analyzer.fold_state("type = 'a'", reducer="latest", at=7)
    await analyzer.fold_state(None, at=_START)
    assert [each async for each in analyzer.watch_anomalies(hour, lateness=hour, **judged)] == []


async def test_every_field_of_every_request_is_reachable(service, analyzer):
    """No field of a request, nor of its chain fields, is left that no argument sets."""
    service.answers_as_asked = True
    await _ask_for_everything(analyzer)
    asked = [getattr(request, request.WhichOneof("analysis")) for request in service.requests] + service.watched
    assert {type(each) for each in asked} == {
        *(getattr(pb, field.message_type.name) for field in pb.RunAnalysisRequest.DESCRIPTOR.fields),
        pb.WatchAnomaliesRequest,
    }
    for kind in {type(each) for each in asked}:
        reached = {field.name for each in asked if isinstance(each, kind) for field, _ in each.ListFields()}
        assert reached == set(kind.DESCRIPTOR.fields_by_name), kind.DESCRIPTOR.name
    for each in asked:
        if "fields" in each.DESCRIPTOR.fields_by_name:
            assert len(each.fields.ListFields()) == len(pb.ChainFields.DESCRIPTOR.fields)


@pytest.mark.parametrize("drawing", ChainDrawing)
async def test_drawings_have_their_numbers(service, analyzer, drawing):
    """Each way to draw a chain is the service's of the same name."""
    service.answer.chain.SetInParent()
    await analyzer.trace_event_chain("c", drawing=drawing)
    name = "UNSPECIFIED" if drawing is ChainDrawing.NONE else drawing.name
    assert pb.ChainDrawing.Name(service.requests[0].chain.drawing) == f"CHAIN_DRAWING_{name}"


async def test_events_of_other_groups_are_told(service, analyzer):
    """The list has 1,000 groups at most, and says what it leaves out."""
    service.answer.statistics.statistics.add(event_type="job", count=3, duration_count=2)
    service.answer.statistics.events_elsewhere = 2600
    service.answer.statistics.cached = True
    groups = await analyzer.group_statistics()
    assert (groups.events_elsewhere, groups.cached, groups[0].duration_count) == (2600, True, 2)


async def test_chain_tells_its_gaps_and_relations(service, analyzer):
    """What the service says about the time of a chain and about others is kept."""
    chain = service.answer.chain
    chain.spans.add(position=1, on_critical_path=True)
    chain.gaps.add(after=0, before=1).duration.seconds = 5
    chain.waiting.seconds = 2
    chain.related.add(correlation_id="d", relation="causes", events=4)
    chain.duplicates, chain.inferred = 3, True
    found = await analyzer.trace_event_chain("c")
    (gap,) = found.gaps
    assert (gap.after, gap.before, gap.duration) == (0, 1, dt.timedelta(seconds=5))
    assert (found.waiting, found.duplicates, found.inferred) == (dt.timedelta(seconds=2), 3, True)
    assert (found.related, found.related_events) == ({"d": "causes"}, {"d": 4})
    assert found.spans[0].on_critical_path


async def test_period_and_remaining_time_are_none_where_unknown(service, analyzer):
    """Unset durations are None, set ones are not."""
    service.answer.patterns.patterns.add(pattern_type="periodic", cases=2).period.seconds = 60
    service.answer.patterns.patterns.add(pattern_type="sequence", gapped=True)
    periodic, sequence = await analyzer.analyze_patterns()
    assert (periodic.period, periodic.cases) == (dt.timedelta(minutes=1), 2)
    assert (sequence.period, sequence.gapped) == (None, True)
    service.answer.predict.order = 2
    assert (await analyzer.predict_next("c")).remaining_range is None
    service.answer.predict.remaining.seconds = 5
    service.answer.predict.remaining_high.seconds = 9
    found = await analyzer.predict_next("c")
    assert (found.order, found.remaining_range) == (2, (dt.timedelta(), dt.timedelta(seconds=9)))


async def test_durations_and_positions_out_of_range_are_refused_by_name(service, analyzer):
    """Position 0 would mean the end, and a message cannot hold the longest durations."""
    with pytest.raises(EventValidationException, match="at is 0"):
        await analyzer.fold_state(None, at=0)
    with pytest.raises(EventValidationException, match="time_window"):
        await analyzer.analyze_patterns(dt.timedelta.max)
    with pytest.raises(EventValidationException, match="history"):
        await analyzer.predict_next("c", history=dt.timedelta.max)
    assert not service.requests
