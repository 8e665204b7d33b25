"""How strongly something exceeds all that came before, for quantities whose tails nobody knows.

A deviance is measured against MARGIN times the greatest one so far, and DEVIATIONS times the usual one; while little
is known the margin is wider. So whatever is usual for a quantity, clusters and heavy tails included, sets its measure.
"""

import math

MARGIN = 1.3
EARLY_MARGIN = 0.37
DEVIATIONS = 4.0
LEAST_DEVIATION = 0.25


def margin(seen: int, early: float) -> float:
    """The margin after so many observations, of which `early` are few."""
    return MARGIN + EARLY_MARGIN * math.exp(-seen / early)


class RecordMeter:
    """Measures one quantity. early: how many observations are few."""

    def __init__(self, *, early: float) -> None:
        self._early = early
        self.seen = 0
        self._record = 0.0
        self._squares = 0.0

    def strength(self, deviance: float) -> float:
        """How strongly a deviance, in either direction, exceeds what was learnt; about 1 is worth a look."""
        usual = max(LEAST_DEVIATION, math.sqrt(self._squares / max(1, self.seen)))
        return abs(deviance) / (margin(self.seen, self._early) * max(self._record, DEVIATIONS * usual))

    def learn(self, deviance: float) -> None:
        """Take a deviance as usual."""
        self.seen += 1
        self._record = max(self._record, abs(deviance))
        self._squares += deviance * deviance
