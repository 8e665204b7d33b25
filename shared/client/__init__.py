"""The Python client: log events, hand them around inside a program, read them back, follow and replay them.

with EventLogger(load_config(path)) as logger:
    event_id = logger.log("user.action", {"action": "login"}, source="auth_module")

with EventQuery(load_config(path)) as query:
    for event in query.events("type = 'user.action' AND payload.action = 'login'"):
        print(event.timestamp, event.source)
"""

from shared.client.analysis_answers import (
    AnalysisDescription,
    AnalysisParameter,
    AnalysisProgress,
    Anomaly,
    Cause,
    Coverage,
    EventPattern,
    EventStatistics,
    FieldValues,
    Findings,
    FoldedState,
    GroupedStatistics,
    LikelyNext,
    StatisticsChange,
)
from shared.client.analyzer_options import AnalyzerOptions, ChainDrawing, ChainFields, StatisticsMeasures
from shared.client.async_event_logger import AsyncContextualLogger, AsyncEventLogger
from shared.client.async_event_query import AsyncEventQuery
from shared.client.back_off import BackOff
from shared.client.chain_answers import ChainComparison, ChainDifference, ChainGap, ChainSpan, EventChain
from shared.client.event_analyzer import EventAnalyzer
from shared.client.event_bus import BusStatistics, EventBus
from shared.client.event_logger import ContextualLogger, EventLogger
from shared.client.event_query import EventQuery
from shared.client.event_replay import EventReplay
from shared.client.event_store import EventStore
from shared.client.event_streamer import EventStreamer
from shared.client.options import Durability, LoggerOptions
from shared.client.query_answers import EventPage, ExportProgress, ExportReport, FilterExplanation, SegmentDecision
from shared.client.query_options import EventOrder, QueryOptions
from shared.client.replay_options import ReplayOptions, ReplayPace
from shared.client.statistics import ClientStatistics
from shared.client.stream_options import SlowConsumerPolicy, StartAt, StreamOptions
from shared.client.stream_statistics import StreamStatistics
from shared.client.stream_subscriber import StreamSubscriber
from shared.client.submission import OverflowPolicy
from shared.client.subscription import EmittedEvent, Subscription
from shared.filters.event_filter import EventFilter

__all__ = [
    "AnalysisDescription",
    "AnalysisParameter",
    "AnalysisProgress",
    "AnalyzerOptions",
    "Anomaly",
    "AsyncContextualLogger",
    "AsyncEventLogger",
    "AsyncEventQuery",
    "BackOff",
    "BusStatistics",
    "Cause",
    "ChainComparison",
    "ChainDifference",
    "ChainDrawing",
    "ChainFields",
    "ChainGap",
    "ChainSpan",
    "ClientStatistics",
    "ContextualLogger",
    "Coverage",
    "Durability",
    "EmittedEvent",
    "EventAnalyzer",
    "EventBus",
    "EventChain",
    "EventFilter",
    "EventLogger",
    "EventOrder",
    "EventPage",
    "EventPattern",
    "EventQuery",
    "EventReplay",
    "EventStatistics",
    "EventStore",
    "EventStreamer",
    "ExportProgress",
    "ExportReport",
    "FieldValues",
    "FilterExplanation",
    "Findings",
    "FoldedState",
    "GroupedStatistics",
    "LikelyNext",
    "LoggerOptions",
    "OverflowPolicy",
    "QueryOptions",
    "ReplayOptions",
    "ReplayPace",
    "SegmentDecision",
    "SlowConsumerPolicy",
    "StartAt",
    "StatisticsChange",
    "StatisticsMeasures",
    "StreamOptions",
    "StreamStatistics",
    "StreamSubscriber",
    "Subscription",
]
