"""EventAnalyzer: asks the analysis service. For asyncio.

    analyzer = EventAnalyzer(store)
    patterns = await analyzer.analyze_patterns(time_window=timedelta(hours=1), min_occurrence=5)
    print(patterns[0].description)

Answers say in `coverage` what they rest on, and whether the time was up before everything was looked at. A long
analysis tells `on_progress` how far it is; cancelling the task that awaits it stops it. Lists are `Findings`. All
methods raise EventFilterException (the filter is wrong), EventValidationException (another field is), and RemoteError
for whatever else a call fails with.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import grpc
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1.analysis_service_pb2_grpc import AnalysisServiceStub

from shared.client import analysis_messages as messages
from shared.client import analysis_requests as requests
from shared.client.analysis_answers import (
    AnalysisDescription,
    Anomaly,
    Cause,
    ChainComparison,
    EventChain,
    EventPattern,
    EventStatistics,
    Findings,
    FoldedState,
    LikelyNext,
    OnAnalysisProgress,
)
from shared.client.analysis_requests import TimeRange
from shared.client.analyzer_options import AnalyzerOptions
from shared.client.attempts import Attempts
from shared.client.event_store import EventStore
from shared.client.options import reachable_address
from shared.client.query_options import Filters
from shared.clock import Clock, SystemClock
from shared.config import EventConfig
from shared.errors import EventAnalysisException
from shared.rpc.channel import connect
from shared.rpc.remote_error import from_rpc_error


class EventAnalyzer:
    """Belongs to the event loop in which it is first used. Close it, or use it as a context."""

    def __init__(
        self, store: EventStore | EventConfig, options: AnalyzerOptions | None = None, *, clock: Clock | None = None
    ) -> None:
        """store: its configuration says where the analysis service is; a configuration does as well."""
        config = store if isinstance(store, EventConfig) else store.config
        self._options = options or AnalyzerOptions()
        self._clock = clock or SystemClock()
        self._address = reachable_address(self._options.address or config.analysis.listen)
        self._channel: grpc.aio.Channel | None = None

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
        answer = await self._run("patterns", request, on_progress)
        return Findings(map(messages.pattern_of, answer.patterns), messages.coverage_of(answer.coverage))

    async def calculate_statistics(
        self,
        event_type: str,
        time_range: TimeRange,
        *,
        percentiles: Sequence[float] = (50, 95, 99),
        time_zone: str = "UTC",
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> EventStatistics:
        """Return statistics of a type."""
        request = requests.statistics_request(
            time_range, filters, event_type=event_type, percentiles=percentiles, time_zone=time_zone
        )
        answer = await self._run("statistics", request, on_progress)
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
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> Findings[EventStatistics]:
        """Return statistics of each group of events with the same values of at most 3 fields, most frequent first."""
        request = requests.statistics_request(
            time_range, filters, group_by=group_by, percentiles=percentiles, time_zone=time_zone
        )
        answer = await self._run("statistics", request, on_progress)
        coverage = messages.coverage_of(answer.coverage)
        return Findings((messages.statistics_of(each, coverage) for each in answer.statistics), coverage)

    async def detect_anomalies(
        self,
        baseline_window: dt.timedelta | None = None,
        sensitivity: float = 0.95,
        *,
        time_range: TimeRange | None = None,
        analyses: Sequence[str] = (),
        value_fields: Sequence[str] = (),
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> Findings[Anomaly]:
        """Return incidents in a range, or in the window that ends now, the strongest first.

        value_fields: payload paths whose numbers are judged, by default payload.duration_ms. analyses: see
        list_analyses; by default all. Raises EventAnalysisException (ANALYSIS_NOT_FOUND).
        """
        request = requests.anomalies_request(
            baseline_window,
            time_range,
            filters,
            sensitivity=sensitivity,
            analyses=analyses,
            value_fields=value_fields,
        )
        answer = await self._run("anomalies", request, on_progress)
        return Findings(map(messages.anomaly_of, answer.anomalies), messages.coverage_of(answer.coverage))

    async def watch_anomalies(
        self,
        baseline_window: dt.timedelta,
        sensitivity: float = 0.95,
        *,
        analyses: Sequence[str] = (),
        lateness: dt.timedelta | None = None,
        filters: Filters = None,
    ) -> AsyncGenerator[Anomaly, None]:
        """Iterate over incidents as they begin, grow and end, until it is closed.

        lateness: how long to wait for events that come out of order, by default a minute.
        """
        request = requests.watch_request(
            baseline_window, filters, sensitivity=sensitivity, analyses=analyses, lateness=lateness
        )
        call = self._stub.WatchAnomalies(request)
        try:
            async for message in call:
                for each in message.anomalies:
                    yield messages.anomaly_of(each)
        except grpc.RpcError as failure:
            raise from_rpc_error(failure) from failure
        finally:
            call.cancel()

    async def trace_event_chain(
        self, correlation_id: str, *, on_progress: OnAnalysisProgress | None = None
    ) -> EventChain:
        """Return the chain of a correlation id, drawn as a tree, with related ones."""
        answer = await self._run("chain", requests.chain_request(correlation_id), on_progress)
        return messages.chain_of(correlation_id, answer)

    async def compare_chains(
        self,
        correlation_id: str,
        time_range: TimeRange | None = None,
        *,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> ChainComparison:
        """Return how a chain differs from the usual ones of its kind, by default of the 24 hours before its end."""
        request = requests.comparison_request(correlation_id, time_range, filters)
        return messages.comparison_of(await self._run("compare", request, on_progress))

    async def rank_causes(
        self,
        time_range: TimeRange | None = None,
        *,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> Findings[Cause]:
        """Return what best explains the errors and the slowness in a range, by default of the last hour."""
        answer = await self._run("causes", requests.causes_request(time_range, filters), on_progress)
        return Findings(map(messages.cause_of, answer.causes), messages.coverage_of(answer.coverage))

    async def predict_next(
        self,
        running: str | Sequence[str],
        time_range: TimeRange | None = None,
        *,
        filters: Filters = None,
        on_progress: OnAnalysisProgress | None = None,
    ) -> LikelyNext:
        """Return what is likely to come next in a running chain: a correlation id, or the types of its events so far.

        time_range: of the history to learn from, by default the last 7 days.
        """
        request = requests.prediction_request(running, time_range, filters)
        return messages.likely_next_of(await self._run("predict", request, on_progress))

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
        service. at: last position or timestamp to fold, inclusive; by default all events are.
        """
        request = requests.state_request(filters, reducer, at)
        return messages.state_of(await self._run("fold", request, on_progress))

    async def list_analyses(self) -> list[AnalysisDescription]:
        """Return the analyses that analyze_patterns and detect_anomalies know, with their parameters."""
        attempts = self._attempts()
        while True:
            try:
                answer = await self._stub.ListAnalyses(pb.ListAnalysesRequest(), timeout=self._options.call_timeout_s)
                return [messages.description_of(each) for each in answer.analyses]
            except grpc.RpcError as failure:
                await asyncio.sleep(attempts.failed(from_rpc_error(failure)))

    async def close(self) -> None:
        """Close the connection; calls under way end."""
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @cached_property
    def _stub(self) -> Any:
        # Made in the event loop, which a channel belongs to.
        self._channel = connect(self._address)
        return AnalysisServiceStub(self._channel)

    def _attempts(self) -> Attempts:
        return Attempts(self._options.back_off, self._clock, give_up_after_s=self._options.give_up_after_s)

    async def _run(self, kind: str, request: Any, on_progress: OnAnalysisProgress | None) -> Any:
        """The answer of an analysis. kind: its name in RunAnalysis. A call that fails for now begins anew."""
        attempts = self._attempts()
        while True:
            try:
                return await self._answer(pb.RunAnalysisRequest(**{kind: request}), on_progress)
            except grpc.RpcError as failure:
                await asyncio.sleep(attempts.failed(from_rpc_error(failure)))

    async def _answer(self, request: pb.RunAnalysisRequest, on_progress: OnAnalysisProgress | None) -> Any:
        call = self._stub.RunAnalysis(request, timeout=self._options.call_timeout_s)
        try:
            async for message in call:
                if answered := message.WhichOneof("answer"):
                    return getattr(message, answered)
                if on_progress is not None:
                    on_progress(messages.progress_of(message.progress))
        finally:
            call.cancel()
        raise EventAnalysisException(
            "the analysis ended without an answer: is there a proxy between that cuts streams?"
        )
