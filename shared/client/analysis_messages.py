"""From the answers of the analysis service to what a program sees. No I/O."""

import datetime as dt

import msgspec
from eventlog.v1 import analysis_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from shared.client import analysis_answers as answers
from shared.client import chain_answers as chains
from shared.client.event_messages import event_of
from shared.events.timestamps import to_datetime

_SEVERITY = "ANOMALY_SEVERITY_"


def coverage_of(message: pb.AnalysisCoverage) -> answers.Coverage:
    """The coverage of a message."""
    return answers.Coverage(
        events=message.events,
        snapshot_position=message.snapshot_position,
        partial=message.partial,
        partial_reason=message.partial_reason,
        notes=tuple(message.notes),
    )


def progress_of(message: pb.AnalysisProgress) -> answers.AnalysisProgress:
    """The progress of a message."""
    return answers.AnalysisProgress(message.stage, message.share, message.events, message.elapsed.ToTimedelta())


def statistics_of(message: pb.EventStatistics, coverage: answers.Coverage) -> answers.EventStatistics:
    """The statistics of a message."""
    has_duration = message.HasField("avg_duration")
    return answers.EventStatistics(
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
        group={each.field: each.value if each.HasField("value") else None for each in message.group},
        first=_time(message.first),
        last=_time(message.last),
        values={each.field: _values(each) for each in message.values},
        hours_of_week=tuple(message.hours_of_week),
        failures=message.failures,
        duration_count=message.duration_count,
        coverage=coverage,
    )


def groups_of(message: pb.CalculateStatisticsResponse) -> answers.GroupedStatistics:
    """The statistics of all groups of an answer."""
    coverage = coverage_of(message.coverage)
    return answers.GroupedStatistics(
        (statistics_of(each, coverage) for each in message.statistics),
        coverage,
        events_elsewhere=message.events_elsewhere,
        cached=message.cached,
    )


def change_of(message: pb.StatisticsChange) -> answers.StatisticsChange:
    """How one group differs between two ranges."""
    return answers.StatisticsChange(
        group={each.field: each.value if each.HasField("value") else None for each in message.group},
        count=message.count,
        other_count=message.other_count,
        rate_ratio=message.rate_ratio if message.HasField("rate_ratio") else None,
        error_rate_change=message.error_rate_change,
        percentile_ratios={_rank(each.rank): each.value for each in message.percentile_ratios},
        surprise=message.surprise,
    )


def _values(message: pb.FieldValues) -> answers.FieldValues:
    return answers.FieldValues(
        distinct=message.distinct,
        distinct_estimated=message.distinct_estimated,
        top={each.value: each.count for each in message.top},
        undercount_max=message.undercount_max,
    )


def no_statistics(event_type: str, coverage: answers.Coverage) -> answers.EventStatistics:
    """The statistics of a type without events."""
    return answers.EventStatistics(event_type, 0, 0.0, None, {}, {}, coverage=coverage)


def pattern_of(message: pb.EventPattern) -> answers.EventPattern:
    """The pattern of a message."""
    return answers.EventPattern(
        pattern_type=message.pattern_type,
        events=[event_of(event) for event in message.events],
        frequency=message.frequency,
        confidence=message.confidence,
        description=message.description,
        event_types=tuple(message.event_types),
        occurrences=message.occurrences,
        support=message.support,
        expression=message.expression,
        cases=message.cases,
        gapped=message.gapped,
        period=message.period.ToTimedelta() if message.HasField("period") else None,
    )


def anomaly_of(message: pb.Anomaly) -> answers.Anomaly:
    """The anomaly of a message."""
    severity = pb.AnomalySeverity.Name(message.severity)
    return answers.Anomaly(
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
        incident_id=message.incident_id,
    )


def chain_of(correlation_id: str, message: pb.TraceEventChainResponse) -> chains.EventChain:
    """The chain of a message."""
    return chains.EventChain(
        correlation_id=correlation_id,
        events=[event_of(event) for event in message.events],
        spans=[_span(span) for span in message.spans],
        duration=message.duration.ToTimedelta(),
        failure_origins=tuple(message.failure_origins),
        drawing=message.drawing,
        related={each.correlation_id: each.relation for each in message.related},
        related_events={each.correlation_id: each.events for each in message.related},
        waiting=message.waiting.ToTimedelta(),
        gaps=tuple(_gap(gap) for gap in message.gaps),
        duplicates=message.duplicates,
        inferred=message.inferred,
        coverage=coverage_of(message.coverage),
    )


def likely_next_of(message: pb.PredictNextResponse) -> answers.LikelyNext:
    """The prediction of a message."""
    known = message.HasField("remaining")
    low, high = message.remaining_low.ToTimedelta(), message.remaining_high.ToTimedelta()
    return answers.LikelyNext(
        types=tuple((each.event_type or None, each.probability) for each in message.next),
        likely_end=message.likely_end or None,
        remaining=message.remaining.ToTimedelta() if known else None,
        remaining_range=(low, high) if known else None,
        order=message.order,
        seen=message.seen,
        coverage=coverage_of(message.coverage),
    )


def comparison_of(message: pb.CompareChainsResponse) -> chains.ChainComparison:
    """The comparison of a message."""
    return chains.ChainComparison(
        kind=message.kind,
        references=message.references,
        differences=tuple(
            chains.ChainDifference(
                difference=each.difference,
                event_type=each.event_type,
                parent_type=each.parent_type or None,
                share=each.share,
                expected=(each.expected_low, each.expected_high),
                actual=each.actual,
                description=each.description,
            )
            for each in message.differences
        ),
        coverage=coverage_of(message.coverage),
    )


def cause_of(message: pb.Cause) -> answers.Cause:
    """The cause of a message."""
    return answers.Cause(
        trouble=message.trouble,
        source=message.source,
        event_type=message.event_type,
        score=message.score,
        chains=message.chains,
        amount=message.amount,
        examples=tuple(message.examples),
        description=message.description,
        expression=message.expression,
    )


def state_of(message: pb.FoldStateResponse) -> answers.FoldedState:
    """The state of a message."""
    return answers.FoldedState(
        state=msgspec.json.decode(message.state_json),
        position=message.position,
        events=message.events,
        events_from_snapshot=message.events_from_snapshot,
        coverage=coverage_of(message.coverage),
    )


def description_of(message: pb.AnalysisDescription) -> answers.AnalysisDescription:
    """The description of a message."""
    parameters = (
        answers.AnalysisParameter(
            name=each.name,
            description=each.description,
            default=each.default_value,
            minimum=each.minimum,
            maximum=each.maximum,
            unit=each.unit,
            whole=each.whole,
        )
        for each in message.parameters
    )
    return answers.AnalysisDescription(message.name, message.family, message.description, tuple(parameters))


def _span(message: pb.ChainSpan) -> chains.ChainSpan:
    return chains.ChainSpan(
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
        on_critical_path=message.on_critical_path,
    )


def _gap(message: pb.ChainGap) -> chains.ChainGap:
    return chains.ChainGap(_time(message.start), message.duration.ToTimedelta(), message.after, message.before)


def _time(message: Timestamp) -> dt.datetime:
    return to_datetime(message.ToNanoseconds())


def _rank(rank: float) -> int | float:
    return int(rank) if rank == int(rank) else rank
