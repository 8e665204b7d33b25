"""Constructs the stream service. The only module of it that does."""

from contextlib import AsyncExitStack

from eventlog.v1 import stream_service_pb2

from shared.clock import SystemClock
from shared.config import EventConfig
from shared.rpc.server import Server, serve_until_signalled
from shared.telemetry.metrics import Metrics
from stream_service.servicer import StreamServicer

SERVICE = "stream_service"


async def run(config: EventConfig) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises EventConfigException where it cannot listen."""
    async with AsyncExitStack() as stack:
        server = Server(
            service=SERVICE,
            listen=config.streaming.listen,
            metrics_listen=config.streaming.metrics_listen,
            metrics=Metrics(SERVICE),
            clock=SystemClock(),
        )
        server.add_service(stream_service_pb2.DESCRIPTOR.services_by_name["StreamService"], StreamServicer())
        await stack.enter_async_context(server)
        server.set_serving("", serving=True)
        await serve_until_signalled(server, grace_s=config.streaming.grace)
