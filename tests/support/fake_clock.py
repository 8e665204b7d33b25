"""A clock that tests set by hand."""

_NANOSECONDS = 1_000_000_000
# 2024-01-20T10:30:00Z
START_NS = 1_705_746_600 * _NANOSECONDS


class FakeClock:
    """Stands still until it is told otherwise. See shared.clock.Clock."""

    def __init__(self, start_ns: int = START_NS) -> None:
        self._now_ns = start_ns
        self._monotonic_s = 1000.0

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC."""
        return self._now_ns

    def monotonic_s(self) -> float:
        """Seconds since some start. Never decreases."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds >= 0
        self._now_ns += round(seconds * _NANOSECONDS)
        self._monotonic_s += seconds

    def jump(self, seconds: float) -> None:
        """Set the time of day forward or back, as an operator or a time server does; no time passes."""
        self._now_ns += round(seconds * _NANOSECONDS)


class TickingClock(FakeClock):
    """A clock that moves whenever somebody looks."""

    def monotonic_s(self) -> float:
        self.advance(0.01)
        return super().monotonic_s()
