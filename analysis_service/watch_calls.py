"""WatchAnomalies: follows the log and tells what changes among the incidents.

History of the baseline window teaches the detectors first; incidents of it that are over are not told. Then what was
committed since is read every POLL_S, and judged when it has settled.
"""

import asyncio
import math
from collections.abc import AsyncIterator

from eventlog.v1 import analysis_service_pb2 as pb

from analysis_service import asked, messages
from analysis_service.anomalies.detect import AnomalyDetector, Options
from analysis_service.anomalies.incident import Incident
from analysis_service.coverage import Coverage
from analysis_service.desk import Job
from analysis_service.log_source import LogSource, Wanted
from analysis_service.registry import chosen
from analysis_service.scan_columns import ScanColumns
from shared.clock import Clock
from shared.config.model import AnalysisConfig
from shared.errors import EventException, invalid_field

POLL_S = 1.0
HEARTBEAT_S = 5.0
_TOLD_MAX = 10_000
_DAY_S = 86_400.0
_LATENESS_S, _LATENESS_S_MAX = 60.0, 3600.0
_READING_S = 60.0


class WatchCalls:
    """The rules of one RPC. One for all calls; belongs to one event loop."""

    def __init__(self, source: LogSource, config: AnalysisConfig, clock: Clock) -> None:
        self._source = source
        self._config = config
        self._clock = clock

    async def watch(
        self, request: pb.WatchAnomaliesRequest, job: Job, draining: asyncio.Event
    ) -> AsyncIterator[pb.WatchAnomaliesResponse]:
        """Tell incidents until the call is cancelled or the service drains."""
        options = self._options(request)
        detector = AnomalyDetector(options)
        columns = ScanColumns(["correlation_id", "metadata.host"], numbers=options.value_fields)
        since = Wanted(request.filters, columns, (asked.Range(options.start_ns, None).expression(),))
        coverage = await self._read_on(since, detector, job)
        told = {_key(each): _state(each) for each in await job.compute(detector.incidents) if not each.ongoing}
        position, silent_s, first = coverage.snapshot_position, 0.0, True
        while not draining.is_set():
            changed = [each for each in await job.compute(detector.incidents) if told.get(_key(each)) != _state(each)]
            if changed or first or silent_s >= HEARTBEAT_S:
                told.update((_key(each), _state(each)) for each in changed)
                while len(told) > _TOLD_MAX:
                    del told[next(iter(told))]
                silent_s, first = 0.0, False
                yield self._message(changed, position, detector)
            try:
                async with asyncio.timeout(POLL_S):
                    await draining.wait()
            except TimeoutError:
                silent_s += POLL_S
            following = Wanted(request.filters, columns, from_position=position + 1)
            coverage = await self._read_on(following, detector, job)
            position = max(position, coverage.snapshot_position)

    def _options(self, request: pb.WatchAnomaliesRequest) -> Options:
        analyses = chosen(tuple(request.analyses), "anomaly")
        length_s = asked.window(request.baseline_window, _DAY_S, "baseline_window")
        lateness_s = asked.window(request.lateness, _LATENESS_S, "lateness")
        if lateness_s > _LATENESS_S_MAX:
            raise invalid_field("lateness", f"is {lateness_s:g} s; it must be at most {_LATENESS_S_MAX:.0f} s")
        return Options(
            self._clock.now_ns() - round(length_s * 1e9),
            None,
            sensitivity=asked.sensitivity(request, self._config.anomaly_sensitivity),
            kinds=tuple(each.name for each in analyses),
            value_fields=asked.value_fields(request.value_fields),
            lateness_ns=round(lateness_s * 1e9),
        )

    async def _read_on(self, wanted: Wanted, detector: AnomalyDetector, job: Job) -> Coverage:
        coverage = Coverage()
        events = await self._source.events(wanted, coverage, timeout_s=_READING_S)
        if coverage.partial_reason == "DAMAGE":
            raise EventException("the log has damage there: see VerifyLog", reason="LOG_CORRUPTED")
        if coverage.partial_reason:
            # What is missing is read in the next round.
            coverage.snapshot_position = int(events.positions[-1]) if len(events) else 0
        now_ns = self._clock.now_ns()

        def judge() -> None:
            detector.advance(events)
            detector.pass_time(now_ns)

        await job.compute(judge)
        return coverage

    def _message(self, changed: list[Incident], position: int, detector: AnomalyDetector) -> pb.WatchAnomaliesResponse:
        return pb.WatchAnomaliesResponse(
            anomalies=[messages.anomaly(each, incident_id=_key(each)) for each in changed],
            position=position,
            head_position=position,
            late_events=detector.late_events,
            server_time=messages.timestamp(self._clock.now_ns()),
        )


def _key(incident: Incident) -> str:
    return f"{incident.kind}-{incident.start_ns}-{'-'.join(incident.types[:1])}"


def _state(incident: Incident) -> tuple[int, int, bool]:
    """What of an incident is worth telling again: that it grew by a quarter, its end by the minute, that it is over."""
    grown = math.floor(math.log(incident.strength) / math.log(1.25)) if incident.strength > 0 else 0
    end = 0 if incident.ongoing and incident.kind == "missing" else incident.end_ns // 60_000_000_000
    return grown, end, incident.ongoing
