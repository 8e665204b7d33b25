"""The analysis service as a process: real events through ingest and query, every RPC over gRPC."""

import gzip
from collections import Counter

import grpc
import numpy as np
import orjson
import pytest
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2
from eventlog.v1.analysis_service_pb2_grpc import AnalysisServiceStub

from shared.clock import SystemClock
from shared.rpc.channel import connect_sync
from shared.rpc.remote_error import from_rpc_error
from tests.support.analysis_cluster import analysis_of, log_documents, time_range
from tests.support.cluster import CALL_S_MAX, refused
from tests.support.event_columns import real_columns
from tests.support.nab import STANDARD, read_corpus, score_detections
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.cluster

_SECOND = 1_000_000_000


_EVER = time_range(0, 2_000_000_000 * _SECOND)


@pytest.fixture(scope="module")
def receipt(module_cluster, tmp_path_factory, data_dir):
    """A cluster with a real process log in it, and the stub of its analysis service."""
    with gzip.open(data_dir / "process_mining/receipt.jsonl.gz") as lines:
        documents = [orjson.loads(line) for line in lines]
    with module_cluster("receipt") as cluster:
        log_documents(cluster, documents)
        with analysis_of(cluster, tmp_path_factory.mktemp("analysis")) as stub:
            yield cluster, stub, documents


def test_statistics_over_the_wire_equal_a_recount(receipt):
    """Counts, hourly counts, groups and top values; the second answer comes from the cache until events are added."""
    cluster, stub, documents = receipt
    request = pb.CalculateStatisticsRequest(
        group_by=["type", "source"], value_fields=["metadata.user", 'payload."lifecycle:transition"']
    )
    answer = stub.CalculateStatistics(request, timeout=CALL_S_MAX)
    assert answer.coverage.events == len(documents)
    found = {tuple(each.value for each in group.group): group.count for group in answer.statistics}
    assert found == Counter((each["type"], each["source"]) for each in documents)
    hours = Counter()
    for group in answer.statistics:
        hours.update(dict(group.time_distribution))
    assert hours == Counter(f"{each['timestamp'][:13]}:00:00Z" for each in documents)
    users, steps = answer.statistics[0].values
    assert users.distinct > 10
    assert [each.value for each in steps.top] == ["complete"]
    again = stub.CalculateStatistics(request, timeout=CALL_S_MAX)
    assert again.cached
    assert again.statistics == answer.statistics
    of_another = pb.CalculateStatisticsRequest(event_type="test.added")
    assert not stub.CalculateStatistics(of_another, timeout=CALL_S_MAX).statistics
    log_documents(cluster, [{"type": "test.added", "timestamp": 1, "payload": {"duration_ms": 7}}])
    (added,) = stub.CalculateStatistics(of_another, timeout=CALL_S_MAX).statistics
    assert (added.count, added.avg_duration) == (1, 7.0)


def test_patterns_over_the_wire_are_the_known_ones(receipt):
    """99 edges; sample events are an occurrence; an unknown analysis is refused by its reason."""
    _, stub, documents = receipt
    request = pb.AnalyzePatternsRequest(min_occurrence=1, analyses=["directly_follows"], time_range=_EVER)
    answer = stub.AnalyzePatterns(request, timeout=CALL_S_MAX)
    assert len(answer.patterns) == 99
    assert sum(each.occurrences for each in answer.patterns) == 7143
    for each in answer.patterns[:20]:
        assert [event.type for event in each.events] == list(each.event_types)
    request = pb.AnalyzePatternsRequest(min_occurrence=400, time_range=_EVER)
    kinds = {each.pattern_type for each in stub.AnalyzePatterns(request, timeout=CALL_S_MAX).patterns}
    assert {"sequence", "variant", "co_occurrence", "directly_follows"} <= kinds
    with refused("ANALYSIS_NOT_FOUND"):
        stub.AnalyzePatterns(pb.AnalyzePatternsRequest(analyses=["sequense"]), timeout=CALL_S_MAX)
    assert len(documents) == 8577


def test_next_event_and_state_of_a_case(receipt):
    """Prediction learns from the log; a state folds the payloads of one case, at its end and in its middle."""
    _, stub, documents = receipt
    asked = ["case.confirmation_of_receipt"]
    request = pb.PredictNextRequest(event_types=asked, time_range=_EVER)
    answer = stub.PredictNext(request, timeout=CALL_S_MAX)
    assert sum(each.probability for each in answer.next) == pytest.approx(1)
    assert answer.next[0].event_type == "case.t02_check_confirmation_of_receipt"
    assert answer.remaining.ToNanoseconds() > 0
    assert stub.PredictNext(pb.PredictNextRequest(correlation_id="case-891", time_range=_EVER), timeout=CALL_S_MAX).seen
    mine = [each for each in documents if each["correlation_id"] == "case-891"]
    filters = event_pb2.EventFilters(correlation_ids=["case-891"])
    state = stub.FoldState(pb.FoldStateRequest(filters=filters), timeout=CALL_S_MAX)
    expected: dict = {}
    for each in mine:
        expected = {key: value for key, value in {**expected, **each["payload"]}.items() if value is not None}
    assert orjson.loads(state.state_json) == expected
    assert state.events == len(mine)
    again = stub.FoldState(pb.FoldStateRequest(filters=filters), timeout=CALL_S_MAX)
    assert (again.state_json, again.events_from_snapshot) == (state.state_json, len(mine))
    first = stub.FoldState(pb.FoldStateRequest(filters=filters, at_position=1, reducer="counter"), timeout=CALL_S_MAX)
    assert orjson.loads(first.state_json) == {mine[0]["type"]: 1}


def test_requests_that_make_no_sense_are_refused_by_field(receipt):
    """Each with the field that is wrong, as INVALID_FIELD."""
    _, stub, _ = receipt
    cases = [
        (stub.CalculateStatistics, pb.CalculateStatisticsRequest(percentiles=[101]), "percentiles[0]"),
        (stub.CalculateStatistics, pb.CalculateStatisticsRequest(time_zone="Mars"), "time_zone"),
        (
            stub.CalculateStatistics,
            pb.CalculateStatisticsRequest(group_by=["type", "source", "position", "timestamp"]),
            "group_by",
        ),
        (stub.CalculateStatistics, pb.CalculateStatisticsRequest(time_range=time_range(5, 5)), "time_range.end"),
        (stub.AnalyzePatterns, pb.AnalyzePatternsRequest(parameters={"nope": 1}), "parameters[nope]"),
        (stub.DetectAnomalies, pb.DetectAnomaliesRequest(sensitivity=2), "sensitivity"),
        (stub.DetectAnomalies, pb.DetectAnomaliesRequest(value_fields=["x"]), "value_fields[0]"),
        (stub.TraceEventChain, pb.TraceEventChainRequest(), "correlation_id"),
        (stub.TraceEventChain, pb.TraceEventChainRequest(correlation_id="x", drawing=99), "drawing"),
        (stub.PredictNext, pb.PredictNextRequest(), "correlation_id"),
        (stub.FoldState, pb.FoldStateRequest(reducer="nope"), "reducer"),
    ]
    for method, request, field in cases:
        with refused("INVALID_FIELD") as refusal:
            method(request, timeout=CALL_S_MAX)
        assert refusal.error.violations[0].field == field


def test_analyses_are_listed_with_their_parameters(receipt):
    """Name, family, description, ranges."""
    _, stub, _ = receipt
    listed = {each.name: each for each in stub.ListAnalyses(pb.ListAnalysesRequest(), timeout=CALL_S_MAX).analyses}
    assert listed["sequence"].family == "pattern"
    assert listed["rate"].family == "anomaly"
    (maxspan,) = (each for each in listed["sequence"].parameters if each.name == "maxspan")
    assert (maxspan.unit, maxspan.minimum) == ("s", 0)


def test_chain_of_a_real_trace(module_cluster, tmp_path, data_dir):
    """Events, tree, critical path and drawing; comparison and causes; a chain that is not there is empty."""
    with gzip.open(data_dir / "traces_onlineboutique/spans.jsonl.gz") as lines:
        documents = [orjson.loads(line) for line, _ in zip(lines, range(8_000), strict=False)]
    sizes = Counter(each["correlation_id"] for each in documents)
    trace = next(name for name, size in sizes.items() if 40 < size < 60)
    with module_cluster("traces") as cluster, analysis_of(cluster, tmp_path) as stub:
        log_documents(cluster, documents)
        request = pb.TraceEventChainRequest(correlation_id=trace, drawing=pb.CHAIN_DRAWING_TEXT, include_related=True)
        chain = stub.TraceEventChain(request, timeout=CALL_S_MAX)
        assert len(chain.events) == len(chain.spans) == sizes[trace] - chain.duplicates
        assert [each.position for each in chain.events] == [each.position for each in chain.spans]
        (root,) = (each for each in chain.spans if not each.HasField("parent"))
        parts = sum(each.path_time.ToNanoseconds() for each in chain.spans) + chain.waiting.ToNanoseconds()
        assert parts == root.duration.ToNanoseconds() == chain.duration.ToNanoseconds()
        assert chain.drawing.count("\n") == len(chain.spans)
        times = real_columns(data_dir / "traces_onlineboutique/spans.jsonl.gz").times
        within = time_range(int(times.min()), int(times.max()) + 1)
        compared = stub.CompareChains(
            pb.CompareChainsRequest(correlation_id=trace, time_range=within), timeout=CALL_S_MAX
        )
        assert compared.references > 20
        assert compared.kind == "span.frontend_recv"
        causes = stub.RankCauses(pb.RankCausesRequest(time_range=within), timeout=CALL_S_MAX).causes
        assert causes[0].trouble == "slowness"
        empty = stub.TraceEventChain(pb.TraceEventChainRequest(correlation_id="nobody"), timeout=CALL_S_MAX)
        assert len(empty.spans) == 0


def test_benchmark_through_the_log_scores_above_65(module_cluster, tmp_path, data_dir):
    """Every series is logged, and DetectAnomalies asked about it with the default sensitivity."""
    corpus = read_corpus(data_dir / "nab")
    with module_cluster("nab") as cluster, analysis_of(cluster, tmp_path) as stub:
        log_documents(
            cluster,
            (
                {"type": "nab.value", "source": series.name, "timestamp": int(time), "payload": {"value": value}}
                for series in corpus
                for time, value in zip(series.times, series.values.tolist(), strict=True)
            ),
        )
        found = {}
        for series in corpus:
            request = pb.DetectAnomaliesRequest(
                time_range=time_range(int(series.times[0]), int(series.times[-1]) + 1),
                filters=event_pb2.EventFilters(sources=[series.name]),
                value_fields=["payload.value"],
                analyses=["value"],
            )
            answer = stub.DetectAnomalies(request, timeout=CALL_S_MAX)
            assert answer.coverage.events == len(series.values)
            starts = [each.start.ToNanoseconds() for each in answer.anomalies]
            found[series.name] = np.zeros(len(series.values))
            found[series.name][np.searchsorted(series.times, starts)] = 1
    assert score_detections(corpus, found, STANDARD) > 65


def test_incident_is_told_while_it_happens(module_cluster, tmp_path):
    """A watch learns from history, then tells of a burst soon after it was logged, and ends with the service."""
    now = SystemClock().now_ns()
    random = np.random.default_rng(1)
    history = sorted(now - int(each * _SECOND) for each in random.random(6000) * 6 * 3600 + 180)
    with module_cluster("watch") as cluster, analysis_of(cluster, tmp_path) as stub:
        log_documents(cluster, ({"type": "request", "source": "web", "timestamp": each} for each in history))
        request = pb.WatchAnomaliesRequest(analyses=["rate"], lateness={"seconds": 60})
        messages = stub.WatchAnomalies(request, timeout=60)
        assert next(messages).position == 6000
        # Times to come, so that what settles them comes at once too.
        burst = [now + number * _SECOND // 20 for number in range(1200)]
        log_documents(cluster, ({"type": "request", "source": "web", "timestamp": each} for each in burst))
        log_documents(cluster, [{"type": "request", "source": "web", "timestamp": now + 300 * _SECOND}])
        told = next(message for message in messages if message.anomalies)
        assert told.anomalies[0].anomaly_type == "rate"
        assert told.anomalies[0].incident_id
        messages.cancel()


def test_service_says_when_query_is_not_there(tmp_path):
    """Calls fail with a reason that clients can branch on, and the service stays up."""
    settings = {"analysis": {"query_address": "127.0.0.1:9"}}
    with (
        ServiceProcess("analysis_service", tmp_path, settings=settings) as service,
        connect_sync(service.address) as channel,
    ):
        stub = AnalysisServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.CalculateStatistics(pb.CalculateStatisticsRequest(), timeout=CALL_S_MAX)
        assert from_rpc_error(caught.value).reason == "DEPENDENCY_UNAVAILABLE"
        assert stub.ListAnalyses(pb.ListAnalysesRequest(), timeout=CALL_S_MAX).analyses
