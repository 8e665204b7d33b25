"""Watches the log while a burst of events is logged, and prints the incident that the analysis service tells of."""

import time
from collections.abc import Iterable
from random import Random

import grpc
from eventlog.v1 import analysis_service_pb2, event_pb2, ingest_service_pb2
from eventlog.v1.analysis_service_pb2_grpc import AnalysisServiceStub
from eventlog.v1.ingest_service_pb2_grpc import IngestServiceStub

from shared.clock import SystemClock
from shared.rpc.channel import connect_sync

_SOURCE = "demo-web"
_SECOND_NS = 1_000_000_000
_QUIET_EVENTS, _QUIET_S = 3_000, 6 * 3600
_BURST_EVENTS, _BURST_S, _LATER_S = 1_200, 60, 300
_TIMEOUT_S = 20.0
_WIDTH = 110


def watch_a_burst(ingest_address: str, analysis_address: str) -> list[str]:
    """Log quiet hours, watch, log a burst. Returns what was wrong, in words. Raises grpc.RpcError."""
    with connect_sync(ingest_address) as ingest, connect_sync(analysis_address) as analysis:
        return _watch(IngestServiceStub(ingest), AnalysisServiceStub(analysis))


def _watch(log: IngestServiceStub, analysis: AnalysisServiceStub) -> list[str]:
    now_ns, random = SystemClock().now_ns(), Random(1)  # noqa: S311 — no secret, made-up times
    _log(log, [now_ns - int((180 + random.random() * _QUIET_S) * _SECOND_NS) for _ in range(_QUIET_EVENTS)])
    filters = event_pb2.EventFilters(sources=[_SOURCE])
    request = analysis_service_pb2.WatchAnomaliesRequest(filters=filters, analyses=["rate"])
    messages = analysis.WatchAnomalies(request, timeout=_TIMEOUT_S)
    # The first one comes when history is learnt.
    next(messages)
    started = time.perf_counter()
    # Times to come, so that what settles them comes at once too.
    burst = [now_ns + number * _BURST_S * _SECOND_NS // _BURST_EVENTS for number in range(_BURST_EVENTS)]
    _log(log, [*burst, now_ns + _LATER_S * _SECOND_NS])
    try:
        found = next(each for message in messages for each in message.anomalies)
    except grpc.RpcError as failure:
        return [f"nobody told of the burst within {_TIMEOUT_S:.0f} s: {failure}"]
    finally:
        messages.cancel()
    took_s = time.perf_counter() - started
    print(f"\nwatching while {_BURST_EVENTS:,} requests come in a minute; told {took_s:.1f} s after they were logged:")
    print(f"  {found.description}"[:_WIDTH])
    return [] if found.anomaly_type == "rate" else [f"the burst was told as {found.anomaly_type}"]


def _log(log: IngestServiceStub, times_ns: Iterable[int]) -> None:
    events = []
    for time_ns in times_ns:
        event = event_pb2.NewEvent(type="request.served", source=_SOURCE, payload_json="{}")
        event.timestamp.FromNanoseconds(time_ns)
        events.append(event)
    log.LogBatch(ingest_service_pb2.LogBatchRequest(events=events), timeout=_TIMEOUT_S)
