"""AnalysisService over gRPC: admits calls and hands them to the rules. Holds none of its own."""

import asyncio
from collections.abc import AsyncIterator

from eventlog.v1 import analysis_service_pb2 as pb

from analysis_service import messages
from analysis_service.chain_calls import ChainCalls
from analysis_service.desk import Desk
from analysis_service.history_calls import HistoryCalls
from analysis_service.metrics import AnalysisMetrics
from analysis_service.registry import analyses
from analysis_service.watch_calls import WatchCalls
from shared.clock import Clock
from shared.errors import EventException
from shared.rpc.call import Context
from shared.rpc.drain import draining_error

WATCHERS_MAX = 32


class AnalysisServicer:
    """Serves eventlog.v1.AnalysisService. Belongs to one event loop."""

    def __init__(
        self,
        desk: Desk,
        history: HistoryCalls,
        chains: ChainCalls,
        watches: WatchCalls,
        *,
        clock: Clock,
        metrics: AnalysisMetrics,
    ) -> None:
        self._desk = desk
        self._history = history
        self._chains = chains
        self._watches = watches
        self._clock = clock
        self._metrics = metrics
        self._draining = asyncio.Event()
        self._watchers = 0

    async def close(self) -> None:
        """End the streams."""
        self._draining.set()

    async def calculate_statistics(
        self, request: pb.CalculateStatisticsRequest, context: Context
    ) -> pb.CalculateStatisticsResponse:
        """Counts, rates, durations and distributions."""
        async with self._desk.job(context.time_remaining()) as job:
            answer = await self._history.statistics(request, job)
        self._metrics.answered("statistics", answer.coverage, cached=answer.cached)
        return answer

    async def analyze_patterns(
        self, request: pb.AnalyzePatternsRequest, context: Context
    ) -> pb.AnalyzePatternsResponse:
        """Recurring patterns."""
        async with self._desk.job(context.time_remaining()) as job:
            answer = await self._history.patterns(request, job, self._clock.now_ns())
        self._metrics.answered("patterns", answer.coverage)
        return answer

    async def detect_anomalies(
        self, request: pb.DetectAnomaliesRequest, context: Context
    ) -> pb.DetectAnomaliesResponse:
        """Incidents."""
        async with self._desk.job(context.time_remaining()) as job:
            answer = await self._history.anomalies(request, job, self._clock.now_ns())
        self._metrics.answered("anomalies", answer.coverage)
        return answer

    async def watch_anomalies(
        self, request: pb.WatchAnomaliesRequest, _context: Context
    ) -> AsyncIterator[pb.WatchAnomaliesResponse]:
        """Incidents as they come."""
        if self._watchers >= WATCHERS_MAX:
            raise EventException(f"{self._watchers} calls watch already: retry later", reason="TOO_MANY_REQUESTS")
        self._watchers += 1
        try:
            async with self._desk.watch() as job:
                async for message in self._watches.watch(request, job, self._draining):
                    yield message
            raise draining_error("the analysis service")
        finally:
            self._watchers -= 1

    async def trace_event_chain(
        self, request: pb.TraceEventChainRequest, context: Context
    ) -> pb.TraceEventChainResponse:
        """One chain."""
        async with self._desk.job(context.time_remaining()) as job:
            answer = await self._chains.trace(request, job)
        self._metrics.answered("chain", answer.coverage)
        return answer

    async def compare_chains(self, request: pb.CompareChainsRequest, context: Context) -> pb.CompareChainsResponse:
        """One chain against the usual."""
        async with self._desk.job(context.time_remaining()) as job:
            answer = await self._chains.compare(request, job)
        self._metrics.answered("compare", answer.coverage)
        return answer

    async def rank_causes(self, request: pb.RankCausesRequest, context: Context) -> pb.RankCausesResponse:
        """Causes of errors and slowness."""
        async with self._desk.job(context.time_remaining()) as job:
            answer = await self._chains.causes(request, job, self._clock.now_ns())
        self._metrics.answered("causes", answer.coverage)
        return answer

    async def predict_next(self, request: pb.PredictNextRequest, context: Context) -> pb.PredictNextResponse:
        """What comes next."""
        async with self._desk.job(context.time_remaining()) as job:
            answer = await self._chains.predict(request, job, self._clock.now_ns())
        self._metrics.answered("predict", answer.coverage)
        return answer

    async def fold_state(self, request: pb.FoldStateRequest, context: Context) -> pb.FoldStateResponse:
        """State of events."""
        async with self._desk.job(context.time_remaining()) as job:
            answer = await self._chains.fold(request, job)
        self._metrics.answered("fold", answer.coverage)
        return answer

    async def list_analyses(self, _request: pb.ListAnalysesRequest, _context: Context) -> pb.ListAnalysesResponse:
        """The analyses that there are."""
        return pb.ListAnalysesResponse(analyses=[messages.description(each) for each in analyses().values()])
