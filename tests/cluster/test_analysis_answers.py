"""What answers of the analysis service promise beyond numbers: which events, expressions that find, consistency."""

import threading

import orjson
import pytest
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2, query_service_pb2

from shared.clock import SystemClock
from tests.support.analysis_cluster import analysis_of, log_documents, time_range
from tests.support.cluster import CALL_S_MAX, refused

pytestmark = pytest.mark.cluster

_SECOND = 1_000_000_000
_START = 1_705_000_000 * _SECOND
_EVER = time_range(0, 2_000_000_000 * _SECOND)
_CHAIN = 2_500


def _documents():
    """A long chain logged in reverse, and orders whose ids are numbers."""
    yield from (
        {
            "type": "step",
            "source": "s",
            "correlation_id": "long",
            "timestamp": _START + at * _SECOND,
            "payload": {"at": at},
        }
        for at in reversed(range(_CHAIN))
    )
    yield from (
        {"type": kind, "source": "shop", "timestamp": _START + at * _SECOND, "payload": {"order": {"id": at // 3}}}
        for at in range(60)
        for kind in [("ordered", "paid", "sent")[at % 3]]
    )


@pytest.fixture(scope="module")
def logged(module_cluster, tmp_path_factory):
    """A cluster with these events, and the stub of its analysis service."""
    with module_cluster("answers") as cluster:
        log_documents(cluster, _documents())
        with analysis_of(cluster, tmp_path_factory.mktemp("analysis")) as stub:
            yield cluster, stub


def _filters(expression):
    return event_pb2.EventFilters(expression=expression)


def _count(cluster, expression):
    selection = query_service_pb2.EventSelection(filters=_filters(expression))
    request = query_service_pb2.CountEventsRequest(selection=selection)
    return cluster.reads.CountEvents(request, timeout=CALL_S_MAX).count


def test_a_long_chain_comes_with_its_events_in_its_order(logged):
    """Also where it was logged in another order."""
    _, stub = logged
    answer = stub.TraceEventChain(pb.TraceEventChainRequest(correlation_id="long"), timeout=CALL_S_MAX)
    assert len(answer.spans) == len(answer.events) == _CHAIN
    assert [event.position for event in answer.events] == [span.position for span in answer.spans]
    assert [orjson.loads(event.payload_json)["at"] for event in answer.events] == list(range(_CHAIN))
    assert not answer.coverage.notes


def test_chain_with_many_long_links_finds_its_relatives(logged):
    """Also where all of its sessions and links together are longer than a filter may be."""
    cluster, stub = logged
    names = [f"{number:03}".ljust(250, "'") for number in range(60)]
    links = ("caused_by", "parent_correlation_id", "pipeline_run")
    log_documents(
        cluster,
        [
            {
                "type": "linked",
                "source": "links",
                "correlation_id": correlation_id,
                "timestamp": _START,
                "metadata": {"session_id": name},
                "payload": dict.fromkeys(links, name + "s"),
            }
            for correlation_id, names_of in (("linking", names), ("neighbour", names[:1]))
            for name in names_of
        ],
    )
    request = pb.TraceEventChainRequest(correlation_id="linking", include_related=True)
    related = stub.TraceEventChain(request, timeout=CALL_S_MAX).related
    assert [each.correlation_id for each in related if each.relation == "same session"] == ["neighbour"]


def test_answers_with_large_events_are_not_too_large(module_cluster, tmp_path):
    """The first events of a chain that fit; patterns with all of their sample events or none. Both are said."""
    large = [
        {
            "type": ("filled", "emptied")[at % 2],
            "source": "s",
            "correlation_id": "large",
            "timestamp": _START + at * _SECOND,
            "payload": {"at": at, "text": "x" * 300_000},
        }
        for at in range(24)
    ]
    with module_cluster("large") as cluster, analysis_of(cluster, tmp_path) as stub:
        log_documents(cluster, reversed(large))
        chain = stub.TraceEventChain(pb.TraceEventChainRequest(correlation_id="large"), timeout=CALL_S_MAX)
        assert [orjson.loads(event.payload_json)["at"] for event in chain.events] == list(range(6))
        assert len(chain.spans) == 24
        assert chain.coverage.notes == ["events has 6 of the 24 events; spans has the positions of all"]
        request = pb.AnalyzePatternsRequest(time_range=_EVER, min_occurrence=2)
        found = stub.AnalyzePatterns(request, timeout=CALL_S_MAX)
        told = [pattern for pattern in found.patterns if pattern.events]
        assert 0 < len(told) < len(found.patterns)
        assert all(len(pattern.events) == min(len(pattern.event_types), 10) for pattern in told if pattern.cases)
        assert found.ByteSize() < 4 * 1024 * 1024
        assert any("no sample events" in note for note in found.coverage.notes)


def test_expressions_of_patterns_find_numbers_within_their_range(logged):
    """Cases are told apart by a number of the payload: each expression finds events, none outside of the range."""
    cluster, stub = logged
    within = time_range(_START, _START + 30 * _SECOND)
    request = pb.AnalyzePatternsRequest(
        time_range=within, group_by="payload.order.id", filters=_filters("source = 'shop'"), min_occurrence=2
    )
    patterns = stub.AnalyzePatterns(request, timeout=CALL_S_MAX).patterns
    of_cases = [pattern for pattern in patterns if "payload.order.id" in pattern.expression]
    assert of_cases
    for pattern in of_cases:
        assert 0 < _count(cluster, f"({pattern.expression}) AND source = 'shop'") <= 30


@pytest.mark.parametrize(
    ("method", "request_", "named"),
    [
        ("AnalyzePatterns", pb.AnalyzePatternsRequest(group_by="metadata.tags"), "group_by"),
        ("DetectAnomalies", pb.DetectAnomaliesRequest(group_by="id"), "group_by"),
        ("CalculateStatistics", pb.CalculateStatisticsRequest(value_fields=["type", "payload.a.."]), "value_fields[1]"),
        ("CalculateStatistics", pb.CalculateStatisticsRequest(duration_field="type"), "duration_field"),
        (
            "TraceEventChain",
            pb.TraceEventChainRequest(correlation_id="long", fields=pb.ChainFields(span_id="metadata.tags")),
            "fields.span_id",
        ),
        ("TraceEventChain", pb.TraceEventChainRequest(correlation_id="x" * 9_000), "correlation_id"),
        ("PredictNext", pb.PredictNextRequest(correlation_id="é" * 128), "correlation_id"),
    ],
)
def test_wrong_fields_are_named_as_the_caller_named_them(logged, method, request_, named):
    """Not as the query service would name them."""
    _, stub = logged
    with refused("INVALID_FIELD") as refusal:
        getattr(stub, method)(request_, timeout=CALL_S_MAX)
    assert refusal.error.violations[0].field == named


def test_a_filter_must_be_whole(logged):
    """Brackets that it closes without opening them do not open what it is combined with."""
    _, stub = logged
    filters = _filters("type = 'paid') OR (type = 'sent'")
    with refused("INVALID_FILTER"):
        stub.CalculateStatistics(
            pb.CalculateStatisticsRequest(event_type="no.such", filters=filters), timeout=CALL_S_MAX
        )


def test_state_at_the_highest_position_is_the_newest(logged):
    """Whatever number a caller takes for the end."""
    _, stub = logged
    filters = _filters("source = 'shop'")
    states = [
        stub.FoldState(pb.FoldStateRequest(filters=filters, at_position=at), timeout=CALL_S_MAX)
        for at in (0, 2**64 - 1)
    ]
    assert states[0].state_json == states[1].state_json == '{"order":{"id":19}}'


def test_what_is_asked_with_now_is_not_kept(logged):
    """An answer about the last seconds is another one after them."""
    cluster, stub = logged
    now_ns = SystemClock().now_ns()
    log_documents(cluster, [{"type": "fresh", "source": "clock", "timestamp": now_ns + _SECOND}])
    filters = _filters("source = 'clock' AND timestamp > now()")
    statistics = pb.CalculateStatisticsRequest(filters=filters)
    state = pb.FoldStateRequest(filters=filters, reducer="counter")
    while stub.CalculateStatistics(statistics, timeout=CALL_S_MAX).statistics:
        assert not stub.CalculateStatistics(statistics, timeout=CALL_S_MAX).cached
    assert stub.FoldState(state, timeout=CALL_S_MAX).state_json == "null"


def test_statistics_are_of_one_moment_while_events_are_logged(module_cluster, tmp_path):
    """Values add up to counts in every answer, and an answer that is kept is not missing what came meanwhile."""
    with module_cluster("moments") as cluster, analysis_of(cluster, tmp_path) as stub:
        ended = threading.Event()

        def keep_logging():
            at = 0
            while not ended.is_set():
                log_documents(
                    cluster, [{"type": "tick", "source": str(n % 3), "timestamp": _START + at + n} for n in range(200)]
                )
                at += 200

        logging = threading.Thread(target=keep_logging)
        logging.start()
        try:
            request = pb.CalculateStatisticsRequest(value_fields=["source"])
            for _ in range(25):
                answer = stub.CalculateStatistics(request, timeout=CALL_S_MAX)
                assert answer.coverage.events == answer.coverage.snapshot_position
                for group in answer.statistics:
                    assert sum(value.count for value in group.values[0].top) == group.count == answer.coverage.events
        finally:
            ended.set()
            logging.join()
