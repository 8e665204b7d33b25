"""What the demo asks of the log, and what it should answer: the same filters, evaluated here over what was logged."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from eventlog.v1 import event_pb2

from deploy.demo.producer import Acknowledged
from shared.clock import Clock
from shared.filters.live_event import LiveEvent
from shared.filters.parser import parse_filter
from shared.filters.predicate import compile_predicate

_NANOS_PER_SECOND = 1_000_000_000


class Question(NamedTuple):
    """What somebody wants to know, and the filter that asks it."""

    text: str
    expression: str


REAL = (
    Question(
        "who read the memory of lsass, as password thieves do",
        "type = 'microsoft_windows_sysmon_operational.10' AND payload.TargetImage ILIKE '*lsass.exe'",
    ),
    Question("logons over the network", "type = 'security.4624' AND payload.LogonType IN ('3', 3)"),
    Question(
        "connections to unusual ports",
        "EXISTS payload.DestinationPort AND NOT payload.DestinationPort IN ('53', '80', '88', '389', '443', '445')",
    ),
    Question("slow spans of the shop", "type LIKE 'span.*' AND payload.duration_ms > 100"),
    Question("one trace", "correlation_id = '8b51e36eaee3265bec099d0c5c63fd37'"),
    Question("one minute of the shop", "timestamp >= '2022-08-22T03:55:00' AND timestamp < '2022-08-22T03:56:00'"),
    Question("somebody guesses root's password", "payload.message CONTAINS 'Failed password for root'"),
    Question("alerts of a supercomputer", "type LIKE 'bgl.*' AND payload.label != '-' AND payload.level = 'FATAL'"),
    Question("upgrades of help-desk tickets", "type = 'case.require_upgrade' AND payload.customer IS NOT NULL"),
)

SIMULATED = (
    Question("pipelines that failed", "type = 'pipeline.failed'"),
    Question("tools that timed out", "payload.status = 'error' AND payload.error CONTAINS 'timed out'"),
    Question("slow stages", "type = 'pipeline.stage.completed' AND payload.duration_ms > 5000"),
    Question("one user's tools", "type LIKE 'hook.tool.*' AND metadata.user = 'user001'"),
    Question("retries in Europe", "type = 'process.retry.attempted' AND metadata.tags CONTAINS 'eu'"),
    Question("what must never happen", "type LIKE 'audit.*'"),
)


def expected_counts(questions: Sequence[Question], acknowledged: Iterable[Acknowledged], clock: Clock) -> list[int]:
    """How many of the events that were logged match each question, by the predicates for live events."""
    predicates = [compile_predicate(parse_filter(each.expression), clock.now_ns()) for each in questions]
    counts = [0] * len(questions)
    for each in acknowledged:
        for proposed in each.request.events:
            event = live_event_of(proposed)
            for number, predicate in enumerate(predicates):
                counts[number] += predicate(event)
    return counts


def live_event_of(event: event_pb2.NewEvent) -> LiveEvent:
    """An event as predicates look at it."""
    metadata = event.metadata
    return LiveEvent(
        type=event.type,
        source=event.source,
        timestamp=event.timestamp.seconds * _NANOS_PER_SECOND + event.timestamp.nanos,
        correlation_id=event.correlation_id if event.HasField("correlation_id") else None,
        user=metadata.user if metadata.HasField("user") else None,
        session_id=metadata.session_id if metadata.HasField("session_id") else None,
        tags=list(metadata.tags),
        payload=event.payload_json,
    )
