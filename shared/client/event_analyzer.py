"""EventAnalyzer: asks the analysis service. For asyncio.

analyzer = EventAnalyzer(store)
patterns = await analyzer.analyze_patterns(time_window=timedelta(hours=1), min_occurrence=5)
print(patterns[0].description)
"""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2
from eventlog.v1.analysis_service_pb2_grpc import AnalysisServiceStub

from shared.client import analysis_messages as messages
from shared.client.analysis_answers import Anomaly, EventChain, EventPattern, EventStatistics, LikelyNext
from shared.client.attempts import Attempts
from shared.client.back_off import BackOff
from shared.client.event_messages import filters_message, timestamp_message
from shared.client.event_store import EventStore
from shared.client.options import reachable_address
from shared.client.query_options import Filters
from shared.clock import Clock, SystemClock
from shared.config import EventConfig
from shared.events.model import EventFilters
from shared.rpc.channel import connect
from shared.rpc.remote_error import from_rpc_error

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzerOptions:
    """Everything has a default. Times are seconds.

    address: of the analysis service, by default analysis.listen of the configuration. call_timeout_s: longest that an
    analysis takes; what is not done by then is left out. give_up_after_s: how long a call that fails for now is tried.
    """

    address: str | None = None
    call_timeout_s: float = 60.0
    give_up_after_s: float = 60.0
    back_off: BackOff = field(default_factory=BackOff)


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
        self, time_window: dt.timedelta, min_occurrence: int = 3, *, filters: Filters = None
    ) -> list[EventPattern]:
        """Return patterns that recur in the window that ends now. Raises RemoteError, EventFilterException."""
        request = pb.AnalyzePatternsRequest(
            time_window=messages.duration_message(time_window), min_occurrence=min_occurrence, filters=_filters(filters)
        )
        answer: pb.AnalyzePatternsResponse = await self._call(self._stub.AnalyzePatterns, request)
        return [messages.pattern_of(each) for each in answer.patterns]

    async def calculate_statistics(
        self,
        event_type: str,
        time_range: tuple[dt.datetime, dt.datetime],
        *,
        percentiles: tuple[float, ...] = (50, 95, 99),
        time_zone: str = "UTC",
        filters: Filters = None,
    ) -> EventStatistics:
        """Return statistics of a type in [start, end). Raises RemoteError, EventFilterException."""
        start, end = time_range
        request = pb.CalculateStatisticsRequest(
            event_type=event_type,
            time_range=event_pb2.TimeRange(start=timestamp_message(start), end=timestamp_message(end)),
            percentiles=percentiles,
            time_zone=time_zone,
            filters=_filters(filters),
        )
        answer: pb.CalculateStatisticsResponse = await self._call(self._stub.CalculateStatistics, request)
        found = answer.statistics
        return messages.statistics_of(found[0]) if found else messages.no_statistics(event_type)

    async def detect_anomalies(
        self, baseline_window: dt.timedelta, sensitivity: float = 0.95, *, filters: Filters = None
    ) -> list[Anomaly]:
        """Return incidents in the window that ends now, the strongest first. Raises as analyze_patterns."""
        request = pb.DetectAnomaliesRequest(
            baseline_window=messages.duration_message(baseline_window),
            sensitivity=sensitivity,
            filters=_filters(filters),
        )
        answer: pb.DetectAnomaliesResponse = await self._call(self._stub.DetectAnomalies, request)
        return [messages.anomaly_of(each) for each in answer.anomalies]

    async def watch_anomalies(
        self, baseline_window: dt.timedelta, sensitivity: float = 0.95, *, filters: Filters = None
    ) -> AsyncGenerator[Anomaly, None]:
        """Iterate over incidents as they begin, grow and end, until it is closed. Raises RemoteError."""
        request = pb.WatchAnomaliesRequest(
            baseline_window=messages.duration_message(baseline_window),
            sensitivity=sensitivity,
            filters=_filters(filters),
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

    async def trace_event_chain(self, correlation_id: str) -> EventChain:
        """Return the chain of a correlation id, drawn as a tree, with related ones. Raises RemoteError."""
        request = pb.TraceEventChainRequest(
            correlation_id=correlation_id, drawing=pb.CHAIN_DRAWING_TEXT, include_related=True
        )
        return messages.chain_of(correlation_id, await self._call(self._stub.TraceEventChain, request))

    async def predict_next(self, correlation_id: str) -> LikelyNext:
        """Return what is likely to come next in a running chain. Raises RemoteError."""
        request = pb.PredictNextRequest(correlation_id=correlation_id)
        return messages.likely_next_of(await self._call(self._stub.PredictNext, request))

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

    async def _call(self, method: Callable[..., Awaitable[R]], request: Any) -> R:
        attempts = Attempts(self._options.back_off, self._clock, give_up_after_s=self._options.give_up_after_s)
        while True:
            try:
                return await method(request, timeout=self._options.call_timeout_s)
            except grpc.RpcError as failure:
                await asyncio.sleep(attempts.failed(from_rpc_error(failure)))


def _filters(filters: Filters) -> event_pb2.EventFilters:
    if isinstance(filters, EventFilters):
        return filters_message(filters)
    return event_pb2.EventFilters(expression=filters or "")
