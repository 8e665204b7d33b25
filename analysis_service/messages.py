"""Answers of analyses as messages. Translates; holds no rules."""

from collections.abc import Iterable, Mapping, Sequence

from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from analysis_service.anomalies.incident import Incident
from analysis_service.chains.causes import Cause
from analysis_service.chains.chain import NO_PARENT, Chain
from analysis_service.chains.related import RelatedChain
from analysis_service.chains.shape import Comparison
from analysis_service.coverage import Coverage, Reached
from analysis_service.patterns.pattern import Pattern
from analysis_service.prediction import Prediction
from analysis_service.registry import Analysis
from analysis_service.statistics.collector import GroupStatistics
from analysis_service.statistics.comparison import GroupChange
from analysis_service.statistics.hours import by_hour_of_week

NEXT_EVENTS_MAX = 20
_SEVERITIES = {
    "minor": pb.ANOMALY_SEVERITY_MINOR,
    "major": pb.ANOMALY_SEVERITY_MAJOR,
    "critical": pb.ANOMALY_SEVERITY_CRITICAL,
}


def timestamp(nanoseconds: int) -> Timestamp:
    """A time."""
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def duration(nanoseconds: int) -> Duration:
    """A stretch of time that is not negative."""
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return Duration(seconds=seconds, nanos=nanos)


def coverage(found: Coverage) -> pb.AnalysisCoverage:
    """What an answer rests on."""
    return pb.AnalysisCoverage(
        events=found.events,
        snapshot_position=found.snapshot_position,
        partial=bool(found.partial_reason),
        partial_reason=found.partial_reason,
        notes=found.notes,
    )


def progress(reached: Reached, found: Coverage, *, elapsed_s: float) -> pb.AnalysisProgress:
    """How far an analysis is."""
    return pb.AnalysisProgress(
        stage=reached.stage, share=reached.share, events=found.events, elapsed=duration(round(elapsed_s * 1e9))
    )


def statistics(
    group: GroupStatistics,
    *,
    group_by: Sequence[str],
    percentiles: Sequence[float],
    range_ns: tuple[int, int] | None,
    top_values: int,
) -> pb.EventStatistics:
    """Statistics of one group."""
    message = pb.EventStatistics(
        event_type=dict(zip(group_by, group.key, strict=True)).get("type") or "",
        count=group.count,
        frequency=group.frequency(range_ns),
        percentiles=_percentiles(group.distribution.percentiles(percentiles)),
        time_distribution={hour.format(): number for hour, number in sorted(group.hours.items())},
        group=_group(group_by, group.key),
        failures=group.failures,
        error_rate=group.error_rate,
        duration_count=group.durations.count,
        percentiles_estimated=not group.distribution.exact,
        first=timestamp(group.first_ns),
        last=timestamp(group.last_ns),
        hours_of_week=by_hour_of_week(group.hours),
    )
    if group.durations.count:
        message.avg_duration = group.durations.mean
        message.min_duration, message.max_duration = group.durations.minimum, group.durations.maximum
        message.stddev_duration = group.durations.deviation
    for name, tally in group.values.items():
        message.values.add(
            field=name,
            distinct=tally.distinct.count,
            distinct_estimated=not tally.distinct.exact,
            top=[pb.ValueCount(value=value, count=count) for value, count in tally.top(top_values)],
            undercount_max=tally.undercount_max,
        )
    return message


def change(found: GroupChange, group_by: Sequence[str]) -> pb.StatisticsChange:
    """How one group differs between two ranges."""
    message = pb.StatisticsChange(
        group=_group(group_by, found.key),
        count=found.now.count if found.now else 0,
        other_count=found.then.count if found.then else 0,
        error_rate_change=found.error_rate_change,
        percentile_ratios=_percentiles(found.percentile_ratios),
        surprise=found.surprise,
    )
    if found.then is not None:
        message.rate_ratio = found.rate_ratio
    return message


def pattern(found: Pattern, events: Sequence[event_pb2.Event]) -> pb.EventPattern:
    """A pattern with its sample events."""
    message = pb.EventPattern(
        pattern_type=found.kind,
        events=events,
        frequency=found.frequency,
        confidence=found.confidence,
        description=found.description,
        event_types=found.types,
        occurrences=found.occurrences,
        cases=found.cases,
        support=found.support,
        expression=found.expression,
        gapped=not found.contiguous,
    )
    if found.period_s:
        message.period.CopyFrom(duration(round(found.period_s * 1e9)))
    return message


def anomaly(found: Incident, *, incident_id: str = "") -> pb.Anomaly:
    """An incident."""
    message = pb.Anomaly(
        anomaly_type=found.kind,
        score=found.score,
        start=timestamp(found.start_ns),
        description=found.explanation,
        expression=found.expression,
        severity=_SEVERITIES[found.severity],
        event_types=found.types,
        sources=found.sources,
        expected_low=found.expected_low,
        expected_high=found.expected_high,
        actual=found.actual,
        positions=found.positions,
        incident_id=incident_id,
    )
    if not found.ongoing:
        message.end.CopyFrom(timestamp(found.end_ns))
    return message


def chain(found: Chain) -> pb.TraceEventChainResponse:
    """A chain without its events, its related ones and its drawing."""
    return pb.TraceEventChainResponse(
        duration=duration(found.duration_ns),
        spans=[_span(found, number) for number in range(len(found))],
        waiting=duration(found.waiting_ns),
        gaps=[
            pb.ChainGap(
                start=timestamp(gap.start_ns),
                duration=duration(gap.end_ns - gap.start_ns),
                after=gap.after,
                before=gap.before,
            )
            for gap in found.gaps
        ],
        failure_origins=found.origins,
        duplicates=found.duplicates,
        inferred=found.inferred,
    )


def related(found: Iterable[RelatedChain]) -> list[pb.RelatedChain]:
    """Related chains."""
    return [
        pb.RelatedChain(correlation_id=each.correlation_id, relation=each.why, events=each.events) for each in found
    ]


def comparison(found: Comparison) -> pb.CompareChainsResponse:
    """How a chain differs from the usual."""
    return pb.CompareChainsResponse(
        kind=found.kind,
        references=found.references,
        differences=[
            pb.ChainDifference(
                difference=each.what,
                event_type=each.type,
                parent_type=each.parent_type or "",
                share=each.share,
                expected_low=each.expected_low,
                expected_high=each.expected_high,
                actual=each.actual,
                description=each.describe(),
            )
            for each in found.differences
        ],
    )


def cause(found: Cause) -> pb.Cause:
    """A cause."""
    return pb.Cause(
        trouble=found.what,
        source=found.source,
        event_type=found.type,
        score=found.score,
        chains=found.chains,
        amount=found.amount,
        examples=found.examples,
        description=found.describe(),
        expression=found.expression(),
    )


def prediction(found: Prediction) -> pb.PredictNextResponse:
    """What comes next."""
    message = pb.PredictNextResponse(
        next=[
            pb.NextEvent(event_type=kind or "", probability=probability)
            for kind, probability in found.next_types[:NEXT_EVENTS_MAX]
        ],
        order=found.order,
        seen=found.seen,
        likely_end=found.likely_end or "",
    )
    if found.remaining_s is not None:
        names = ("remaining", "remaining_low", "remaining_high")
        for name, seconds in zip(names, found.remaining_s, strict=True):
            getattr(message, name).CopyFrom(duration(round(seconds * 1e9)))
    return message


def description(analysis: Analysis) -> pb.AnalysisDescription:
    """An analysis with its parameters."""
    return pb.AnalysisDescription(
        name=analysis.name,
        family=analysis.family,
        description=analysis.description,
        parameters=[
            pb.AnalysisParameter(
                name=each.name,
                description=each.description,
                default_value=each.default,
                minimum=each.minimum,
                maximum=each.maximum,
                unit=each.unit,
                whole=each.whole,
            )
            for each in analysis.parameters
        ],
    )


def _percentiles(values: Mapping[float, float]) -> list[pb.Percentile]:
    return [pb.Percentile(rank=rank, value=value) for rank, value in values.items()]


def _group(fields: Sequence[str], key: Sequence[str | None]) -> list[pb.GroupValue]:
    return [pb.GroupValue(field=field, value=value) for field, value in zip(fields, key, strict=True)]


def _span(found: Chain, number: int) -> pb.ChainSpan:
    parent = int(found.parents[number])
    return pb.ChainSpan(
        position=int(found.positions[number]),
        parent=None if parent == NO_PARENT else parent,
        start=timestamp(int(found.starts[number])),
        duration=duration(int(found.ends[number] - found.starts[number])),
        self_time=duration(int(found.self_ns[number])),
        path_time=duration(int(found.path_ns[number])),
        on_critical_path=bool(found.on_path[number]),
        orphan=bool(found.orphans[number]),
        failed=bool(found.failed[number]),
        depth=int(found.depth[number]),
        event_type=found.types[number],
        source=found.sources[number],
    )
