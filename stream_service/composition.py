"""Constructs the stream service. The only module of it that does."""

from contextlib import AsyncExitStack

from eventlog.v1 import stream_service_pb2

from shared.clock import Clock, SystemClock
from shared.config import EventConfig
from shared.log.file_system import LocalFileSystem
from shared.rpc.channel import connect
from shared.rpc.server import Server, serve_until_signalled
from shared.telemetry.metrics import Metrics
from stream_service.replay_history import QueryHistory
from stream_service.replay_metrics import ReplayMetrics
from stream_service.replay_servicer import ReplayLimits, ReplayServicer
from stream_service.saved_positions import SavedPositions

SERVICE = "stream_service"


async def run(config: EventConfig) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises EventConfigException where it cannot listen."""
    clock, metrics = SystemClock(), Metrics(SERVICE)
    async with AsyncExitStack() as stack:
        replays = await _replays(stack, config, clock, metrics)
        server = Server(
            service=SERVICE,
            listen=config.streaming.listen,
            metrics_listen=config.streaming.metrics_listen,
            metrics=metrics,
            clock=clock,
        )
        server.add_service(stream_service_pb2.DESCRIPTOR.services_by_name["StreamService"], replays)
        await stack.enter_async_context(server)
        server.set_serving("", serving=True)
        await serve_until_signalled(server, grace_s=config.streaming.grace, before_stop=replays.close)


async def _replays(stack: AsyncExitStack, config: EventConfig, clock: Clock, metrics: Metrics) -> ReplayServicer:
    channel = await stack.enter_async_context(connect(config.query.listen))
    replays = ReplayServicer(
        QueryHistory(channel, clock),
        SavedPositions(LocalFileSystem(config.replay.checkpoint_dir)),
        clock,
        ReplayMetrics(metrics),
        ReplayLimits(
            max_speed=config.replay.max_speed,
            max_replays=config.replay.max_replays,
            heartbeat_interval=config.replay.heartbeat_interval,
            session_cache_size=config.replay.session_cache_size,
        ),
    )
    stack.callback(replays.release)
    return replays
