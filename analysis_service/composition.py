"""Constructs the analysis service. The only module of it that does."""

from contextlib import AsyncExitStack

from eventlog.v1 import analysis_service_pb2

from analysis_service.servicer import AnalysisServicer
from shared.clock import SystemClock
from shared.config import EventConfig
from shared.rpc.server import Server, serve_until_signalled
from shared.telemetry.metrics import Metrics

SERVICE = "analysis_service"


async def run(config: EventConfig) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises EventConfigException where it cannot listen."""
    async with AsyncExitStack() as stack:
        server = Server(
            service=SERVICE,
            listen=config.analysis.listen,
            metrics_listen=config.analysis.metrics_listen,
            metrics=Metrics(SERVICE),
            clock=SystemClock(),
        )
        server.add_service(analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"], AnalysisServicer())
        await stack.enter_async_context(server)
        server.set_serving("", serving=True)
        await serve_until_signalled(server, grace_s=config.analysis.grace)
