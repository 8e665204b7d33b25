"""Ten million events, nine sealed segments and a tail: what it takes to find some, to count many, to export all.

The query service is asked over gRPC, one call at a time, by a client on the same cores; each answer is parsed. Then
ClickHouse is asked the same on the same events (see clickhouse_peer), and the answers are compared.
"""

import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import grpc
import numpy as np
import pyarrow.parquet as pq
from eventlog.v1 import event_pb2, query_service_pb2
from eventlog.v1.query_service_pb2_grpc import QueryServiceStub

from shared.columns.schema import EVENT_SCHEMA
from shared.log.file_system import LocalFileSystem
from shared.log.log_reader import LocalLogReader
from shared.log.types import Position
from shared.rpc.channel import connect_sync
from tests.benchmarks import query_questions as questions
from tests.benchmarks.bench import Bench, Case
from tests.benchmarks.clickhouse_peer import ClickHouse
from tests.benchmarks.peer_process import PeerMissingError
from tests.benchmarks.query_log import SEALED_SEGMENTS, SEGMENT_EVENTS, shared_query_log
from tests.benchmarks.query_questions import Question
from tests.benchmarks.report import Failed, Outcome, RowSpec, Skipped
from tests.support.service_process import ServiceProcess

_TIMEOUT_S = 300.0
_WARM_UP = 5

_GET = "get_event"
_CORRELATION = "correlation_lookup"
_TYPE_HOUR = "type_hour_payload_limit100"
_NEWEST = "newest_100"
_COUNT_PROMOTED = "count_promoted_filter"
_COUNT_COMPOUND = "compound_example_count"
_EXPORT = "export_parquet"
_EXPORT_RATE = "export_parquet_events_per_s"

# How often each question is asked, with other values: the same one might be answered from a cache.
_TIMES = {_GET: 300, _CORRELATION: 300, _TYPE_HOUR: 120, _NEWEST: 100, _COUNT_PROMOTED: 9, _COUNT_COMPOUND: 10}
# Counts have one figure: the median.
_COUNTS = (_COUNT_PROMOTED, _COUNT_COMPOUND)

_RATIOS = tuple(f"{name}_vs_clickhouse" for name in (*_TIMES, _EXPORT))


def _measure(bench: Bench) -> Mapping[str, Outcome]:
    log, events = shared_query_log(bench)
    with bench.scratch("query") as directory:
        settings = {"storage": {"base_path": str(log)}}
        with ServiceProcess("query_service", directory / "query", settings=settings) as service:
            outcomes: dict[str, Outcome] = {"query_service_rss_mb": service.tree_rss_mb()}
            with connect_sync(service.address) as channel:
                ours = _Ours(bench, channel, events)
                outcomes |= ours.measure()
                outcomes["query_service_busy_rss_mb"] = service.tree_rss_mb()
                if bench.wanted & set(_RATIOS):
                    outcomes |= _compare(bench, directory, log, ours)
    return outcomes


class _Ours:
    """Asks the query service."""

    def __init__(self, bench: Bench, channel: grpc.Channel, events: int) -> None:
        self._bench = bench
        self._stub = QueryServiceStub(channel)
        self.events = events
        self.questions = self._questions()
        # Milliseconds of each question, in their order.
        self.times: dict[str, list[float]] = {}
        self.export_s = 0.0

    def measure(self) -> dict[str, Outcome]:
        """Ask everything; returns the rows."""
        outcomes: dict[str, Outcome] = {}
        for name, every in self.questions.items():
            warm_up, asked = every[:_WARM_UP], every[_WARM_UP:]
            for question in warm_up:
                self.answer(question)
            self.times[name] = [_timed_ms(lambda question=question: self.answer(question)) for question in asked]
            middle, late = np.percentile(self.times[name], (50, 99))
            self._bench.progress(f"{name}: {middle:.1f} ms (p50), {late:.1f} ms (p99) of {len(asked)}")
            if name in _COUNTS:
                outcomes[f"{name}_ms"] = float(middle)
            else:
                outcomes |= {f"{name}_p50_ms": float(middle), f"{name}_p99_ms": float(late)}
        self.export_s = _timed_ms(self._export) / 1000
        outcomes[_EXPORT_RATE] = self.events / self.export_s
        return outcomes

    def answer(self, question: Question) -> list[int]:
        """The positions of the events, or their number."""
        request = question.request
        if isinstance(request, query_service_pb2.GetEventRequest):
            return [self._stub.GetEvent(request, timeout=_TIMEOUT_S).event.position]
        if isinstance(request, query_service_pb2.CountEventsRequest):
            answer = self._stub.CountEvents(request, timeout=_TIMEOUT_S)
            assert not answer.summary.partial
            return [answer.count]
        positions: list[int] = []
        for response in self._stub.Query(request, timeout=_TIMEOUT_S):
            positions += [event.position for event in response.events]
        return positions

    def _questions(self) -> dict[str, list[Question]]:
        times = {name: _WARM_UP + self._bench.count(count) for name, count in _TIMES.items()}
        some = self._some_events(max(times[_GET], times[_CORRELATION]))
        return {
            _GET: questions.by_id(some[: times[_GET]]),
            _CORRELATION: questions.by_correlation_id(some[: times[_CORRELATION]]),
            _TYPE_HOUR: questions.by_type_hour_and_payload(times[_TYPE_HOUR]),
            _NEWEST: questions.newest(times[_NEWEST]),
            _COUNT_PROMOTED: questions.count_promoted(times[_COUNT_PROMOTED]),
            _COUNT_COMPOUND: questions.count_compound(times[_COUNT_COMPOUND]),
        }

    def _some_events(self, count: int) -> list[event_pb2.Event]:
        """Events at random positions, sealed and not."""
        random = np.random.default_rng(questions.SEED)
        positions = random.integers(1, self.events + 1, count).tolist()
        requests = [query_service_pb2.GetEventRequest(position=position) for position in positions]
        return [self._stub.GetEvent(request, timeout=_TIMEOUT_S).event for request in requests]

    def _export(self) -> None:
        exported = 0
        request = query_service_pb2.ExportRequest(format="parquet")
        for response in self._stub.Export(request, timeout=_TIMEOUT_S):
            exported = max(exported, response.exported_events)
        assert exported == self.events, f"{exported} events were exported of {self.events}"


def _compare(bench: Bench, directory: Path, log: Path, ours: _Ours) -> Mapping[str, Outcome]:
    """The rows beside ClickHouse, or why there are none."""
    try:
        with ClickHouse(directory) as clickhouse:
            _load(bench, clickhouse, directory, log, ours.events)
            ratios = {name: _ratio(bench, clickhouse, ours, name) for name in ours.questions}
            export = "SELECT * REPLACE(toString(payload) AS payload) FROM events"
            took = clickhouse.run(f"{export} INTO OUTFILE '{directory}/all.parquet' FORMAT Parquet")["ms"]
            ratios[_EXPORT] = took / 1000 / ours.export_s
            return {f"{name}_vs_clickhouse": ratio for name, ratio in ratios.items()}
    except PeerMissingError as missing:
        return dict.fromkeys(_RATIOS, Skipped(str(missing)))
    except Exception as error:  # noqa: BLE001 — our own figures are there all the same
        traceback.print_exc()
        return dict.fromkeys(_RATIOS, Failed(f"{error}".splitlines()[0]))


def _ratio(bench: Bench, clickhouse: ClickHouse, ours: _Ours, name: str) -> float:
    """How many times as long as we ClickHouse takes for a kind of question, by the medians."""
    warm_up, asked = ours.questions[name][:_WARM_UP], ours.questions[name][_WARM_UP:]
    for question in warm_up:
        assert clickhouse.numbers(question.statement) == ours.answer(question), f"answers differ: {question}"
    theirs = statistics.median(clickhouse.times_ms([question.statement for question in asked]))
    bench.progress(f"{name}: ClickHouse {theirs:.1f} ms (p50)")
    return theirs / statistics.median(ours.times[name])


def _load(bench: Bench, clickhouse: ClickHouse, directory: Path, log: Path, events: int) -> None:
    bench.progress("loading the same events into ClickHouse")
    tail = directory / "tail.parquet"
    first_of_tail = bench.count(SEALED_SEGMENTS) * SEGMENT_EVENTS + 1
    reader, first = LocalLogReader(LocalFileSystem(log)), Position(first_of_tail)
    committed = reader.committed()
    with pq.ParquetWriter(tail, EVENT_SCHEMA) as writer:
        for batch in reader.batches_of(reader.span_of(first, committed), first, Position(events + 1), committed):
            writer.write_batch(batch)
    for files in (f"{log}/segments/*.parquet", str(tail)):
        clickhouse.load(files)
    loaded = clickhouse.numbers("SELECT count() FROM events")
    assert loaded == [events], f"ClickHouse has {loaded} of {events} events"


def _timed_ms(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1000


def _rows(name: str, p50_ms: float | None, p99_ms: float | None = None) -> tuple[RowSpec, ...]:
    return (
        RowSpec(f"{name}_p50_ms", "ms", target=p50_ms, at_most=True),
        RowSpec(f"{name}_p99_ms", "ms", target=p99_ms, at_most=True),
    )


QUERY = Case(
    rows=(
        RowSpec("query_service_rss_mb", "MB", target=150, at_most=True),
        # After all questions and the export: caches, DuckDB's memory.
        RowSpec("query_service_busy_rss_mb", "MB"),
        *_rows(_GET, 10, 40),
        *_rows(_CORRELATION, 10, 40),
        *_rows(_TYPE_HOUR, 25, 100),
        *_rows(_NEWEST, None),
        RowSpec(f"{_COUNT_PROMOTED}_ms", "ms", target=250, at_most=True),
        RowSpec(f"{_COUNT_COMPOUND}_ms", "ms"),
        RowSpec(_EXPORT_RATE, "events/s"),
        # What is found by an id may take twice as long as in ClickHouse, nothing else longer than there.
        *(RowSpec(f"{name}_vs_clickhouse", "x", target=0.5) for name in (_GET, _CORRELATION)),
        *(
            RowSpec(name, "x", target=1)
            for name in _RATIOS
            if name.removesuffix("_vs_clickhouse") not in (_GET, _CORRELATION)
        ),
    ),
    measure=_measure,
)
