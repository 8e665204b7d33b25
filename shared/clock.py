"""Time. The only module that asks the operating system what time it is."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time. Tests use one that they set by hand."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC. May jump in either direction."""

    def monotonic_s(self) -> float:
        """Seconds since some start. Never decreases."""


class SystemClock:
    """The clock of the operating system."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC. May jump in either direction."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Seconds since some start. Never decreases."""
        return time.monotonic()
