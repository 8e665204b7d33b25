"""Constructs the stream service. The only module of it that does."""

import asyncio
from contextlib import AsyncExitStack

from eventlog.v1 import stream_service_pb2

from shared.clock import Clock, SystemClock
from shared.columns.wire import WireCodec
from shared.config import EventConfig
from shared.log.file_system import LocalFileSystem
from shared.rpc.channel import connect
from shared.rpc.server import Server, ServerLimits, serve_until_signalled
from shared.telemetry.metrics import Metrics
from stream_service import subscription_wire
from stream_service.checkpoints import CheckpointStore
from stream_service.durable_subscriptions import DurableSubscriptions
from stream_service.feed import Feed
from stream_service.group import GroupLimits
from stream_service.hub import Hub
from stream_service.log_source import LogCodec, QueryLog
from stream_service.matcher import Matchers
from stream_service.message_builder import MessageBuilder
from stream_service.observer import Observer
from stream_service.publish_servicer import PublishServicer
from stream_service.query_history import QueryHistory
from stream_service.replay_metrics import ReplayMetrics
from stream_service.replay_servicer import ReplayLimits, ReplayServicer
from stream_service.ring import Ring
from stream_service.saved_positions import SavedPositions
from stream_service.servicer import StreamServicer
from stream_service.starts import Starts
from stream_service.stream_metrics import StreamMetrics
from stream_service.subscription_admin_servicer import SubscriptionAdminServicer
from stream_service.subscription_servicer import SubscriptionLimits, SubscriptionServicer

SERVICE = "stream_service"
_CALLS_BESIDE_SUBSCRIBERS = 1024
# A peer on a busy machine needs some time to answer.
_ANSWER_S_MIN = 1.0


async def run(config: EventConfig) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises EventConfigException where it cannot listen."""
    clock, metrics, codec = SystemClock(), Metrics(SERVICE), WireCodec()
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(connect(config.streaming.query_address))
        history = QueryHistory(channel, clock)
        replays = _replays(stack, config, history, clock, metrics)
        ring = Ring(bytes_max=config.streaming.buffer_bytes_max)
        builder = MessageBuilder(ring, subscription_wire.joined)
        hub = Hub(ring, builder, subscribers_max=config.streaming.max_subscribers)
        stream_metrics = StreamMetrics(metrics, clock)
        feed = Feed(hub, QueryLog(history, codec), clock, LogCodec(codec), stream_metrics)
        starts = Starts(lambda: feed.end, history)
        durables = await _durables(config, hub, starts, clock, stream_metrics)
        stack.push_async_callback(durables.close)
        subscriptions = SubscriptionServicer(
            hub=hub,
            feed=feed,
            history=history,
            durables=durables,
            matchers=Matchers(clock),
            clock=clock,
            metrics=stream_metrics,
            limits=_limits(config),
        )
        administration = SubscriptionAdminServicer(hub=hub, feed=feed, history=history, durables=durables)
        server = _server(config, metrics, clock)
        server.add_service(
            stream_service_pb2.DESCRIPTOR.services_by_name["StreamService"],
            StreamServicer(subscriptions, administration, replays, PublishServicer(feed, server.drain)),
            write_timeout_s=config.streaming.slow_consumer_timeout,
        )

        observer = Observer(hub, durables, stream_metrics)

        async def end_streams() -> None:
            await asyncio.gather(hub.close(), replays.close())

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each) for each in (feed.run(), durables.run(), observer.run())]
            await stack.enter_async_context(server)
            server.set_serving("", serving=True)
            await serve_until_signalled(server, grace_s=config.streaming.grace, before_stop=end_streams)
            for task in running:
                task.cancel()


def _server(config: EventConfig, metrics: Metrics, clock: Clock) -> Server:
    heartbeat_s = config.streaming.heartbeat_interval
    return Server(
        service=SERVICE,
        listen=config.streaming.listen,
        metrics_listen=config.streaming.metrics_listen,
        metrics=metrics,
        clock=clock,
        limits=ServerLimits(
            calls_max=config.streaming.max_subscribers + _CALLS_BESIDE_SUBSCRIBERS,
            # Every message puts a ping off: between two heartbeats there is time for one.
            keepalive_s=heartbeat_s / 2,
            keepalive_answer_s=max(heartbeat_s, _ANSWER_S_MIN),
        ),
    )


def _limits(config: EventConfig) -> SubscriptionLimits:
    return SubscriptionLimits(
        default_buffer_size=config.streaming.default_buffer_size,
        pressure_threshold=config.streaming.backpressure_threshold,
        heartbeat_s=config.streaming.heartbeat_interval,
    )


async def _durables(
    config: EventConfig, hub: Hub, starts: Starts, clock: Clock, metrics: StreamMetrics
) -> DurableSubscriptions:
    durables = DurableSubscriptions(
        CheckpointStore(LocalFileSystem(config.replay.checkpoint_dir)),
        hub,
        starts,
        clock,
        metrics,
        subscriptions_max=config.streaming.max_durable_subscriptions,
        group_limits=GroupLimits(
            deliveries_max=config.streaming.max_deliveries,
            acknowledge_timeout_s=config.streaming.acknowledge_timeout,
        ),
    )
    await durables.load()
    return durables


def _replays(
    stack: AsyncExitStack, config: EventConfig, history: QueryHistory, clock: Clock, metrics: Metrics
) -> ReplayServicer:
    replays = ReplayServicer(
        history,
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
