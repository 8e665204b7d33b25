"""Long analyses over gRPC: they tell how far they are, stop when the call is cancelled, and keep to their deadline."""

from contextlib import contextmanager
from itertools import pairwise

import pytest
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2
from eventlog.v1.analysis_service_pb2_grpc import AnalysisServiceStub

from shared.client import AnalyzerOptions, EventAnalyzer
from shared.config import EventConfig
from shared.events.timestamps import to_datetime
from shared.rpc.channel import connect_sync
from tests.benchmarks.query_log import build_query_log
from tests.support.cluster import CALL_S_MAX, metrics, refused, wait_until
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.cluster

_EVENTS = 400_000
_EVER_S = 2_000_000_000
_EVER = event_pb2.TimeRange(start={"seconds": 0}, end={"seconds": _EVER_S})
_PATTERNS = pb.AnalyzePatternsRequest(
    time_range=_EVER,
    min_occurrence=10,
    analyses=["variant", "directly_follows", "sequence"],
    parameters={"max_length": 2},
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The analysis service on a log that takes seconds to analyse."""
    directory = tmp_path_factory.mktemp("long")
    log = directory / "log"
    log.mkdir()
    build_query_log(log, sealed_segments=1, tail_events=2_000, segment_events=_EVENTS)
    with ServiceProcess("query_service", directory / "query", settings={"storage": {"base_path": str(log)}}) as query:
        settings = {"analysis": {"query_address": query.address, "statistics_cache_ttl": "0s"}}
        with ServiceProcess("analysis_service", directory / "analysis", settings=settings) as analysis:
            yield analysis


@contextmanager
def _stub(service):
    with connect_sync(service.address) as channel:
        yield AnalysisServiceStub(channel)


def _idle(service) -> bool:
    found = metrics(service)
    return found["eventlog_analysis_calls"] == found["eventlog_analysis_running"] == 0


def test_progress_grows_up_to_the_answer(service):
    """Events read never fall, the share grows within each stage, and the last message holds the answer."""
    with _stub(service) as stub:
        *told, last = stub.RunAnalysis(pb.RunAnalysisRequest(patterns=_PATTERNS), timeout=2 * CALL_S_MAX)
    assert last.WhichOneof("answer") == "patterns"
    assert not last.HasField("progress")
    assert last.patterns.patterns
    assert last.patterns.coverage.events == _EVENTS + 2_000
    progress = [message.progress for message in told]
    assert len({each.stage for each in progress}) >= 2
    assert progress[-1].events == _EVENTS + 2_000
    assert [each.events for each in progress] == sorted(each.events for each in progress)
    for before, after in pairwise(progress):
        assert after.elapsed.ToNanoseconds() > before.elapsed.ToNanoseconds()
        assert after.stage != before.stage or after.share >= before.share


def test_cancelled_call_stops_its_work(service):
    """While patterns are sought the call is cancelled: soon no thread computes, and nothing waits."""
    with _stub(service) as stub:
        messages = stub.RunAnalysis(pb.RunAnalysisRequest(patterns=_PATTERNS), timeout=2 * CALL_S_MAX)
        seeking = next(each.progress for each in messages if each.progress.stage not in {"waiting", "reading"})
        assert seeking.events == _EVENTS + 2_000
        assert metrics(service)["eventlog_analysis_calls"] == 1
        messages.cancel()
        wait_until(lambda: _idle(service), "the analysis has stopped")


def test_call_cancelled_while_it_reads_stops_reading(service):
    """A unary call that is given up leaves nothing behind."""
    with _stub(service) as stub:
        call = stub.AnalyzePatterns.future(_PATTERNS, timeout=2 * CALL_S_MAX)
        wait_until(lambda: metrics(service)["eventlog_analysis_calls"] == 1, "the call has begun")
        call.cancel()
        wait_until(lambda: _idle(service), "the analysis has stopped")


def test_short_deadline_gives_a_partial_answer_that_says_so(service):
    """Statistics of what could be read in time, by the unary RPC and by the one that tells its progress."""
    wide = pb.CalculateStatisticsRequest(
        value_fields=["payload.message", "metadata.session_id", "correlation_id", "metadata.user", "timestamp"],
        group_by=["type", "payload.status"],
    )
    with _stub(service) as stub:
        unary = _partial(lambda timeout: stub.CalculateStatistics(wide, timeout=timeout))
        request = pb.RunAnalysisRequest(statistics=wide)
        streamed = _partial(lambda timeout: list(stub.RunAnalysis(request, timeout=timeout))[-1].statistics)
    for answer in (unary, streamed):
        assert answer.coverage.partial_reason == "DEADLINE"
        assert any("no time" in note for note in answer.coverage.notes)
        assert sum(each.count for each in answer.statistics) == answer.coverage.events
    wait_until(lambda: _idle(service), "nothing is left behind")


def test_share_of_reading_grows_over_all_that_is_read(service):
    """Statistics read the log more than once: counts, durations, values, and all of it for the other range."""
    request = pb.CalculateStatisticsRequest(
        value_fields=["correlation_id", "metadata.session_id"], time_range=_EVER, compare_with=_EVER
    )
    with _stub(service) as stub:
        *told, last = stub.RunAnalysis(pb.RunAnalysisRequest(statistics=request), timeout=2 * CALL_S_MAX)
    shares = [message.progress.share for message in told if message.progress.stage == "reading"]
    assert shares == sorted(shares)
    assert len(set(shares)) > 1
    assert {change.rate_ratio for change in last.statistics.changes} == {1}


def _partial(ask):
    """The answer in less and less time, until it is partial."""
    for timeout in (4.0, 2.0, 1.0, 0.5, 0.25, 0.12):
        answer = ask(timeout)
        if answer.coverage.partial:
            return answer
    raise AssertionError("every answer was whole")


def test_request_without_an_analysis_is_refused(service):
    """The names that there are stand in the message."""
    with _stub(service) as stub, refused("INVALID_FIELD") as refusal:
        list(stub.RunAnalysis(pb.RunAnalysisRequest(), timeout=CALL_S_MAX))
    assert refusal.error.violations[0].field == "analysis"
    assert "statistics" in str(refusal.error)


async def test_client_hands_on_progress(service):
    """on_progress is called as the analysis goes on; the answer says what it rests on."""
    told = []
    ever = to_datetime(0), to_datetime(_EVER_S * 10**9)
    async with EventAnalyzer(EventConfig(), AnalyzerOptions(address=service.address)) as analyzer:
        found = await analyzer.analyze_patterns(time_range=ever, analyses=["directly_follows"], on_progress=told.append)
    assert found.coverage.events == _EVENTS + 2_000
    assert not found.coverage.partial
    assert "directly_follows" in {each.stage for each in told}
    assert told[-1].events == _EVENTS + 2_000
