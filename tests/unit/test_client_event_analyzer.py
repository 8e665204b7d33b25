"""EventAnalyzer: what it gives for each answer, and what it does where a call breaks, against a service in memory."""

import datetime as dt
from concurrent import futures

import grpc
import pytest
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import analysis_service_pb2_grpc

from shared.client import AnalyzerOptions, BackOff, ChainFields, EventAnalyzer, FieldValues, StatisticsMeasures
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

    def RunAnalysis(self, request, context):  # noqa: N802 — the name of the RPC
        """Tell a progress, then answer or break."""
        self.requests.append(request)
        yield pb.RunAnalysisResponse(progress=pb.AnalysisProgress(stage="reading", share=0.5, events=7))
        if len(self.requests) <= self.broken:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        if self.answer.WhichOneof("answer"):
            yield self.answer


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
