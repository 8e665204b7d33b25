"""Statistics, patterns and anomalies of a stretch of history: what their RPCs do."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2

from analysis_service import asked, messages
from analysis_service.anomalies.detect import Options
from analysis_service.anomalies.incident import Incident, explained, ranked
from analysis_service.budget import Budget
from analysis_service.columns import EventColumns
from analysis_service.coverage import Coverage
from analysis_service.desk import Job
from analysis_service.expressions import all_of, between, equals
from analysis_service.log_source import SAMPLE_BYTES_MAX, LogSource, Wanted
from analysis_service.patterns.pattern import Pattern, PatternRequest
from analysis_service.registry import Analysis, checked_parameters, chosen, refuse_unknown
from analysis_service.scan_columns import ScanColumns
from analysis_service.statistics.cache import AnswerCache
from analysis_service.statistics.collector import GROUPS_MAX, GroupStatistics, StatisticsCollector
from analysis_service.statistics.comparison import compare
from shared.clock import Clock
from shared.config.model import AnalysisConfig
from shared.errors import invalid_field

TOP_VALUES_DEFAULT, TOP_VALUES_MAX = 10, 1_000
SAMPLE_EVENTS_MAX = 10
INCIDENTS_MAX = 1_000
_DAY_S = 86_400.0
_MIN_OCCURRENCE_DEFAULT = 3


class HistoryCalls:
    """The rules of three RPCs. One for all calls; belongs to one event loop."""

    def __init__(self, source: LogSource, config: AnalysisConfig, cache: AnswerCache[bytes], clock: Clock) -> None:
        self._source = source
        self._config = config
        self._cache = cache
        self._clock = clock

    async def statistics(self, request: pb.CalculateStatisticsRequest, job: Job) -> pb.CalculateStatisticsResponse:
        """Statistics by group, from the cache where they are there and still right."""
        collector = _collector(request)
        here = asked.time_range(request.time_range, "time_range")
        wanted = _wanted_statistics(request, here)
        key = request.SerializeToString(deterministic=True)
        is_kept = not wanted.uses_now and not request.HasField("compare_with")
        kept = self._cache.get(key) if is_kept else None
        if kept is not None:
            if not await self._source.count_since(wanted, kept.snapshot_position, timeout_s=job.reading_s):
                answer = pb.CalculateStatisticsResponse.FromString(kept.answer)
                answer.cached = True
                return answer
            self._cache.drop(key)
        answer = await self._calculate(request, here, wanted, collector, job)
        if is_kept and not answer.coverage.partial:
            self._cache.put(key, answer.SerializeToString(), snapshot_position=answer.coverage.snapshot_position)
        return answer

    async def patterns(self, request: pb.AnalyzePatternsRequest, job: Job) -> pb.AnalyzePatternsResponse:
        """Patterns by all analyses that are asked for."""
        analyses = chosen(tuple(request.analyses), "pattern")
        refuse_unknown(request.parameters, analyses)
        parameters = [checked_parameters(each, request.parameters) for each in analyses]
        start, end = asked.range_or_window(
            request.time_range if request.HasField("time_range") else None,
            request.time_window,
            now_ns=self._clock.now_ns(),
            default_s=self._config.pattern_window,
            field="time_window",
        )
        key = asked.field(request.group_by or "correlation_id", "group_by")
        columns = ScanColumns([key, *(field for each in analyses for field in each.fields)])
        wanted = Wanted(request.filters, columns, (asked.Range(start, end).expression(),))
        events = await self._source.groups(wanted, job.coverage, key=key, timeout_s=job.reading_s)
        least = request.min_occurrence or _MIN_OCCURRENCE_DEFAULT

        def find() -> list[Pattern]:
            searched = PatternRequest(
                events, key, (end - start) / 60e9, least, budget=job.budget, notes=job.coverage.notes
            )
            return [
                replace(pattern, expression=all_of(pattern.expression, between(start, end)))
                for analysis, values in zip(analyses, parameters, strict=True)
                for pattern in _patterns(analysis, searched, values, job.coverage)
            ]

        found = await job.compute(find)
        positions = [position for each in found for position in each.samples[:SAMPLE_EVENTS_MAX]]
        samples = await self._source.at_positions(positions, job.coverage, timeout_s=job.reading_s)
        patterns = await job.compute(lambda: _with_samples(found, samples, job.coverage))
        return pb.AnalyzePatternsResponse(patterns=patterns, coverage=messages.coverage(job.coverage))

    async def anomalies(self, request: pb.DetectAnomaliesRequest, job: Job) -> pb.DetectAnomaliesResponse:
        """Incidents by all analyses that are asked for."""
        analyses = chosen(tuple(request.analyses), "anomaly")
        start, end = asked.range_or_window(
            request.time_range if request.HasField("time_range") else None,
            request.baseline_window,
            now_ns=self._clock.now_ns(),
            default_s=_DAY_S,
            field="baseline_window",
        )
        fields = asked.value_fields(request.value_fields)
        key = asked.field(request.group_by or "correlation_id", "group_by")
        options = Options(
            start,
            end,
            sensitivity=asked.sensitivity(request, self._config.anomaly_sensitivity),
            kinds=tuple(each.name for each in analyses),
            value_fields=fields,
            case_key=key,
            begin=job.budget.begin,
        )
        columns = ScanColumns([key, *(field for each in analyses for field in each.fields)], numbers=fields)
        wanted = Wanted(request.filters, columns, (asked.Range(start, end).expression(),))
        events = await self._source.groups(wanted, job.coverage, key=key, timeout_s=job.reading_s)
        found = await job.compute(lambda: _incidents(analyses, events, options, job))
        return pb.DetectAnomaliesResponse(
            anomalies=[messages.anomaly(each) for each in found[:INCIDENTS_MAX]],
            coverage=messages.coverage(job.coverage),
        )

    async def _calculate(
        self,
        request: pb.CalculateStatisticsRequest,
        here: asked.Range,
        wanted: Wanted,
        collector: StatisticsCollector,
        job: Job,
    ) -> pb.CalculateStatisticsResponse:
        percentiles = asked.percentiles(request.percentiles)
        group_by = tuple(request.group_by) or ("type",)
        middle = 0.5 if request.HasField("compare_with") else 1.0
        groups = await self._collect(wanted, collector, job, part=(0.0, middle))
        answer = pb.CalculateStatisticsResponse(events_elsewhere=collector.events_elsewhere)
        if collector.events_elsewhere:
            job.coverage.notes.append(
                f"{collector.events_elsewhere} events are of other groups than the {GROUPS_MAX} most frequent"
            )
        top = request.top_values or TOP_VALUES_DEFAULT

        def translate() -> None:
            for group in groups:
                answer.statistics.append(
                    messages.statistics(
                        group, group_by=group_by, percentiles=percentiles, range_ns=here.closed, top_values=top
                    )
                )

        await job.compute(translate)
        if request.HasField("compare_with"):
            answer.changes.extend(await self._changes(request, here, groups, job))
        answer.coverage.CopyFrom(messages.coverage(job.coverage))
        return answer

    async def _changes(
        self,
        request: pb.CalculateStatisticsRequest,
        here: asked.Range,
        groups: list[GroupStatistics],
        job: Job,
    ) -> list[pb.StatisticsChange]:
        there = asked.time_range(request.compare_with, "compare_with")
        first, second = here.closed, there.closed
        if first is None or second is None:
            raise invalid_field("compare_with", "needs both ranges to have a start and an end")
        others = await self._collect(_wanted_statistics(request, there), _collector(request), job, part=(0.5, 1.0))
        now_minutes, then_minutes = ((end - start) / 60e9 for start, end in (first, second))
        percentiles = asked.percentiles(request.percentiles)
        found = await job.compute(
            lambda: compare(groups, others, now_minutes=now_minutes, then_minutes=then_minutes, percentiles=percentiles)
        )
        group_by = tuple(request.group_by) or ("type",)
        return [messages.change(each, group_by) for each in found]

    async def _collect(
        self, wanted: Wanted, collector: StatisticsCollector, job: Job, *, part: tuple[float, float]
    ) -> list[GroupStatistics]:
        """Read what statistics need. part: of all reading and the time for it, from where to where this is."""
        coverage = job.coverage
        begin, end = part
        width = (end - begin) / collector.passes_max
        for number, each in enumerate(collector.passes()):
            left_s = job.reading_left_s(end)
            if number and not left_s:
                break
            if coverage.snapshot_position:
                # All passes are of the same events, whatever is logged meanwhile.
                wanted = replace(wanted, until_position=coverage.snapshot_position + 1)
            here = (begin + number * width, begin + (number + 1) * width)
            reading = self._source.sums(wanted, each.sums, coverage, timeout_s=left_s, part=here)
            async with aclosing(reading) as pieces:
                async for sums in pieces:
                    if not job.reading_left_s(end):
                        coverage.cut("DEADLINE")
                        break
                    coverage.events += 0 if number else int(sums.whole("count").sum())
                    await job.compute(lambda add=each.add, sums=sums: add(sums))  # type: ignore[misc]
        if coverage.partial_reason == "DEADLINE":
            coverage.notes.append(
                "there was no time for all: counts, percentiles and values may be of different events"
            )
        return collector.groups()


def _collector(request: pb.CalculateStatisticsRequest) -> StatisticsCollector:
    if request.top_values > TOP_VALUES_MAX:
        raise invalid_field("top_values", f"is {request.top_values}; it must be at most {TOP_VALUES_MAX}")
    return StatisticsCollector(
        group_by=asked.fields(request.group_by, "group_by") or ("type",),
        duration_field=asked.duration_field(request.duration_field),
        value_fields=asked.fields(request.value_fields, "value_fields"),
        time_zone=request.time_zone or "UTC",
    )


def _wanted_statistics(request: pb.CalculateStatisticsRequest, within: asked.Range) -> Wanted:
    of_type = equals("type", request.event_type) if request.event_type else ""
    return Wanted(request.filters, expressions=(of_type, within.expression()))


def _patterns(
    analysis: Analysis, searched: PatternRequest, values: dict[str, Any], coverage: Coverage
) -> Sequence[Pattern]:
    assert analysis.find_patterns is not None
    if not _begins(analysis, searched.budget, coverage):
        return ()
    searched.parameters = values
    found = analysis.find_patterns(searched)
    if searched.budget.spent():
        coverage.cut("DEADLINE")
    return found


def _with_samples(
    found: Sequence[Pattern], samples: Mapping[int, event_pb2.Event], coverage: Coverage
) -> list[pb.EventPattern]:
    """Patterns with their sample events: all of them or none, for patterns that the answer has room for."""
    patterns, room, without = [], SAMPLE_BYTES_MAX, 0
    for each in found:
        positions = each.samples[:SAMPLE_EVENTS_MAX]
        events = [samples[position] for position in positions if position in samples]
        size = sum(event.ByteSize() for event in events)
        fits = len(events) == len(positions) and size <= room
        room -= size if fits else 0
        without += not fits
        patterns.append(messages.pattern(each, events if fits else ()))
    if without:
        coverage.notes.append(
            f"{without} of {len(patterns)} patterns have no sample events: no room or no time was left"
        )
    return patterns


def _begins(analysis: Analysis, budget: Budget, coverage: Coverage) -> bool:
    """Whether there is time for an analysis; where there is none, the coverage says so. Raises Unwanted."""
    budget.begin(analysis.name)
    if budget.spent():
        coverage.cut("DEADLINE")
        coverage.notes.append(f"time ran out before {analysis.name}")
        return False
    return True


def _incidents(analyses: Sequence[Analysis], events: EventColumns, options: Options, job: Job) -> list[Incident]:
    """Incidents of all analyses; built-in ones are found together, for they explain each other."""
    found: list[Incident] = []
    done: set[object] = set()
    for analysis in analyses:
        find = analysis.find_incidents
        assert find is not None
        if find not in done and _begins(analysis, job.budget, job.coverage):
            done.add(find)
            found += find(events, options)
    return ranked(explained(found))
