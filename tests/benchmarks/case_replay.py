"""History to one consumer over gRPC, from the log on disk.

How fast as an unpaced replay, how fast to a subscription that catches up, how true to time at 100 times the pace.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import grpc
import numpy as np
from eventlog.v1 import event_pb2, ingest_service_pb2, log_admin_service_pb2, stream_service_pb2
from eventlog.v1.log_admin_service_pb2_grpc import LogAdminServiceStub
from eventlog.v1.stream_service_pb2_grpc import StreamServiceStub

from shared.rpc.channel import connect_sync
from tests.benchmarks.bench import Bench, Case
from tests.benchmarks.ingest import BATCHES, ingest, log_batches
from tests.benchmarks.report import Outcome, RowSpec
from tests.support.service_process import ServiceProcess

_CALL_S_MAX = 600
_ATTEMPTS = 3
_POLL_S = 0.1
# Events whose gaps are random, 50 ms on average: 2,000 a second at SPEED.
_TIMED_EVENTS = 20_000
_GAP_NS = 50_000_000
_SPEED = 100.0
_START_NS = 1_700_000_000 * 10**9
# The first bytes of a SubscribeResponse: that it holds events, and that history is read.
_EVENTS_TAG, _CAUGHT_UP_TAG = 0x12, 0x1A


def _measure_history(bench: Bench) -> Mapping[str, Outcome]:
    with bench.scratch("replay") as directory, ingest(directory) as log:
        loaded = log_batches(bench, log, seconds=_CALL_S_MAX, warm_up_s=0.0, requests_max=bench.count(BATCHES))
        events = loaded.last_position
        bench.progress(f"logged {events:,} events; sealing them")
        _seal(log)
        bench.progress(f"replaying them, and catching up with them, {_ATTEMPTS} times each")
        with _stream_service(directory) as channel:
            replay_s = min(_unpaced(channel, events) for _ in range(_ATTEMPTS))
            catch_up_s = min(_catch_up(channel, events) for _ in range(_ATTEMPTS))
    return {"replay_unpaced_events_per_s": events / replay_s, "catch_up_events_per_s": events / catch_up_s}


def _measure_timing(bench: Bench) -> Mapping[str, Outcome]:
    with bench.scratch("replay") as directory, ingest(directory) as log:
        _log_timed(log, bench.count(_TIMED_EVENTS))
        with _stream_service(directory) as channel:
            errors_ms = _timing_errors_ms(channel)
    bench.progress(f"{len(errors_ms):,} events; median {np.median(errors_ms):.2f} ms, worst {errors_ms.max():.2f} ms")
    return {"replay_100x_timing_error_p99_ms": float(np.percentile(errors_ms, 99))}


@contextmanager
def _stream_service(directory: Path) -> Iterator[grpc.Channel]:
    """Run the query and the stream service on the log in directory/"log"; yields a channel to the latter."""
    storage = {"base_path": str(directory / "log")}
    replay = {"checkpoint_dir": str(directory / "checkpoints")}
    with ServiceProcess("query_service", directory, settings={"storage": storage}) as query:
        settings = {"streaming": {"query_address": query.address}, "replay": replay}
        with (
            ServiceProcess("stream_service", directory, settings=settings) as stream,
            connect_sync(stream.address) as channel,
        ):
            yield channel


def _unpaced(channel: grpc.Channel, events: int) -> float:
    """Seconds of a replay of the whole log, from the call to its end. It only takes bytes."""
    replay: Callable[..., Iterable[bytes]] = channel.unary_stream(
        "/eventlog.v1.StreamService/Replay",
        request_serializer=stream_service_pb2.ReplayRequest.SerializeToString,
        response_deserializer=None,
    )
    started_s = monotonic()
    *_, last_events, closing = replay(stream_service_pb2.ReplayRequest(speed=0.0), timeout=_CALL_S_MAX)
    seconds = monotonic() - started_s
    assert stream_service_pb2.ReplayResponse.FromString(closing).closing.reason == "COMPLETED"
    assert stream_service_pb2.ReplayResponse.FromString(last_events).events.events[-1].position == events
    return seconds


def _catch_up(channel: grpc.Channel, events: int) -> float:
    """Seconds of a subscription from the earliest event until it has caught up. It only takes bytes."""
    subscribe: Callable[..., Any] = channel.unary_stream(
        "/eventlog.v1.StreamService/Subscribe",
        request_serializer=stream_service_pb2.SubscribeRequest.SerializeToString,
        response_deserializer=None,
    )
    request = stream_service_pb2.SubscribeRequest(start=stream_service_pb2.StreamStart(earliest=True))
    started_s = monotonic()
    messages = subscribe(request, timeout=_CALL_S_MAX)
    last_events = b""
    for message in messages:
        if message[0] == _CAUGHT_UP_TAG:
            break
        if message[0] == _EVENTS_TAG:
            last_events = message
    seconds = monotonic() - started_s
    messages.cancel()
    assert stream_service_pb2.SubscribeResponse.FromString(last_events).events.events[-1].position == events
    return seconds


def _seal(log: ServiceProcess) -> None:
    """Rotate the log, and wait until everything is sealed."""
    with connect_sync(log.address) as channel:
        admin = LogAdminServiceStub(channel)
        admin.RotateLog(log_admin_service_pb2.RotateLogRequest(), timeout=_CALL_S_MAX)
        while admin.GetLogStatus(log_admin_service_pb2.GetLogStatusRequest(), timeout=_CALL_S_MAX).unsealed_segments:
            sleep(_POLL_S)


def _log_timed(log: ServiceProcess, count: int) -> None:
    gaps = np.random.default_rng(1).exponential(_GAP_NS, count).astype(np.int64)
    events = []
    for time_ns in (_START_NS + np.cumsum(gaps)).tolist():
        event = event_pb2.NewEvent(type="bench.timed", payload_json='{"stage":"extraction","items":10}')
        event.timestamp.FromNanoseconds(time_ns)
        events.append(event)
    with connect_sync(log.address) as channel:
        log_batch = channel.unary_unary(
            "/eventlog.v1.IngestService/LogBatch",
            request_serializer=ingest_service_pb2.LogBatchRequest.SerializeToString,
            response_deserializer=None,
        )
        for at in range(0, count, 5_000):
            log_batch(ingest_service_pb2.LogBatchRequest(events=events[at : at + 5_000]), timeout=_CALL_S_MAX)


def _timing_errors_ms(channel: grpc.Channel) -> np.ndarray:
    """How far from its place each event comes, measured at the consumer against the first event."""
    times_ns, arrived_s = [], []
    request = stream_service_pb2.ReplayRequest(speed=_SPEED)
    for message in StreamServiceStub(channel).Replay(request, timeout=_CALL_S_MAX):
        now_s = monotonic()
        times_ns += [event.timestamp.ToNanoseconds() for event in message.events.events]
        arrived_s += [now_s] * len(message.events.events)
    due_s = arrived_s[0] + (np.array(times_ns) - times_ns[0]) / 1e9 / _SPEED
    return np.abs(np.array(arrived_s) - due_s) * 1000


HISTORY = Case(
    rows=(
        RowSpec("replay_unpaced_events_per_s", "events/s", target=200_000),
        RowSpec("catch_up_events_per_s", "events/s", target=200_000),
    ),
    measure=_measure_history,
)
TIMING = Case(
    rows=(RowSpec("replay_100x_timing_error_p99_ms", "ms", target=5, at_most=True),),
    measure=_measure_timing,
)
