"""A day of events that come independently of each other, more of them by day than by night."""

import numpy as np
import pyarrow as pa

from analysis_service.columns import EventColumns

_MINUTE_NS, _MINUTES = 60_000_000_000, 1440
_TYPES, _SOURCES = 10, 4


def rhythmic_events(start_ns: int, *, seed: int, a_minute: float, swing: float) -> EventColumns:
    """Ten types of four sources, some frequent, some rare; together a_minute events a minute on the average.

    swing: how far the rate goes up and down, as a share of it.
    """
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(_TYPES, 2.0))
    rhythm = a_minute * (1 + swing * np.sin(np.arange(_MINUTES) / _MINUTES * 2 * np.pi))
    counts = random.poisson(np.outer(shares, rhythm))
    kinds, minutes = (np.repeat(each, counts.ravel()) for each in np.indices(counts.shape).reshape(2, -1))
    times = start_ns + minutes * _MINUTE_NS + random.integers(0, _MINUTE_NS, len(minutes))
    order = np.argsort(times, kind="stable")
    columns = {
        "position": pa.array(np.arange(1, len(times) + 1), pa.uint64()),
        "timestamp": pa.array(times[order], pa.timestamp("ns", tz="UTC")),
        "type": pa.array([f"request.{kind}" for kind in kinds[order]]),
        "source": pa.array([f"service{kind % _SOURCES}" for kind in kinds[order]]),
        "correlation_id": pa.array([f"case{number // 5}" for number in range(len(times))]),
    }
    return EventColumns(pa.table(columns))
