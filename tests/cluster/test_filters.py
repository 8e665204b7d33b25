"""The filter language over gRPC: golden cases match what is logged, and refusals carry all that helps."""

import json
from pathlib import Path

import pytest
from eventlog.v1 import event_pb2, ingest_service_pb2, query_service_pb2
from google.protobuf import timestamp_pb2

from shared.events.timestamps import parse_timestamp
from tests.support.cluster import CALL_S_MAX, refused

pytestmark = pytest.mark.cluster

GOLDEN = Path(__file__).parents[1] / "golden" / "filters"
CASES = json.loads((GOLDEN / "cases.json").read_text())
# What the log decides by itself: an empty correlation id is none to it. And what moves with the time of day.
OWN = ("position", "recorded_at", "now()", "id ", "correlation_id")


@pytest.fixture(scope="module")
def cluster(module_cluster):
    """A cluster whose first events are the golden ones."""
    with module_cluster() as cluster:
        events = [new_event(event) for event in CASES["events"]]
        request = ingest_service_pb2.LogBatchRequest(events=events)
        assert cluster.appends.LogBatch(request, timeout=CALL_S_MAX).first_position == 1
        yield cluster


def new_event(event: dict) -> event_pb2.NewEvent:
    seconds, nanos = divmod(parse_timestamp(event["timestamp"]), 10**9)
    return event_pb2.NewEvent(
        timestamp=timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos),
        type=event["type"],
        source=event["source"],
        correlation_id=event["correlation_id"],
        payload_json=event["payload"],
        metadata=event_pb2.EventMetadata(**event["metadata"]),
    )


def matches(cluster, expression: str) -> list[int]:
    filters = event_pb2.EventFilters(expression=expression)
    request = query_service_pb2.ListEventsRequest(selection=query_service_pb2.EventSelection(filters=filters))
    return [event.position for event in cluster.reads.ListEvents(request, timeout=CALL_S_MAX).events]


def test_golden_cases_match_over_grpc(cluster):
    """Those whose answer does not hang on the log's own positions and times."""
    cases = [case for case in CASES["cases"] if not any(word in case["expression"] for word in OWN)]
    assert len(cases) > 250
    for case in cases:
        assert matches(cluster, case["expression"]) == case["matches"], case["expression"]


def test_refusal_carries_all_that_helps(cluster):
    """Reason, field, line, column, excerpt, what was expected and what was meant; BadRequest names the field."""
    with refused("INVALID_FILTER") as refusal:
        matches(cluster, "payload.a = 1\nAND timestmp > '2024-01-20'")
    metadata = refusal.error.metadata
    assert (metadata["field"], metadata["line"], metadata["column"]) == ("selection.filters.expression", "2", "5")
    assert (metadata["suggestion"], metadata["excerpt"]) == (
        "timestamp",
        "AND timestmp > '2024-01-20'\n    ^^^^^^^^",
    )
    assert "timestamp" in metadata["expected"]
    assert [violation.field for violation in refusal.error.violations] == ["selection.filters.expression"]


@pytest.mark.parametrize(
    "limit", json.loads((GOLDEN / "limits.json").read_text())["limits"], ids=lambda each: each["reason"]
)
def test_limit_has_its_own_reason_over_grpc(cluster, limit):
    """What fits is answered, one more is refused with the reason and the maximum."""
    fits, exceeds = ("".join(text * count for text, count in limit[name]) for name in ("fits", "exceeds"))
    matches(cluster, fits)
    with refused(limit["reason"]) as refusal:
        matches(cluster, exceeds)
    assert refusal.error.metadata["limit"] == str(limit["limit"])
