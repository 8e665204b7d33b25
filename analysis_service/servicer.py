"""AnalysisService over gRPC: admits calls and hands them to the rules. Holds none of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from eventlog.v1 import analysis_service_pb2 as pb

from analysis_service import messages
from analysis_service.chain_calls import ChainCalls
from analysis_service.desk import Desk, Job
from analysis_service.history_calls import HistoryCalls
from analysis_service.metrics import AnalysisMetrics
from analysis_service.registry import analyses
from analysis_service.watch_calls import WatchCalls
from shared.errors import EventException, invalid_field
from shared.rpc.call import Context
from shared.rpc.drain import draining_error

WATCHERS_MAX = 32
PROGRESS_S = 0.2

Q = TypeVar("Q")
R = TypeVar("R")


class AnalysisServicer:
    """Serves eventlog.v1.AnalysisService. Belongs to one event loop."""

    def __init__(
        self, desk: Desk, history: HistoryCalls, chains: ChainCalls, watches: WatchCalls, *, metrics: AnalysisMetrics
    ) -> None:
        self._desk = desk
        self._history = history
        self._chains = chains
        self._watches = watches
        self._metrics = metrics
        self._draining = asyncio.Event()
        self._watchers = 0
        # By the names that RunAnalysis has for them.
        self._analyses: dict[str, Callable[[Any, Job], Awaitable[Any]]] = {
            "statistics": history.statistics,
            "patterns": history.patterns,
            "anomalies": history.anomalies,
            "chain": chains.trace,
            "compare": chains.compare,
            "causes": chains.causes,
            "predict": chains.predict,
            "fold": chains.fold,
        }

    async def close(self) -> None:
        """End the streams."""
        self._draining.set()

    async def calculate_statistics(
        self, request: pb.CalculateStatisticsRequest, context: Context
    ) -> pb.CalculateStatisticsResponse:
        """Counts, rates, durations and distributions."""
        return await self._answer("statistics", self._history.statistics, request, context)

    async def analyze_patterns(
        self, request: pb.AnalyzePatternsRequest, context: Context
    ) -> pb.AnalyzePatternsResponse:
        """Recurring patterns."""
        return await self._answer("patterns", self._history.patterns, request, context)

    async def detect_anomalies(
        self, request: pb.DetectAnomaliesRequest, context: Context
    ) -> pb.DetectAnomaliesResponse:
        """Incidents."""
        return await self._answer("anomalies", self._history.anomalies, request, context)

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
        return await self._answer("chain", self._chains.trace, request, context)

    async def compare_chains(self, request: pb.CompareChainsRequest, context: Context) -> pb.CompareChainsResponse:
        """One chain against the usual."""
        return await self._answer("compare", self._chains.compare, request, context)

    async def rank_causes(self, request: pb.RankCausesRequest, context: Context) -> pb.RankCausesResponse:
        """Causes of errors and slowness."""
        return await self._answer("causes", self._chains.causes, request, context)

    async def predict_next(self, request: pb.PredictNextRequest, context: Context) -> pb.PredictNextResponse:
        """What comes next."""
        return await self._answer("predict", self._chains.predict, request, context)

    async def fold_state(self, request: pb.FoldStateRequest, context: Context) -> pb.FoldStateResponse:
        """State of events."""
        return await self._answer("fold", self._chains.fold, request, context)

    async def run_analysis(
        self, request: pb.RunAnalysisRequest, context: Context
    ) -> AsyncIterator[pb.RunAnalysisResponse]:
        """Any of these, with its progress."""
        kind = request.WhichOneof("analysis")
        if kind is None:
            raise invalid_field("analysis", f"is missing: set one of {', '.join(self._analyses)}")
        async with self._desk.job(context.time_remaining()) as job:
            answering = asyncio.ensure_future(self._analyses[kind](getattr(request, kind), job))
            try:
                while not answering.done():
                    yield pb.RunAnalysisResponse(
                        progress=messages.progress(job.progress.reached, job.coverage, elapsed_s=job.elapsed_s)
                    )
                    await asyncio.wait({answering}, timeout=PROGRESS_S)
                answer = await answering
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
        self._answered(kind, answer)
        yield pb.RunAnalysisResponse(**{kind: answer})

    async def list_analyses(self, _request: pb.ListAnalysesRequest, _context: Context) -> pb.ListAnalysesResponse:
        """The analyses that there are."""
        return pb.ListAnalysesResponse(analyses=[messages.description(each) for each in analyses().values()])

    async def _answer(self, kind: str, analyse: Callable[[Q, Job], Awaitable[R]], request: Q, context: Context) -> R:
        async with self._desk.job(context.time_remaining()) as job:
            answer = await analyse(request, job)
        self._answered(kind, answer)
        return answer

    def _answered(self, kind: str, answer: Any) -> None:
        self._metrics.answered(kind, answer.coverage, cached=kind == "statistics" and answer.cached)
