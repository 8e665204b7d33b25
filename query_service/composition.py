"""Constructs the query service from its configuration, and runs it."""

from contextlib import AsyncExitStack

from eventlog.v1 import query_service_pb2

from query_service.servicer import QueryServicer
from shared.clock import SystemClock
from shared.columns.wire import WireCodec
from shared.config import EventConfig
from shared.log.file_system import LocalFileSystem
from shared.log.log_reader import LocalLogReader
from shared.rpc.server import Server, serve_until_signalled
from shared.telemetry.metrics import Metrics

SERVICE = "query_service"


async def run(config: EventConfig) -> None:
    """Serve queries until SIGTERM, then drain. The log may appear later: until then reads say LOG_UNAVAILABLE."""
    clock = SystemClock()
    reader = LocalLogReader(LocalFileSystem(config.storage.base_path))
    async with AsyncExitStack() as stack:
        servicer = QueryServicer(reader, WireCodec(), clock)
        stack.callback(servicer.close)
        server = Server(
            service=SERVICE,
            listen=config.query.listen,
            metrics_listen=config.query.metrics_listen,
            metrics=Metrics(SERVICE),
            clock=clock,
        )
        server.add_service(query_service_pb2.DESCRIPTOR.services_by_name["QueryService"], servicer)
        await stack.enter_async_context(server)
        server.set_serving("", serving=True)
        await serve_until_signalled(server, grace_s=config.query.grace)
