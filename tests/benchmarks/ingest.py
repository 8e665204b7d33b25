"""The ingest service as benchmarks use it: a process of its own on a log of its own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.load import LoadPlan, LoadResult, run_load
from tests.benchmarks.requests import prepared_requests
from tests.support.service_process import ServiceProcess

BATCH_EVENTS = 500
BATCHES_IN_FLIGHT = 64
# One segment of distinct events: rotation is at a million.
BATCHES = 2_000


@contextmanager
def ingest(directory: Path, *, storage: Mapping[str, Any] | None = None) -> Iterator[ServiceProcess]:
    """Run an ingest service on the log in directory/"log", with the default configuration but for `storage`."""
    settings = {"storage": {"base_path": str(directory / "log"), **(storage or {})}}
    with ServiceProcess("ingest_service", directory, settings=settings) as service:
        yield service


def batch_requests(bench: Bench) -> Path:
    """Return the requests of BATCH_EVENTS distinct events each; fewer in a quick run."""
    return prepared_requests(bench.directory, requests=bench.count(BATCHES), events_per_request=BATCH_EVENTS)


def log_batches(
    bench: Bench,
    service: ServiceProcess,
    *,
    seconds: float,
    warm_up_s: float = 1.0,
    requests_max: int | None = None,
    each_second: Callable[[int], None] | None = None,
) -> LoadResult:
    """Log batches of BATCH_EVENTS, BATCHES_IN_FLIGHT at a time."""
    plan = LoadPlan(
        address=service.address,
        method="LogBatch",
        requests_file=str(batch_requests(bench)),
        in_flight=BATCHES_IN_FLIGHT,
        seconds=seconds,
        warm_up_s=warm_up_s,
        requests_max=requests_max,
    )
    return run_load(plan, each_second=each_second)


def describe(result: LoadResult) -> str:
    """Say in a line how a load went."""
    return (
        f"{result.events_per_s:,.0f} events/s; acknowledged in {result.ack_p50_ms:.1f} ms (p50), "
        f"{result.ack_p99_ms:.1f} ms (p99), {result.ack_slowest_ms:.0f} ms (slowest); "
        f"client {result.client_cpu_us_per_event:.2f} µs/event"
    )
