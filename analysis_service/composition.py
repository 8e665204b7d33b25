"""Constructs the analysis service. The only module of it that does."""

from contextlib import AsyncExitStack

from eventlog.v1 import analysis_service_pb2

from analysis_service.chain_calls import ChainCalls
from analysis_service.desk import Desk
from analysis_service.history_calls import HistoryCalls
from analysis_service.log_source import LogSource
from analysis_service.metrics import AnalysisMetrics, DeskMetrics
from analysis_service.servicer import AnalysisServicer
from analysis_service.statistics.cache import AnswerCache
from analysis_service.watch_calls import WatchCalls
from shared.clock import SystemClock
from shared.config import EventConfig
from shared.rpc.channel import connect
from shared.rpc.server import Server, serve_until_signalled
from shared.telemetry.metrics import Metrics

SERVICE = "analysis_service"
# What was learnt to predict from is learnt anew after so long.
_MODEL_TTL_S = 300.0
_SNAPSHOTS_TTL_S = 3600.0


async def run(config: EventConfig) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises EventConfigException where it cannot listen."""
    clock, metrics = SystemClock(), Metrics(SERVICE)
    async with AsyncExitStack() as stack:
        source = LogSource(await stack.enter_async_context(connect(config.analysis.query_address)))
        desk = Desk(clock, DeskMetrics(metrics))
        stack.callback(desk.close)
        now_s, statistics_ttl_s = clock.monotonic_s, config.analysis.statistics_cache_ttl
        servicer = AnalysisServicer(
            desk,
            HistoryCalls(source, config.analysis, AnswerCache(now_s, ttl_s=statistics_ttl_s), clock),
            ChainCalls(
                source, AnswerCache(now_s, ttl_s=_MODEL_TTL_S), AnswerCache(now_s, ttl_s=_SNAPSHOTS_TTL_S), clock
            ),
            WatchCalls(source, config.analysis, clock),
            metrics=AnalysisMetrics(metrics),
        )
        server = Server(
            service=SERVICE,
            listen=config.analysis.listen,
            metrics_listen=config.analysis.metrics_listen,
            metrics=metrics,
            clock=clock,
        )
        server.add_service(analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"], servicer)
        await stack.enter_async_context(server)
        server.set_serving("", serving=True)
        await serve_until_signalled(server, grace_s=config.analysis.grace, before_stop=servicer.close)
