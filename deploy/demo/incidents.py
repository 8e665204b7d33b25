"""What goes wrong in the simulated platform, and when: the ground truth for whoever looks for it in the events.

docs/simulator.md describes each incident. The days on which they happen follow from the length of the
simulation alone, so a longer simulation has the same incidents on other days.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

HOTFIX_AFTER = timedelta(minutes=45)
# One host after the other gets a new version.
ROLLOUT_STEP = timedelta(minutes=2)

OLD_VERSION, BROKEN_VERSION, FIXED_VERSION = "2.3.0", "2.4.0", "2.4.1"
RARE_TYPE = "audit.template.exported"


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that went wrong. It began at start and was over at end; they are equal where it was a moment.

    event_types: where it shows. host: where it happened, empty for all hosts. magnitude: how much, in a measure
    that the description names.
    """

    kind: str
    start: datetime
    end: datetime
    event_types: tuple[str, ...]
    host: str
    magnitude: float
    description: str


def plant(start: datetime, days: int) -> tuple[Incident, ...]:
    """The incidents of a simulation of `days` days from `start`, a midnight in UTC, in the order of time."""

    def at(share: float, hour: int, minute: int = 0) -> datetime:
        return _working_day(start, days, share) + timedelta(hours=hour, minutes=minute)

    slow, deployed, silent, storm, rare = (
        at(0.3, 10),
        at(0.5, 14, 5),
        at(0.65, 12, 15),
        at(0.8, 15, 30),
        at(0.9, 16, 40),
    )
    incidents = [
        Incident(
            "slow_extraction",
            slow,
            slow + timedelta(hours=2),
            ("process.extraction.completed", "pipeline.stage.completed"),
            "worker-03",
            6.0,
            "one extraction host takes 6 times as long for each document",
        ),
        Incident(
            "error_burst",
            deployed,
            deployed + HOTFIX_AFTER,
            ("pipeline.failed",),
            "",
            0.5,
            f"half of the syntheses on hosts with {BROKEN_VERSION} fail with TemplateError, until {FIXED_VERSION}",
        ),
        Incident(
            "silent_worker",
            silent,
            silent + timedelta(minutes=90),
            ("worker.heartbeat", "process.extraction.completed"),
            "worker-06",
            0.0,
            "a worker sends nothing at all: no heartbeat, no work; then it is back",
        ),
        Incident(
            "retry_storm",
            storm,
            storm + timedelta(minutes=30),
            ("process.retry.attempted",),
            "",
            0.9,
            "9 of 10 extractions are retried, up to 5 times, because the object store times out",
        ),
        Incident(RARE_TYPE, rare, rare, (RARE_TYPE,), "gateway-01", 1.0, "a type that never occurred before, once"),
    ]
    return tuple(sorted(incidents, key=lambda incident: incident.start))


def by_kind(incidents: Iterable[Incident], kind: str) -> Incident:
    """The incident of a kind. Raises KeyError where there is none."""
    for incident in incidents:
        if incident.kind == kind:
            return incident
    raise KeyError(kind)


def _working_day(start: datetime, days: int, share: float) -> datetime:
    """The day at a share of the simulation, or the nearest working day in it, the earlier one of two."""
    wanted = int(days * share)
    candidates = sorted(range(days), key=lambda day: (abs(day - wanted), day))
    working = (day for day in candidates if (start + timedelta(days=day)).weekday() < 5)
    return start + timedelta(days=next(working, wanted))
