"""How long to wait before the next attempt. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import random


@dataclass(frozen=True, slots=True)
class BackOff:
    """Exponential with jitter: each delay is half to all of first_s, 2 first_s, 4 first_s, … up to max_s."""

    first_s: float = 0.05
    max_s: float = 5.0
    # A number of [0, 1); tests give a constant.
    jitter: Callable[[], float] = field(default=random, repr=False)

    def delay_s(self, failures: int, *, at_least_s: float = 0.0) -> float:
        """Seconds to wait after the given number of failures in a row, 1 for the first.

        at_least_s is what the server asked for; the jitter then comes on top, so that the clients it sent
        away do not come back all at once.
        """
        assert failures >= 1, failures
        ceiling = min(self.max_s, self.first_s * 2.0 ** min(failures - 1, 30))
        own = ceiling * (0.5 + self.jitter() / 2)
        return own if own >= at_least_s else at_least_s * (1 + self.jitter() / 10)
