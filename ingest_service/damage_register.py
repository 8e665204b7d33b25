"""The damage known to the service since it started: found by recovery, by VerifyLog and by RebuildIndex.

Invariant: each damaged range is counted once, however often it is found. Safe for several threads.
"""

import threading
from collections.abc import Iterable

from ingest_service.metrics import IngestMetrics
from shared.log.types import Damage

# Beyond this, more is counted in the metric's value no longer: the log needs a backup, not a list.
_RANGES_MAX = 100_000


class DamageRegister:
    """Damaged ranges of the log."""

    def __init__(self, metrics: IngestMetrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int], Damage] = {}

    def add(self, found: Iterable[Damage]) -> None:
        """Register what was found, unless it is known."""
        with self._lock:
            for damage in found:
                if len(self._known) < _RANGES_MAX:
                    self._known.setdefault((damage.positions.first, damage.positions.last), damage)
            self._metrics.damaged_positions.set(sum(damage.positions.count for damage in self._known.values()))

    def known(self) -> list[Damage]:
        """All of it, in position order."""
        with self._lock:
            return sorted(self._known.values(), key=lambda damage: damage.positions.first)
