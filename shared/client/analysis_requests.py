"""From what a program asks to the requests of the analysis service. No I/O.

Ranges of time are [start, end); times without a zone are UTC. All raise EventFilterException, EventValidationException
where a filter or a time is wrong.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TypeAlias

from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2
from google.protobuf.duration_pb2 import Duration

from shared.client.analyzer_options import DEFAULT_MEASURES, ChainDrawing, ChainFields, StatisticsMeasures
from shared.client.event_messages import timestamp_message
from shared.client.query_messages import any_filters_message
from shared.client.query_options import Filters
from shared.errors import invalid_field

_DRAWINGS = {
    ChainDrawing.NONE: pb.CHAIN_DRAWING_UNSPECIFIED,
    ChainDrawing.TEXT: pb.CHAIN_DRAWING_TEXT,
    ChainDrawing.MERMAID: pb.CHAIN_DRAWING_MERMAID,
    ChainDrawing.GRAPHVIZ: pb.CHAIN_DRAWING_GRAPHVIZ,
}
# Longest duration that a message can hold.
_DURATION_MAX = dt.timedelta(seconds=315_576_000_000)

TimeRange: TypeAlias = tuple[dt.datetime, dt.datetime]


def statistics_request(
    time_range: TimeRange | None,
    filters: Filters,
    *,
    event_type: str = "",
    group_by: Sequence[str] = (),
    percentiles: Sequence[float] = (),
    time_zone: str = "UTC",
    measures: StatisticsMeasures = DEFAULT_MEASURES,
    compare_with: TimeRange | None = None,
) -> pb.CalculateStatisticsRequest:
    """A request of CalculateStatistics."""
    return pb.CalculateStatisticsRequest(
        event_type=event_type,
        time_range=_range(time_range),
        compare_with=_range(compare_with),
        duration_field=measures.duration_field,
        value_fields=measures.value_fields,
        top_values=_number("top_values", measures.top_values),
        group_by=group_by,
        percentiles=percentiles,
        time_zone=time_zone,
        filters=any_filters_message(filters),
    )


def patterns_request(
    time_window: dt.timedelta | None,
    time_range: TimeRange | None,
    filters: Filters,
    *,
    min_occurrence: int,
    group_by: str,
    analyses: Sequence[str],
    parameters: Mapping[str, float] | None,
) -> pb.AnalyzePatternsRequest:
    """A request of AnalyzePatterns."""
    return pb.AnalyzePatternsRequest(
        time_window=_duration("time_window", time_window),
        time_range=_range(time_range),
        min_occurrence=_number("min_occurrence", min_occurrence),
        group_by=group_by,
        analyses=analyses,
        parameters=parameters or {},
        filters=any_filters_message(filters),
    )


def anomalies_request(
    baseline_window: dt.timedelta | None,
    time_range: TimeRange | None,
    filters: Filters,
    *,
    sensitivity: float | None,
    analyses: Sequence[str],
    value_fields: Sequence[str],
    group_by: str,
) -> pb.DetectAnomaliesRequest:
    """A request of DetectAnomalies."""
    return pb.DetectAnomaliesRequest(
        baseline_window=_duration("baseline_window", baseline_window),
        time_range=_range(time_range),
        sensitivity=sensitivity,
        analyses=analyses,
        value_fields=value_fields,
        group_by=group_by,
        filters=any_filters_message(filters),
    )


def watch_request(
    baseline_window: dt.timedelta,
    filters: Filters,
    *,
    sensitivity: float | None,
    analyses: Sequence[str],
    value_fields: Sequence[str],
    lateness: dt.timedelta | None,
) -> pb.WatchAnomaliesRequest:
    """A request of WatchAnomalies."""
    return pb.WatchAnomaliesRequest(
        baseline_window=_duration("baseline_window", baseline_window),
        sensitivity=sensitivity,
        analyses=analyses,
        value_fields=value_fields,
        lateness=_duration("lateness", lateness),
        filters=any_filters_message(filters),
    )


def chain_request(
    correlation_id: str, fields: ChainFields, drawing: ChainDrawing, *, include_related: bool
) -> pb.TraceEventChainRequest:
    """A request of TraceEventChain."""
    return pb.TraceEventChainRequest(
        correlation_id=correlation_id,
        fields=_fields(fields),
        drawing=_DRAWINGS[drawing],
        include_related=include_related,
    )


def comparison_request(
    correlation_id: str, time_range: TimeRange | None, filters: Filters, fields: ChainFields
) -> pb.CompareChainsRequest:
    """A request of CompareChains."""
    return pb.CompareChainsRequest(
        correlation_id=correlation_id,
        time_range=_range(time_range),
        filters=any_filters_message(filters),
        fields=_fields(fields),
    )


def causes_request(time_range: TimeRange | None, filters: Filters, fields: ChainFields) -> pb.RankCausesRequest:
    """A request of RankCauses."""
    return pb.RankCausesRequest(
        time_range=_range(time_range), filters=any_filters_message(filters), fields=_fields(fields)
    )


def prediction_request(
    running: str | Sequence[str], time_range: TimeRange | None, history: dt.timedelta | None, filters: Filters
) -> pb.PredictNextRequest:
    """A request of PredictNext, for a correlation id or for the types of the events so far."""
    return pb.PredictNextRequest(
        correlation_id=running if isinstance(running, str) else "",
        event_types=() if isinstance(running, str) else running,
        history=_duration("history", history),
        time_range=_range(time_range),
        filters=any_filters_message(filters),
    )


def state_request(filters: Filters, reducer: str, at: int | dt.datetime | None) -> pb.FoldStateRequest:
    """A request of FoldState, up to a position, a time or the end."""
    request = pb.FoldStateRequest(filters=any_filters_message(filters), reducer=reducer)
    if isinstance(at, dt.datetime):
        request.at_time.CopyFrom(timestamp_message(at))
    elif at is not None:
        request.at_position = _number("at", at, least=1, most=2**63 - 1)
    return request


def _number(name: str, number: int, *, least: int = 0, most: int = 2**31 - 1) -> int:
    """The number itself. Raises EventValidationException (INVALID_FIELD) where it is out of range."""
    if not least <= number <= most:
        raise invalid_field(name, f"is {number}; it must be from {least} to {most}")
    return number


def _fields(fields: ChainFields) -> pb.ChainFields:
    return pb.ChainFields(**asdict(fields))


def _duration(name: str, length: dt.timedelta | None) -> Duration | None:
    if length is None:
        return None
    if abs(length) > _DURATION_MAX:
        raise invalid_field(name, f"is {length}; it must be at most {_DURATION_MAX}")
    message = Duration()
    message.FromTimedelta(length)
    return message


def _range(given: TimeRange | None) -> event_pb2.TimeRange | None:
    if given is None:
        return None
    start, end = given
    return event_pb2.TimeRange(start=timestamp_message(start), end=timestamp_message(end))
