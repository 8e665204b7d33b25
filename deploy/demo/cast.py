"""Who and what is in the simulated document-synthesis platform, and how busy it is when.

Everything here is fixed; what is random is in `activities`. Rates are for scale 1.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

GATEWAYS = ("gateway-01", "gateway-02")
WORKERS = tuple(f"worker-{number:02d}" for number in range(1, 9))
SYNTHESISERS = ("synth-01", "synth-02", "synth-03")
SCHEDULER = "scheduler-01"
HOSTS = (*GATEWAYS, *WORKERS, *SYNTHESISERS, SCHEDULER)

HEARTBEAT_S = 300
BATCH_HOUR = 2


class User(NamedTuple):
    """Someone who works with the platform, in a region with its own time of day."""

    name: str
    region: str


USERS = tuple(User(f"user{number:03d}", "eu" if number % 2 else "us") for number in range(120))
ADMINISTRATORS = ("admin01", "admin02")

# What is added to UTC for the time of day of a region.
UTC_OFFSET_H = {"eu": 1, "us": -6}

# Sessions an hour, by the hour of the day of the region: a morning peak, a dip at noon, an afternoon peak.
_SESSIONS_AN_HOUR = (0, 0, 0, 0, 0, 0, 1, 5, 15, 27, 30, 24, 12, 18, 27, 25, 18, 9, 5, 3, 2, 1, 0.5, 0.2)
_WEEKDAY_WEIGHT = (1.05, 1.1, 1.05, 1.0, 0.8, 0.08, 0.05)


class Tool(NamedTuple):
    """A tool of the editor. duration: median in milliseconds and spread (sigma of the logarithm)."""

    name: str
    weight: float
    median_ms: float
    sigma: float


SYNTHESISE = Tool("synthesise", 2.0, 900.0, 0.3)
TOOLS = (
    Tool("search", 4.0, 180.0, 0.6),
    Tool("open_document", 3.0, 90.0, 0.5),
    Tool("edit_template", 1.5, 60.0, 0.4),
    Tool("export", 0.5, 1500.0, 0.8),
    SYNTHESISE,
)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A kind of synthesis. documents: median number that a run takes."""

    name: str
    stages: tuple[str, ...]
    documents: float


PIPELINES = (
    Pipeline("contract_summary", ("extraction", "validation", "synthesis", "delivery"), 4.0),
    Pipeline("quarterly_report", ("extraction", "validation", "synthesis", "enrichment", "delivery"), 9.0),
    Pipeline("meeting_minutes", ("extraction", "synthesis", "delivery"), 2.0),
)
DIGEST = Pipeline("nightly_digest", ("extraction", "validation", "synthesis", "indexing"), 25.0)
BATCH_RUNS = 8

# Median in milliseconds of the stages whose time is not that of the documents in them.
STAGE_MS = {"validation": 220.0, "enrichment": 850.0, "delivery": 140.0, "indexing": 600.0}
EXTRACTION_MS = 1150.0
SYNTHESIS_MS = 4200.0
MEDIA_TYPES = ("application/pdf", "text/html", "application/vnd.ms-excel", "message/rfc822")


def sessions_an_hour(moment: datetime, region: str) -> float:
    """Sessions of a region that start in the hour that begins at a moment in UTC."""
    local_hour = moment.hour + UTC_OFFSET_H[region]
    weekday = (moment.weekday() + local_hour // 24) % 7
    return _SESSIONS_AN_HOUR[local_hour % 24] * _WEEKDAY_WEIGHT[weekday]
