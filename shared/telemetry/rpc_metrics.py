"""What every RPC counts: requests by code, errors by reason, latency, calls in flight, bytes of messages.

Invariant: as many label sets as there are RPCs, times the 17 status codes, or the reasons of ErrorReason.
"""

from prometheus_client import Counter

from shared.telemetry.metrics import Metrics


class RpcMetrics:
    """The RPC metrics of one process. Make one for each Metrics."""

    def __init__(self, metrics: Metrics) -> None:
        labels = ("service", "method")
        self.requests = metrics.counter("rpc_requests", "Finished calls, by status code.", (*labels, "code"))
        self.errors = metrics.counter("rpc_errors", "Failed calls, by reason.", (*labels, "reason"))
        self.duration = metrics.histogram(
            "rpc_duration_seconds", "From the start of a call to its end; of a stream, its whole life.", labels
        )
        self.in_flight = metrics.gauge("rpc_in_flight", "Calls that have begun and not ended.", labels)
        self.received = metrics.counter("rpc_received_bytes", "Bytes of request messages.", labels)
        self.sent = metrics.counter("rpc_sent_bytes", "Bytes of response messages.", labels)

    def of(self, service: str, method: str) -> "MethodMetrics":
        """Return the metrics of one RPC: full name of its service, its own name."""
        return MethodMetrics(self, service, method)


class MethodMetrics:
    """The metrics of one RPC, looked up once, so that a call costs additions only."""

    def __init__(self, metrics: RpcMetrics, service: str, method: str) -> None:
        self._labels = (service, method)
        self._requests = metrics.requests
        self._errors = metrics.errors
        self._by_code: dict[str, Counter] = {}
        self._duration = metrics.duration.labels(service, method)
        self._in_flight = metrics.in_flight.labels(service, method)
        self.received_bytes = metrics.received.labels(service, method).inc
        self.sent_bytes = metrics.sent.labels(service, method).inc

    def began(self) -> None:
        """Count a call as in flight."""
        self._in_flight.inc()

    def ended(self, *, code: str, reason: str | None, seconds: float) -> None:
        """Count the end of a call: name of its status code, reason where it failed with one, duration."""
        self._in_flight.dec()
        self._duration.observe(seconds)
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._requests.labels(*self._labels, code)
        counter.inc()
        if reason is not None:
            self._errors.labels(*self._labels, reason).inc()
