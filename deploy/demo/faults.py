"""What the planted incidents do to the work of the platform at a moment. Times are seconds since the epoch."""

from collections.abc import Sequence

from deploy.demo.cast import GATEWAYS, HOSTS, WORKERS
from deploy.demo.incidents import (
    BROKEN_VERSION,
    FIXED_VERSION,
    OLD_VERSION,
    RARE_TYPE,
    ROLLOUT_STEP,
    Incident,
    by_kind,
)

_USUAL_RETRY_SHARE, _USUAL_RETRIES_MAX = 0.03, 2
_USUAL_FAILURE_SHARE = 0.012


class Faults:
    """Answers for every host and moment how it does. Immutable."""

    def __init__(self, incidents: Sequence[Incident]) -> None:
        slow, burst, silent, storm = (
            by_kind(incidents, kind) for kind in ("slow_extraction", "error_burst", "silent_worker", "retry_storm")
        )
        self._slow = (slow.host, slow.start.timestamp(), slow.end.timestamp(), slow.magnitude)
        self._silent = (silent.host, silent.start.timestamp(), silent.end.timestamp())
        self._storm = (storm.start.timestamp(), storm.end.timestamp(), storm.magnitude)
        self._deployed, self._mended = burst.start.timestamp(), burst.end.timestamp()
        self._burst_share = burst.magnitude
        self.rare_at = by_kind(incidents, RARE_TYPE).start.timestamp()

    def version(self, host: str, at: float) -> str:
        """Version that a host runs: hosts are updated one after the other, and mended all at once."""
        if at >= self._mended:
            return FIXED_VERSION
        return BROKEN_VERSION if at >= self._updated_at(host) else OLD_VERSION

    def updates(self) -> list[tuple[float, str, str, str]]:
        """When which host was updated from which version to which, in the order of time."""
        to_broken = [(self._updated_at(host), host, OLD_VERSION, BROKEN_VERSION) for host in HOSTS]
        to_fixed = [(self._mended, host, BROKEN_VERSION, FIXED_VERSION) for host in HOSTS]
        return sorted(to_broken) + to_fixed

    def is_silent(self, host: str, at: float) -> bool:
        """Whether a host sends nothing."""
        return host == self._silent[0] and self._silent[1] <= at < self._silent[2]

    def extraction_factor(self, host: str, at: float) -> float:
        """How many times longer than usual an extraction takes on a host."""
        return self._slow[3] if host == self._slow[0] and self._slow[1] <= at < self._slow[2] else 1.0

    def retries(self, at: float) -> tuple[float, int]:
        """Share of the extractions that are tried again, and how often at most."""
        start, end, share = self._storm
        return (share, 5) if start <= at < end else (_USUAL_RETRY_SHARE, _USUAL_RETRIES_MAX)

    def synthesis_failure(self, host: str, at: float) -> tuple[float, str, str]:
        """Share of the syntheses that fail on a host, with the class and the text of the error."""
        if self.version(host, at) == BROKEN_VERSION:
            return self._burst_share, "TemplateError", "template has no block named 'summary'"
        return _USUAL_FAILURE_SHARE, "TimeoutError", "the model did not answer within 30 s"

    def _updated_at(self, host: str) -> float:
        # The hosts that synthesise and serve are last; gateways show that order is not by name.
        order = (*WORKERS, *(host for host in HOSTS if host not in WORKERS + GATEWAYS), *GATEWAYS)
        return self._deployed + order.index(host) * ROLLOUT_STEP.total_seconds()
