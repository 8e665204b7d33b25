"""Registries, names and label sets of metrics."""

import pytest
from prometheus_client import REGISTRY, generate_latest

from shared.telemetry.metrics import BoundedLabel, Metrics
from shared.telemetry.rpc_metrics import RpcMetrics


def test_metrics_have_the_prefix_and_a_registry_of_their_own():
    """Counters, gauges and histograms are named eventlog_…, and the global registry knows nothing of them."""
    metrics = Metrics("test_service")
    metrics.counter("things", "Things.", ("kind",)).labels("a").inc(2)
    metrics.gauge("depth", "Depth.").set(3)
    metrics.histogram("wait_seconds", "Wait.", buckets=(1, 2)).observe(1.5)
    value = metrics.registry.get_sample_value
    assert value("eventlog_things_total", {"kind": "a"}) == 2
    assert value("eventlog_depth") == 3
    assert [value("eventlog_wait_seconds_bucket", {"le": le}) for le in ("1.0", "2.0", "+Inf")] == [0, 1, 1]
    assert b"eventlog_things" not in generate_latest(REGISTRY)


def test_two_processes_worth_of_metrics_do_not_meet():
    """The same names may be used in two Metrics, and not twice in one."""
    first, second = Metrics("a"), Metrics("b")
    first.counter("things", "Things.").inc()
    second.counter("things", "Things.")
    assert second.registry.get_sample_value("eventlog_things_total") == 0
    with pytest.raises(ValueError, match="things"):
        first.counter("things", "Things.")


def test_process_metrics_are_there():
    """Memory, CPU and file descriptors of this process."""
    value = Metrics("a").registry.get_sample_value
    assert value("eventlog_process_resident_memory_bytes") > 1_000_000
    assert value("eventlog_process_cpu_seconds_total") > 0
    assert value("eventlog_process_open_fds") > 2


def test_bounded_label_calls_the_rest_other():
    """The first values keep their names, also later; the number of values stays bounded."""
    label = BoundedLabel(2)
    assert [label(each) for each in ("a", "b", "c", "a", "d", "b")] == ["a", "b", "other", "a", "other", "b"]


def test_calls_are_counted():
    """A call is in flight until it ended; then it counts by code, by reason, and in the histogram."""
    metrics = Metrics("a")
    method = RpcMetrics(metrics).of("test.v1.Service", "Say")
    value = metrics.registry.get_sample_value
    labels = {"service": "test.v1.Service", "method": "Say"}
    method.began()
    method.began()
    assert value("eventlog_rpc_in_flight", labels) == 2
    method.ended(code="OK", reason=None, seconds=0.5)
    method.ended(code="ABORTED", reason="EXPECTED_POSITION_MISMATCH", seconds=0.25)
    assert value("eventlog_rpc_in_flight", labels) == 0
    assert value("eventlog_rpc_duration_seconds_sum", labels) == 0.75
    assert [value("eventlog_rpc_requests_total", {**labels, "code": code}) for code in ("OK", "ABORTED")] == [1, 1]
    reason = {**labels, "reason": "EXPECTED_POSITION_MISMATCH"}
    assert value("eventlog_rpc_errors_total", reason) == 1
