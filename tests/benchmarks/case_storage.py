"""What events take on disk, how fast a log comes back after a crash, and what an idle service takes."""

import shutil
import statistics
import time
from collections.abc import Mapping

import grpc
import pyarrow as pa
from eventlog.v1 import log_admin_service_pb2, log_admin_service_pb2_grpc

from shared.events.document import to_document
from shared.events.ids import format_event_id
from shared.events.model import EventMetadata, ExactEvent
from tests.benchmarks.bench import Bench, Case
from tests.benchmarks.ingest import BATCH_EVENTS, BATCHES, ingest, log_batches
from tests.benchmarks.log_directory import list_log, wait_until_sealed
from tests.benchmarks.report import Outcome, RowSpec
from tests.benchmarks.requests import SEED
from tests.support.reference_events import reference_batch
from tests.support.service_process import ServiceProcess

_MB = 1_000_000
_RECOVERED_BYTES = 100 * _MB
_RESTARTS = 3
_IDLE_S = 5.0
_PATIENCE_S = 120.0
_JSON_SAMPLE = 20_000


def _measure_sealed(bench: Bench) -> Mapping[str, Outcome]:
    batches = bench.count(BATCHES)
    with bench.scratch("sealed") as directory, ingest(directory) as service:
        # Each batch once: the events are all distinct.
        result = log_batches(bench, service, seconds=_PATIENCE_S, warm_up_s=0.0, requests_max=batches)
        assert result.events == batches * BATCH_EVENTS, "all batches are logged"
        log_id = _rotate(service)
        listing = wait_until_sealed(directory / "log")
    assert listing.sealed_events == result.events, "all events are sealed"
    sealed = listing.sealed_bytes / listing.sealed_events
    json = _json_bytes(log_id)
    bench.progress(f"{listing.sealed_events:,} events: {sealed:.2f} bytes each sealed, {json:.0f} as JSON lines")
    return {"sealed_bytes_per_event": sealed, "json_to_sealed_ratio": json / sealed}


def _rotate(service: ServiceProcess) -> str:
    """Rotate the log; return its id."""
    with grpc.insecure_channel(service.address) as channel:
        admin = log_admin_service_pb2_grpc.LogAdminServiceStub(channel)
        admin.RotateLog(log_admin_service_pb2.RotateLogRequest(), timeout=_PATIENCE_S)
        return admin.GetLogStatus(log_admin_service_pb2.GetLogStatusRequest(), timeout=_PATIENCE_S).log_id


def _json_bytes(log_id: str) -> float:
    """Mean bytes of an event as a line of JSON in the specification's document form."""
    events = reference_batch(_JSON_SAMPLE, SEED, 1)
    return statistics.fmean(len(to_document(event)) + 1 for event in _as_events(events, log_id))


def _as_events(events: pa.RecordBatch, log_id: str) -> list[ExactEvent]:
    names = ["position", "timestamp", "type", "source", "correlation_id", "payload"]
    names += ["host", "version", "user", "session_id", "tags"]
    columns = [(events[name].cast(pa.int64()) if name == "timestamp" else events[name]).to_pylist() for name in names]
    return [
        ExactEvent(
            id=format_event_id(log_id, position),
            timestamp_ns=timestamp,
            type=kind,
            source=source,
            correlation_id=correlation_id,
            payload_json=payload,
            metadata=EventMetadata(host=host, version=version, user=user, session_id=session_id, tags=tags),
        )
        for position, timestamp, kind, source, correlation_id, payload, host, version, user, session_id, tags in zip(
            *columns, strict=True
        )
    ]


def _measure_recovery(bench: Bench) -> Mapping[str, Outcome]:
    # One segment, however long: only its recovery is measured.
    storage = {"rotation": {"max_size": "1GB", "max_events": 100_000_000}}
    size = bench.count(_RECOVERED_BYTES)
    with bench.scratch("recovery") as directory, ingest(directory, storage=storage) as service:
        log = directory / "log"
        while list_log(log).log_bytes < size:
            log_batches(bench, service, seconds=_PATIENCE_S, warm_up_s=0.0, requests_max=bench.count(500))
        service.kill()
        crashed = directory / "crashed"
        shutil.copytree(log, crashed)
        before = list_log(crashed)
        assert before.log_files == 1, "all events are in the active segment"
        times = []
        for _ in range(_RESTARTS):
            # The same again each time: once it runs, the service seals what it has recovered.
            shutil.rmtree(log)
            shutil.copytree(crashed, log)
            service.start()
            times.append(service.startup_s)
            service.kill()
            bench.progress(
                f"serving {service.startup_s:.2f} s after the start, {before.log_bytes / _MB:.0f} MB recovered"
            )
    return {"recovery_100mb_s": statistics.median(times)}


def _measure_idle(bench: Bench) -> Mapping[str, Outcome]:
    with bench.scratch("idle") as directory, ingest(directory) as service:
        time.sleep(bench.seconds(_IDLE_S))
        return {"ingest_idle_rss_mb": service.tree_rss_mb()}


SEALED = Case(
    rows=(
        RowSpec("sealed_bytes_per_event", "bytes", target=23, at_most=True),
        RowSpec("json_to_sealed_ratio", "x", target=15),
    ),
    measure=_measure_sealed,
)
RECOVERY = Case(rows=(RowSpec("recovery_100mb_s", "s", target=2, at_most=True),), measure=_measure_recovery)
IDLE = Case(rows=(RowSpec("ingest_idle_rss_mb", "MB", target=150, at_most=True),), measure=_measure_idle)
