"""Collects the events of the simulated platform, as documents in the specification's form.

Times are seconds since the epoch. Does not sort: activities overlap, and each records its own to its end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from deploy.demo.faults import Faults
from shared.events.timestamps import format_timestamp

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """On whose behalf something happens, and what it belongs to."""

    region: str
    user: str | None = None
    session_id: str | None = None
    correlation_id: str | None = None


class Recorder:
    """Collects events as (time, document), in the order in which they are recorded."""

    def __init__(self, random: Random, faults: Faults) -> None:
        self.random = random
        self.faults = faults
        self.events: list[tuple[float, Document]] = []

    def record(
        self, at: float, event_type: str, payload: Mapping[str, Any], *, source: str, host: str, origin: Origin
    ) -> None:
        """Record an event, unless its host is silent."""
        if self.faults.is_silent(host, at):
            return
        metadata = {
            "host": host,
            "version": self.faults.version(host, at),
            "user": origin.user,
            "session_id": origin.session_id,
            "tags": ["prod", origin.region],
        }
        document = {
            "timestamp": format_timestamp(int(at * 1_000_000) * 1000),
            "type": event_type,
            "source": source,
            "correlation_id": origin.correlation_id,
            "payload": payload,
            "metadata": metadata,
        }
        self.events.append((at, document))

    def new_id(self, prefix: str) -> str:
        """An id that no other thing has, for all that matters."""
        return f"{prefix}_{self.random.getrandbits(40):010x}"

    def duration_ms(self, median_ms: float, sigma: float) -> float:
        """A lognormal duration, in tenths of a millisecond."""
        return round(median_ms * math.exp(self.random.gauss(0.0, sigma)), 1)
