"""EventAnalyzer: asks the analysis service. For asyncio.

    analyzer = EventAnalyzer(store)
    patterns = await analyzer.analyze_patterns(time_window=timedelta(hours=1), min_occurrence=5)
    print(patterns[0].description)

Answers say in `coverage` what they rest on, and whether the time was up before everything was looked at. A long
analysis tells `on_progress` how far it is; cancelling the task that awaits it stops it. Lists are `Findings`. All
methods raise EventFilterException (the filter is wrong), EventValidationException (another field is), and RemoteError
for whatever else a call fails with.
"""

import datetime as dt
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from shared.client import analysis_messages as messages
from shared.client import analysis_requests as requests
from shared.client.analysis_answers import (
    AnalysisDescription,
    Anomaly,
    Cause,
    EventPattern,
    EventStatistics,
    Findings,
    FoldedState,
    GroupedStatistics,
    LikelyNext,
    OnAnalysisProgress,
    StatisticsChange,
)
from shared.client.analysis_calls import AnalysisCalls
from shared.client.analysis_requests import TimeRange
from shared.client.analyzer_options import (
    DEFAULT_FIELDS,
    DEFAULT_MEASURES,
    AnalyzerOptions,
    ChainDrawing,
    ChainFields,
    StatisticsMeasures,
)
from shared.client.chain_answers import ChainComparison, EventChain
from shared.client.event_store import EventStore
from shared.client.query_options import Filters
from shared.clock import Clock, SystemClock
from shared.config import EventConfig


class EventAnalyzer:
    """Belongs to the event loop in which it is first used. Close it, or use it as a context."""

    def __init__(
        self, store: EventStore | EventConfig, options: AnalyzerOptions | None = None, *, clock: Clock | None = None
    ) -> None:
        """store: its configuration says where the analysis service is; a configuration does as well."""
        config = store if isinstance(store, EventConfig) else store.config
        self._calls = AnalysisCalls(options or AnalyzerOptions(), clock or SystemClock(), config.analysis.listen)

    async def analyze_patterns(
        self,
        time_window: dt.timedelta | None = None,
        min_occurrence: int = 3,
        *,
        time_range: TimeRange | None = None,
        group_by: str = "",
        analyses: Sequence[str] = (),
        parameters: Mapping[str, float] | None = None,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> Findings[EventPattern]:
        """Return patterns that recur in a range, or in the window that ends now.

        group_by: field that tells cases apart, by default the correlation id. analyses, parameters: see list_analyses;
        by default all. Raises EventAnalysisException (ANALYSIS_NOT_FOUND).
        """
        request = requests.patterns_request(
            time_window,
            time_range,
            filters,
            min_occurrence=min_occurrence,
            group_by=group_by,
            analyses=analyses,
            parameters=parameters,
        )
        answer = await self._calls.run("patterns", request, on_progress)
        return Findings(map(messages.pattern_of, answer.patterns), messages.coverage_of(answer.coverage))

    async def calculate_statistics(
        self,
        event_type: str,
        time_range: TimeRange,
        *,
        percentiles: Sequence[float] = (50, 95, 99),
        time_zone: str = "UTC",
        measures: StatisticsMeasures = DEFAULT_MEASURES,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> EventStatistics:
        """Return statistics of a type."""
        request = requests.statistics_request(
            time_range, filters, event_type=event_type, percentiles=percentiles, time_zone=time_zone, measures=measures
        )
        answer = await self._calls.run("statistics", request, on_progress)
        coverage = messages.coverage_of(answer.coverage)
        found = answer.statistics
        return messages.statistics_of(found[0], coverage) if found else messages.no_statistics(event_type, coverage)

    async def group_statistics(
        self,
        group_by: Sequence[str] = ("type",),
        time_range: TimeRange | None = None,
        *,
        percentiles: Sequence[float] = (50, 95, 99),
        time_zone: str = "UTC",
        measures: StatisticsMeasures = DEFAULT_MEASURES,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> GroupedStatistics:
        """Return statistics of each group of events with the same values of at most 3 fields, most frequent first.

        The 1,000 most frequent groups: `events_elsewhere` says how many events are of others.
        """
        request = requests.statistics_request(
            time_range, filters, group_by=group_by, percentiles=percentiles, time_zone=time_zone, measures=measures
        )
        return messages.groups_of(await self._calls.run("statistics", request, on_progress))

    async def compare_statistics(
        self,
        time_range: TimeRange,
        compare_with: TimeRange,
        group_by: Sequence[str] = ("type",),
        *,
        percentiles: Sequence[float] = (50, 95, 99),
        measures: StatisticsMeasures = DEFAULT_MEASURES,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> Findings[StatisticsChange]:
        """Return how groups in a range differ from those in another, such as the hour of a week ago.

        The most surprising change comes first.
        """
        request = requests.statistics_request(
            time_range,
            filters,
            group_by=group_by,
            percentiles=percentiles,
            measures=measures,
            compare_with=compare_with,
        )
        answer = await self._calls.run("statistics", request, on_progress)
        return Findings(map(messages.change_of, answer.changes), messages.coverage_of(answer.coverage))

    async def detect_anomalies(
        self,
        baseline_window: dt.timedelta | None = None,
        sensitivity: float | None = 0.95,
        *,
        time_range: TimeRange | None = None,
        analyses: Sequence[str] = (),
        value_fields: Sequence[str] = (),
        group_by: str = "",
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> Findings[Anomaly]:
        """Return incidents in a range, or in the window that ends now, the strongest first.

        sensitivity: 0 (few incidents) to 1 (many); None for the configured one. value_fields: at most 16 payload paths
        whose numbers are judged, by default payload.duration_ms. group_by: field that tells cases apart, by default the
        correlation id. analyses: see list_analyses; by default all. Raises EventAnalysisException (ANALYSIS_NOT_FOUND).
        """
        request = requests.anomalies_request(
            baseline_window,
            time_range,
            filters,
            sensitivity=sensitivity,
            analyses=analyses,
            value_fields=value_fields,
            group_by=group_by,
        )
        answer = await self._calls.run("anomalies", request, on_progress)
        return Findings(map(messages.anomaly_of, answer.anomalies), messages.coverage_of(answer.coverage))

    async def watch_anomalies(
        self,
        baseline_window: dt.timedelta,
        sensitivity: float | None = 0.95,
        *,
        analyses: Sequence[str] = (),
        value_fields: Sequence[str] = (),
        lateness: dt.timedelta | None = None,
        filters: Filters = None,
    ) -> AsyncGenerator[Anomaly, None]:
        """Iterate over incidents as they begin, grow and end, until it is closed.

        lateness: how long to wait for events that come out of order, by default a minute, at most an hour. sensitivity,
        value_fields: as detect_anomalies takes them.
        """
        request = requests.watch_request(
            baseline_window,
            filters,
            sensitivity=sensitivity,
            analyses=analyses,
            value_fields=value_fields,
            lateness=lateness,
        )
        async with aclosing(self._calls.watch(request)) as answers:
            async for message in answers:
                for each in message.anomalies:
                    yield messages.anomaly_of(each)

    async def trace_event_chain(
        self,
        correlation_id: str,
        *,
        fields: ChainFields = DEFAULT_FIELDS,
        drawing: ChainDrawing = ChainDrawing.TEXT,
        include_related: bool = True,
        on_progress: OnAnalysisProgress | None = None,
    ) -> EventChain:
        """Return the chain of a correlation id, with a drawing, and related ones if they are wanted."""
        request = requests.chain_request(correlation_id, fields, drawing, include_related=include_related)
        answer = await self._calls.run("chain", request, on_progress)
        return messages.chain_of(correlation_id, answer)

    async def compare_chains(
        self,
        correlation_id: str,
        time_range: TimeRange | None = None,
        *,
        fields: ChainFields = DEFAULT_FIELDS,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> ChainComparison:
        """Return how a chain differs from the usual ones of its kind, by default of the 24 hours before its end."""
        request = requests.comparison_request(correlation_id, time_range, filters, fields)
        return messages.comparison_of(await self._calls.run("compare", request, on_progress))

    async def rank_causes(
        self,
        time_range: TimeRange | None = None,
        *,
        fields: ChainFields = DEFAULT_FIELDS,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> Findings[Cause]:
        """Return what best explains the errors and the slowness in a range, by default of the last hour."""
        request = requests.causes_request(time_range, filters, fields)
        answer = await self._calls.run("causes", request, on_progress)
        return Findings(map(messages.cause_of, answer.causes), messages.coverage_of(answer.coverage))

    async def predict_next(
        self,
        running: str | Sequence[str],
        time_range: TimeRange | None = None,
        *,
        history: dt.timedelta | None = None,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> LikelyNext:
        """Return what is likely to come next in a running chain: a correlation id, or the types of its events so far.

        history: how much to learn from, up to now, by default 7 days. time_range: learn from this range instead.
        """
        request = requests.prediction_request(running, time_range, history, filters)
        return messages.likely_next_of(await self._calls.run("predict", request, on_progress))

    async def fold_state(
        self,
        filters: Filters,
        *,
        reducer: str = "merge_patch",
        at: int | dt.datetime | None = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> FoldedState:
        """Return the state that events make, one after the other.

        reducer: "merge_patch" (JSON Merge Patch of payloads), "latest", "counter", or one that was added to the
        service. at: last position, from 1, or timestamp to fold, inclusive; by default all events are.
        """
        request = requests.state_request(filters, reducer, at)
        return messages.state_of(await self._calls.run("fold", request, on_progress))

    async def list_analyses(self) -> list[AnalysisDescription]:
        """Return the analyses that analyze_patterns and detect_anomalies know, with their parameters."""
        return list(map(messages.description_of, await self._calls.list_analyses()))

    async def close(self) -> None:
        """Close the connection; calls under way end."""
        await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
