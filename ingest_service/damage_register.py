"""The damage known to the service since it started: found by recovery, by VerifyLog and by RebuildIndex.

Invariant: each damaged range of a file is listed once, and its positions are counted once, however
often it is found. Damage of a companion has no positions and is listed all the same. Safe for several
threads.
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
        self._known: dict[tuple[int, int, str], Damage] = {}

    def add(self, found: Iterable[Damage]) -> None:
        """Register what was found, unless it is known."""
        with self._lock:
            for damage in found:
                if len(self._known) < _RANGES_MAX:
                    self._known.setdefault((damage.positions.first, damage.positions.last, damage.file), damage)
            ranges = {damage.positions for damage in self._known.values()}
            self._metrics.damaged_positions.set(sum(positions.count for positions in ranges))

    def known(self) -> list[Damage]:
        """All of it, in position order."""
        with self._lock:
            return sorted(self._known.values(), key=lambda damage: damage.positions.first)
