"""Metrics of one process: a registry of its own, names that begin with eventlog_, bounded label sets.

Invariants: nothing is registered with prometheus_client's global registry; every label has a bounded set of
values, either by nature (RPC names, status codes) or through BoundedLabel.
Does not serve HTTP; `shared.rpc.server` does.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

NAMESPACE = "eventlog"

# 100 microseconds to 10 seconds: what a call, an fsync and a group commit take.
LATENCY_BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

# The value that stands for all that came after a BoundedLabel was full.
OTHER = "other"


class Metrics:
    """The metrics of one process. Makes them; each has the prefix eventlog_ and is known to `registry`.

    Holds memory, CPU and file descriptors of the process from the start (eventlog_process_…).
    A name may be used once: a second use raises ValueError.
    """

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(namespace=NAMESPACE, registry=self.registry)
        self.gauge("service_info", "Always 1; the label names the service.", ("service",)).labels(service).set(1)

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """Return a new counter, exposed as eventlog_<name>_total."""
        return Counter(name, help_text, labels, namespace=NAMESPACE, registry=self.registry)

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        """Return a new gauge, exposed as eventlog_<name>."""
        return Gauge(name, help_text, labels, namespace=NAMESPACE, registry=self.registry)

    def histogram(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = LATENCY_BUCKETS_S,
    ) -> Histogram:
        """Return a new histogram, exposed as eventlog_<name>_bucket, _sum and _count."""
        return Histogram(name, help_text, labels, namespace=NAMESPACE, registry=self.registry, buckets=tuple(buckets))


class BoundedLabel:
    """Admits the first values_max distinct values of a label and calls the rest "other".

    For values that come from outside, such as event types, of which there may be millions. One task may use it.
    """

    def __init__(self, values_max: int) -> None:
        assert values_max > 0, values_max
        self._values_max = values_max
        self._admitted: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the value itself, or "other" where the set is full."""
        if value in self._admitted:
            return value
        if len(self._admitted) < self._values_max:
            self._admitted.add(value)
            return value
        return OTHER
