"""EventAnalyzer against real services; the specification's "Event Analysis" example runs as it is written."""

import asyncio
import gzip
from collections import Counter
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from shared.client import EventAnalyzer, EventStore, StatisticsMeasures
from shared.clock import SystemClock
from shared.config import AnalysisConfig, EventConfig, IngestConfig, QueryConfig
from shared.errors import EventAnalysisException, EventFilterException
from shared.events import Event
from shared.events.timestamps import to_datetime
from tests.support.analysis_cluster import log_documents
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.cluster


def _now() -> datetime:
    return to_datetime(SystemClock().now_ns())


@pytest.fixture
async def store(make_cluster, tmp_path):
    """A store with requests of the last hour in it, beside a running analysis service."""
    with make_cluster() as cluster:
        settings = {"analysis": {"query_address": cluster.query.address}}
        with ServiceProcess("analysis_service", tmp_path / "analysis", settings=settings) as analysis:
            config = EventConfig(
                ingest=IngestConfig(listen=cluster.ingest.address),
                query=QueryConfig(listen=cluster.query.address),
                analysis=AnalysisConfig(listen=analysis.address),
            )
            async with EventStore(config) as store:
                await _log_requests(store)
                yield store


@pytest.fixture
def receipts(data_dir):
    """Steps of permit applications, 1,434 cases from October 2010 to January 2012."""
    with gzip.open(data_dir / "process_mining" / "receipt.jsonl.gz") as lines:
        return [orjson.loads(line) for line in lines]


@pytest.fixture
async def receipts_analyzer(make_cluster, tmp_path, receipts):
    """An analyzer of a cluster that has the receipts."""
    with make_cluster() as cluster:
        log_documents(cluster, receipts)
        settings = {"analysis": {"query_address": cluster.query.address}}
        with ServiceProcess("analysis_service", tmp_path / "analysis", settings=settings) as analysis:
            config = EventConfig(analysis=AnalysisConfig(listen=analysis.address))
            async with EventAnalyzer(config) as analyzer:
                yield analyzer


async def _log_requests(store: EventStore) -> None:
    now = _now()
    for number in range(8):
        for step, kind in enumerate(("api.request", "api.answer")):
            await store.append(
                Event(
                    type=kind,
                    source="api",
                    correlation_id=f"call {number}",
                    timestamp=now - timedelta(minutes=30 - number, seconds=-step),
                    payload={"duration_ms": 10 * (number + 1), "status": "error" if number == 7 else "ok"},
                )
            )


async def test_event_analysis(store):
    """The example of the specification, imports aside."""
    start_time, end_time = _now() - timedelta(hours=1), _now()

    # Analyze patterns
    analyzer = EventAnalyzer(store)
    patterns = await analyzer.analyze_patterns(
        time_window=timedelta(hours=1),
        min_occurrence=5
    )  # fmt: skip

    # Get statistics
    stats = await analyzer.calculate_statistics(
        event_type="api.request",
        time_range=(start_time, end_time)
    )  # fmt: skip

    await analyzer.close()
    by_kind = {pattern.pattern_type: pattern for pattern in patterns}
    assert by_kind["sequence"].event_types == ("api.request", "api.answer")
    assert [event.type for event in by_kind["sequence"].events] == ["api.request", "api.answer"]
    assert by_kind["sequence"].occurrences == 8
    assert (stats.event_type, stats.count, stats.avg_duration) == ("api.request", 8, 45.0)
    assert stats.percentiles == {50: 40.0, 95: 80.0, 99: 80.0}
    assert sum(stats.time_distribution.values()) == 8
    assert stats.error_rate == 1 / 8


async def test_chain_prediction_anomalies_and_refusals(store):
    """The other questions, and an error by its class."""
    async with EventAnalyzer(store) as analyzer:
        chain = await analyzer.trace_event_chain("call 7")
        assert [event.type for event in chain.events] == [span.event_type for span in chain.spans]
        assert len(chain.failure_origins) >= 1
        assert "FAILED" in chain.drawing
        following = await analyzer.predict_next("call 3")
        assert following.types[0] == (None, 1.0)
        assert await analyzer.detect_anomalies(timedelta(hours=1)) == []
        nothing = await analyzer.calculate_statistics("none", (datetime(2020, 1, 1, tzinfo=UTC), _now()))
        assert (nothing.count, nothing.percentiles) == (0, {})
        with pytest.raises(EventFilterException):
            await analyzer.analyze_patterns(timedelta(hours=1), filters="type = ")


async def test_comparison_causes_state_and_list(store):
    """A chain against the others, what explains the failure, what a chain's events made, and what can be asked."""
    async with EventAnalyzer(store) as analyzer:
        compared = await analyzer.compare_chains("call 7")
        assert (compared.kind, compared.references) == ("api.request", 7)
        causes = await analyzer.rank_causes()
        assert causes[0].trouble == "errors"
        assert causes[0].examples == ("call 7",)
        assert causes.coverage.events == 16
        state = await analyzer.fold_state("correlation_id = 'call 3'")
        assert (state.state, state.events) == ({"duration_ms": 40, "status": "ok"}, 2)
        counted = await analyzer.fold_state("source = 'api'", reducer="counter", at=state.position)
        assert sum(counted.state.values()) == state.position
        groups = await analyzer.group_statistics(["payload.status"])
        assert {each.group["payload.status"]: each.count for each in groups} == {"ok": 14, "error": 2}
        listed = {each.name: each for each in await analyzer.list_analyses()}
        assert listed["sequence"].family == "pattern"
        assert listed["sequence"].parameters[0].whole
        with pytest.raises(EventAnalysisException):
            await analyzer.analyze_patterns(timedelta(hours=1), analyses=["sequense"])


async def test_watch_begins_with_the_incidents_of_now_and_is_closed(store):
    """A watch of quiet events tells nothing; closing it ends the call."""
    async with EventAnalyzer(store) as analyzer:
        watch = analyzer.watch_anomalies(timedelta(hours=1), analyses=["rate"], lateness=timedelta(seconds=1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.5)
        await watch.aclose()


async def test_values_and_comparisons_of_ranges(store):
    """Distinct values, and this minute against another one."""
    async with EventAnalyzer(store) as analyzer:
        measures = StatisticsMeasures(value_fields=("payload.status",), top_values=1)
        (found,) = await analyzer.group_statistics(["source"], measures=measures)
        assert found.values["payload.status"].distinct == 2
        assert found.values["payload.status"].top == {"ok": 14}
        assert (found.failures, sum(found.hours_of_week)) == (2, 16)
        now = _now()
        ranges = (now - timedelta(hours=1), now), (now - timedelta(hours=2), now - timedelta(hours=1))
        changes = await analyzer.compare_statistics(*ranges)
        assert {change.group["type"]: (change.count, change.other_count, change.rate_ratio) for change in changes} == {
            "api.request": (8, 0, None),
            "api.answer": (8, 0, None),
        }


async def test_receipts_have_values_changes_and_groups_beyond_the_list(receipts_analyzer, receipts):
    """What the client tells of real cases is what counting them by hand gives."""
    cases = Counter(each["correlation_id"] for each in receipts)
    groups = await receipts_analyzer.group_statistics(["correlation_id"])
    assert [each.count for each in groups] == [count for _, count in cases.most_common(1_000)]
    assert groups.events_elsewhere == len(receipts) - sum(each.count for each in groups) > 0

    measures = StatisticsMeasures(value_fields=("type", "correlation_id"), top_values=3)
    found = {
        each.group["source"]: each for each in await receipts_analyzer.group_statistics(["source"], measures=measures)
    }
    for source, each in found.items():
        own = [receipt for receipt in receipts if receipt["source"] == source]
        types = Counter(receipt["type"] for receipt in own)
        assert each.values["type"].distinct == len(types)
        assert list(each.values["type"].top.values()) == [count for _, count in types.most_common(3)]
        assert each.values["correlation_id"].distinct == len({receipt["correlation_id"] for receipt in own})

    years = [(datetime(year, 1, 1, tzinfo=UTC), datetime(year, 7, 1, tzinfo=UTC)) for year in (2011, 2012)]
    changes = await receipts_analyzer.compare_statistics(*years, ["source"])
    counts = [
        Counter(
            each["source"]
            for each in receipts
            if each["timestamp"].startswith(year) and each["timestamp"] < f"{year}-07"
        )
        for year in ("2011", "2012")
    ]
    assert {each.group["source"]: (each.count, each.other_count) for each in changes} == {
        source: (counts[0][source], counts[1][source]) for source in {*counts[0], *counts[1]}
    }
    assert [abs(each.surprise) for each in changes] == sorted((abs(each.surprise) for each in changes), reverse=True)
