"""Analyses over gRPC, of the ten million events that the query benchmark asks about: analysis and query service.

Chains are of one root with spans below it, timed in this process: what a call adds to them is in the other rows.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2, query_service_pb2
from eventlog.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from eventlog.v1.query_service_pb2_grpc import QueryServiceStub

from analysis_service.chains.chain import chain_of
from analysis_service.chains.spans import SpanFields, find_spans
from analysis_service.chains.timing import measure
from analysis_service.columns import EventColumns
from shared.rpc.channel import connect_sync
from tests.benchmarks.bench import Bench, Case
from tests.benchmarks.query_log import shared_query_log
from tests.benchmarks.report import Outcome, RowSpec
from tests.support.service_process import ServiceProcess

_TIMEOUT_S = 600.0
_ATTEMPTS = 3
_SPANS = 100_000
_PATTERN_EVENTS = 250_000
_ANOMALY_EVENTS = 1_000_000
_SPREAD_NS = 1_000_000
_EVER = event_pb2.TimeRange(start={"seconds": 0}, end={"seconds": 4_000_000_000})


def _measure(bench: Bench) -> Mapping[str, Outcome]:
    log, events = shared_query_log(bench)
    outcomes: dict[str, Outcome] = {"chain_100k_spans_us_per_span": _chain_us(bench.count(_SPANS))}
    with bench.scratch("analysis") as directory:
        settings = {"storage": {"base_path": str(log)}}
        with ServiceProcess("query_service", directory / "query", settings=settings) as query:
            outcomes["scan_events_per_s"] = events / _scan_s(query.address, events)
            outcomes |= _analyses(bench, directory, query.address, events)
    return outcomes


def _scan_s(address: str, events: int) -> float:
    """Seconds of a scan of the columns that chains of events are told apart by."""
    request = query_service_pb2.ScanRequest(columns=["position", "timestamp", "type", "correlation_id"])
    with connect_sync(address) as channel:
        stub = QueryServiceStub(channel)

        def scan() -> None:
            *_, last = stub.Scan(request, timeout=_TIMEOUT_S)
            assert last.summary.matched_events == events
            assert not last.summary.partial

        return _best_s(scan)


def _analyses(bench: Bench, directory: Path, query_address: str, events: int) -> dict[str, Outcome]:
    # Without a cache: each answer is computed.
    analysis = {"query_address": query_address, "statistics_cache_ttl": "0s"}
    service = ServiceProcess("analysis_service", directory / "analysis", settings={"analysis": analysis})
    with service, connect_sync(service.address) as channel:
        stub = AnalysisServiceStub(channel)
        asked: list[tuple[str, Callable[..., object], object, int]] = [
            ("statistics_10m_ms", stub.CalculateStatistics, pb.CalculateStatisticsRequest(), events),
            ("patterns_250k_ms", stub.AnalyzePatterns, _patterns(bench.count(_PATTERN_EVENTS)), _PATTERN_EVENTS),
            ("anomalies_1m_ms", stub.DetectAnomalies, _anomalies(bench.count(_ANOMALY_EVENTS)), _ANOMALY_EVENTS),
        ]
        outcomes: dict[str, Outcome] = {}
        for name, method, request, count in asked:
            wanted = count if name.startswith("statistics") else bench.count(count)

            def ask(method=method, request=request, wanted=wanted) -> None:  # type: ignore[no-untyped-def]
                answer = method(request, timeout=_TIMEOUT_S)
                assert answer.coverage.events == wanted, answer.coverage
                assert not answer.coverage.partial, answer.coverage

            outcomes[name] = _best_s(ask) * 1000
            bench.progress(f"{name}: {outcomes[name]:,.0f}")
        outcomes["analysis_service_peak_rss_mb"] = _peak_rss_mb(service.pid)
    return outcomes


def _patterns(count: int) -> pb.AnalyzePatternsRequest:
    filters = event_pb2.EventFilters(expression=f"position <= {count}")
    return pb.AnalyzePatternsRequest(time_range=_EVER, filters=filters, min_occurrence=100)


def _anomalies(count: int) -> pb.DetectAnomaliesRequest:
    # The reference events begin at 10:30, some of them a little earlier, and come ten thousand a second.
    within = event_pb2.TimeRange(start={"seconds": 1_705_743_000}, end={"seconds": 1_705_743_000 + 86_400})
    return pb.DetectAnomaliesRequest(
        time_range=within, filters=event_pb2.EventFilters(expression=f"position <= {count}")
    )


def _chain_us(count: int) -> float:
    """Microseconds a span of one chain: from columns to the tree with its times and its critical path."""
    random = np.random.default_rng(1)
    numbers = np.arange(count)
    parents = (random.random(count) * numbers).astype(np.int64)
    starts = 1_700_000_000 * 10**9 + numbers * 1_000
    ends = starts + random.integers(1, _SPREAD_NS, count)
    fields = SpanFields()
    columns = {
        "position": pa.array(numbers + 1, pa.uint64()),
        "timestamp": pa.array(starts, pa.timestamp("ns", tz="UTC")),
        "type": pa.array(np.char.add("span.", (numbers % 40).astype(str)).tolist()),
        "source": pa.array(np.char.add("service", (numbers % 7).astype(str)).tolist()),
        "correlation_id": pa.array(["trace"] * count),
        fields.span: pa.array(numbers.astype(str).tolist()),
        fields.parent: pa.array([None, *parents[1:].astype(str).tolist()], pa.string()),
        fields.start: pa.array(starts),
        fields.end: pa.array(ends),
    }
    table = pa.table(columns)

    def trace() -> None:
        events = EventColumns(table)
        spans = find_spans(events, fields)
        assert len(chain_of(events, spans, measure(spans), 0)) == count

    return _best_s(trace) / count * 1e6


def _peak_rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


def _best_s(run: Callable[[], None]) -> float:
    """The shortest of a few attempts; the first one warms up what is kept."""
    times = []
    for _ in range(_ATTEMPTS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


ANALYSIS = Case(
    rows=(
        RowSpec("statistics_10m_ms", "ms", target=1_000, at_most=True),
        RowSpec("patterns_250k_ms", "ms"),
        RowSpec("anomalies_1m_ms", "ms"),
        RowSpec("chain_100k_spans_us_per_span", "us", target=2, at_most=True),
        RowSpec("scan_events_per_s", "events/s"),
        RowSpec("analysis_service_peak_rss_mb", "MB"),
    ),
    measure=_measure,
)
