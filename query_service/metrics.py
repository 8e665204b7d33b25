"""What the query service counts: answers by kind, what they read and skipped, and what its caches hold."""

from collections.abc import Callable

from prometheus_client import Gauge

from query_service.reading import Costs
from shared.telemetry.metrics import Metrics

_KINDS = ("get", "list", "query", "count", "aggregate", "scan", "export", "explain")


class LaneMetrics:
    """The metrics of one lane."""

    def __init__(self, *, calls: Gauge, running: Gauge) -> None:
        self.calls = calls
        self.running = running


class QueryMetrics:
    """The metrics of the query service."""

    def __init__(self, metrics: Metrics) -> None:
        kind = ("kind",)
        self.duration = metrics.histogram(
            "query_duration_seconds", "Time from the request to the end of the answer.", kind
        )
        self._matched = metrics.counter("query_matched_events", "Events that matched.", kind)
        self._scanned = metrics.counter("query_scanned_events", "Positions looked at.", kind)
        self._matched_bytes = metrics.counter(
            "query_matched_bytes", "Bytes in memory of the events that matched.", kind
        )
        self._scanned_bytes = metrics.counter("query_scanned_bytes", "Bytes in memory of the events looked at.", kind)
        self._read = metrics.counter("query_read_segments", "Segments opened.", kind)
        self._pruned = metrics.counter("query_pruned_segments", "Segments not opened.", kind)
        self._partial = metrics.counter("query_partial_answers", "Answers cut short, by reason.", ("kind", "reason"))
        self.slow = metrics.counter("query_slow_answers", "Answers that took longer than query.slow_query.", kind)
        self._lane_calls = metrics.gauge("query_calls", "Calls admitted to a lane, running or waiting.", ("lane",))
        self._lane_running = metrics.gauge("query_running_steps", "Steps of calls that run in a lane.", ("lane",))
        self._hits = metrics.gauge("query_cache_hits", "Look-ups that a cache answered since the start.", ("cache",))
        self._misses = metrics.gauge("query_cache_misses", "Look-ups that a cache did not answer.", ("cache",))
        self._weight = metrics.gauge("query_cache_weight", "What a cache holds: bytes, or entries.", ("cache",))
        for each in _KINDS:
            self.duration.labels(each)

    def lane(self, name: str) -> LaneMetrics:
        """The metrics of a lane."""
        return LaneMetrics(calls=self._lane_calls.labels(name), running=self._lane_running.labels(name))

    def watch_cache(
        self, name: str, *, hits: Callable[[], int], misses: Callable[[], int], weight: Callable[[], int]
    ) -> None:
        """Report on a cache whenever the metrics are read."""
        self._hits.labels(name).set_function(hits)
        self._misses.labels(name).set_function(misses)
        self._weight.labels(name).set_function(weight)

    def observe(self, kind: str, seconds: float, costs: Costs, partial_reason: str) -> None:
        """Count an answer."""
        self.duration.labels(kind).observe(seconds)
        self._matched.labels(kind).inc(costs.matched_events)
        self._scanned.labels(kind).inc(costs.scanned_events)
        self._matched_bytes.labels(kind).inc(costs.matched_bytes)
        self._scanned_bytes.labels(kind).inc(costs.scanned_bytes)
        self._read.labels(kind).inc(costs.read_segments)
        self._pruned.labels(kind).inc(costs.pruned_segments)
        if partial_reason:
            self._partial.labels(kind, partial_reason).inc()
