"""What an answer rests on, and how far its analysis is.

Told by the task or thread that works on an analysis, one at a time; how far it is may be read by any.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from analysis_service.budget import Tell, silent

READING = "reading"


@dataclass(slots=True)
class Coverage:
    """What an answer rests on; grows while it is made. partial_reason: see AnalysisCoverage.

    tell: told how far it is with reading.
    """

    events: int = 0
    snapshot_position: int = 0
    partial_reason: str = ""
    notes: list[str] = field(default_factory=list)
    tell: Tell = silent

    def cut(self, reason: str) -> None:
        """Something is missing. The first reason stays."""
        self.partial_reason = self.partial_reason or reason

    def took_into_account(self, position: int) -> None:
        """Something was read of the log up to this committed position: the lowest one holds for all."""
        self.snapshot_position = min(self.snapshot_position or position, position)

    def read(self, events: int, *, share: float) -> None:
        """More events were read, which make so much of what there is to read."""
        self.events += events
        self.tell(READING, share)


class Reached(NamedTuple):
    """What an analysis does, and how much of that is done, 0 to 1."""

    stage: str
    share: float


class Progress:
    """How far an analysis is."""

    def __init__(self) -> None:
        self.reached = Reached("waiting", 0.0)

    def tell(self, stage: str, share: float) -> None:
        """It is so far now."""
        self.reached = Reached(stage, min(max(share, 0.0), 1.0))
