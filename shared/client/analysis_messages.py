"""Between the answers of the analysis service and their models. No I/O."""

import datetime as dt

from eventlog.v1 import analysis_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from shared.client.analysis_answers import Anomaly, ChainSpan, EventChain, EventPattern, EventStatistics, LikelyNext
from shared.client.event_messages import event_of
from shared.events.timestamps import to_datetime

_SEVERITY = "ANOMALY_SEVERITY_"


def duration_message(length: dt.timedelta) -> Duration:
    """A length of time as a message."""
    message = Duration()
    message.FromTimedelta(length)
    return message


def statistics_of(message: pb.EventStatistics) -> EventStatistics:
    """The statistics of a message."""
    has_duration = message.HasField("avg_duration")
    return EventStatistics(
        event_type=message.event_type,
        count=message.count,
        frequency=message.frequency,
        avg_duration=message.avg_duration if has_duration else None,
        percentiles={_rank(each.rank): each.value for each in message.percentiles},
        time_distribution=dict(sorted(message.time_distribution.items())),
        min_duration=message.min_duration if has_duration else None,
        max_duration=message.max_duration if has_duration else None,
        stddev_duration=message.stddev_duration if has_duration else None,
        error_rate=message.error_rate,
        estimated=message.percentiles_estimated,
    )


def no_statistics(event_type: str) -> EventStatistics:
    """The statistics of a type without events."""
    return EventStatistics(event_type, 0, 0.0, None, {}, {})


def pattern_of(message: pb.EventPattern) -> EventPattern:
    """The pattern of a message."""
    return EventPattern(
        pattern_type=message.pattern_type,
        events=[event_of(event) for event in message.events],
        frequency=message.frequency,
        confidence=message.confidence,
        description=message.description,
        event_types=tuple(message.event_types),
        occurrences=message.occurrences,
        support=message.support,
        expression=message.expression,
    )


def anomaly_of(message: pb.Anomaly) -> Anomaly:
    """The anomaly of a message."""
    severity = pb.AnomalySeverity.Name(message.severity)
    return Anomaly(
        anomaly_type=message.anomaly_type,
        score=message.score,
        severity=severity.removeprefix(_SEVERITY).lower(),
        start=_time(message.start),
        end=_time(message.end) if message.HasField("end") else None,
        description=message.description,
        event_types=tuple(message.event_types),
        sources=tuple(message.sources),
        expected=(message.expected_low, message.expected_high),
        actual=message.actual,
        expression=message.expression,
        positions=tuple(message.positions),
    )


def chain_of(correlation_id: str, message: pb.TraceEventChainResponse) -> EventChain:
    """The chain of a message."""
    return EventChain(
        correlation_id=correlation_id,
        events=[event_of(event) for event in message.events],
        spans=[_span(span) for span in message.spans],
        duration=message.duration.ToTimedelta(),
        failure_origins=tuple(message.failure_origins),
        drawing=message.drawing,
        related={each.correlation_id: each.relation for each in message.related},
    )


def likely_next_of(message: pb.PredictNextResponse) -> LikelyNext:
    """The prediction of a message."""
    return LikelyNext(
        types=tuple((each.event_type or None, each.probability) for each in message.next),
        likely_end=message.likely_end or None,
        remaining=message.remaining.ToTimedelta() if message.HasField("remaining") else None,
    )


def _span(message: pb.ChainSpan) -> ChainSpan:
    return ChainSpan(
        position=message.position,
        event_type=message.event_type,
        source=message.source,
        parent=message.parent if message.HasField("parent") else None,
        depth=message.depth,
        start=_time(message.start),
        duration=message.duration.ToTimedelta(),
        self_time=message.self_time.ToTimedelta(),
        path_time=message.path_time.ToTimedelta(),
        orphan=message.orphan,
        failed=message.failed,
    )


def _time(message: Timestamp) -> dt.datetime:
    return to_datetime(message.ToNanoseconds())


def _rank(rank: float) -> int | float:
    return int(rank) if rank == int(rank) else rank
