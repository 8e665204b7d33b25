"""A minute of batches as fast as they are taken, with rotation and sealing going on: rate, memory, slowest answer."""

import statistics
from collections.abc import Mapping

from tests.benchmarks.bench import Bench, Case
from tests.benchmarks.ingest import describe, ingest, log_batches
from tests.benchmarks.log_directory import list_log
from tests.benchmarks.report import Outcome, RowSpec

_SECONDS = 60.0
# Memory flat: what it grows by after the first quarter, which fills pools and caches.
_GROWTH_MB_MAX = 32
# Rotation and sealing never stop the acknowledgements for longer.
_ACK_MS_MAX = 250
_REPORT_EVERY_S = 10


def _measure(bench: Bench) -> Mapping[str, Outcome]:
    rss_mb: list[float] = []
    with bench.scratch("sustained") as directory, ingest(directory) as service:

        def each_second(acknowledged: int) -> None:
            rss_mb.append(service.rss_mb())
            if len(rss_mb) % _REPORT_EVERY_S == 0:
                bench.progress(f"{acknowledged:,} events after {len(rss_mb)} s; ingest has {rss_mb[-1]:.0f} MB")

        result = log_batches(bench, service, seconds=bench.seconds(_SECONDS), each_second=each_second)
        unsealed = list_log(directory / "log").log_files - 1
    assert result.last_position == result.events, "every event acknowledged has a position, and no other has"
    bench.progress(describe(result))
    quarter = max(1, len(rss_mb) // 4)
    return {
        "log_sustained_events_per_s": result.events_per_s,
        "log_sustained_rss_growth_mb": statistics.median(rss_mb[-quarter:])
        - statistics.median(rss_mb[quarter : 2 * quarter] or rss_mb),
        "log_sustained_slowest_ack_ms": result.ack_slowest_ms,
        "log_sustained_unsealed_segments": unsealed,
    }


SUSTAINED = Case(
    rows=(
        RowSpec("log_sustained_events_per_s", "events/s", target=120_000),
        RowSpec("log_sustained_rss_growth_mb", "MB", target=_GROWTH_MB_MAX, at_most=True),
        RowSpec("log_sustained_slowest_ack_ms", "ms", target=_ACK_MS_MAX, at_most=True),
        # Left to seal at the end: more than a few mean that sealing does not keep up.
        RowSpec("log_sustained_unsealed_segments", "segments"),
    ),
    measure=_measure,
)
