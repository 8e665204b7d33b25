"""The Python client: log events, hand them around inside a program, follow and replay them.

with EventLogger(load_config(path)) as logger:
    event_id = logger.log("user.action", {"action": "login"}, source="auth_module")
"""

from shared.client.async_event_logger import AsyncContextualLogger, AsyncEventLogger
from shared.client.back_off import BackOff
from shared.client.event_bus import BusStatistics, EventBus
from shared.client.event_logger import ContextualLogger, EventLogger
from shared.client.event_replay import EventReplay
from shared.client.event_streamer import EventStreamer
from shared.client.options import Durability, LoggerOptions
from shared.client.replay_options import ReplayOptions, ReplayPace
from shared.client.statistics import ClientStatistics
from shared.client.stream_options import SlowConsumerPolicy, StartAt, StreamOptions
from shared.client.stream_statistics import StreamStatistics
from shared.client.stream_subscriber import StreamSubscriber
from shared.client.submission import OverflowPolicy
from shared.client.subscription import EmittedEvent, Subscription

__all__ = [
    "AsyncContextualLogger",
    "AsyncEventLogger",
    "BackOff",
    "BusStatistics",
    "ClientStatistics",
    "ContextualLogger",
    "Durability",
    "EmittedEvent",
    "EventBus",
    "EventLogger",
    "EventReplay",
    "EventStreamer",
    "LoggerOptions",
    "OverflowPolicy",
    "ReplayOptions",
    "ReplayPace",
    "SlowConsumerPolicy",
    "StartAt",
    "StreamOptions",
    "StreamStatistics",
    "StreamSubscriber",
    "Subscription",
]
