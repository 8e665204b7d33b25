"""Count, mean, standard deviation, least and greatest of numbers that come in pieces."""

import numpy as np

from analysis_service.statistics.sums import Measured


class Moments:
    """Merged by the formula of Chan et al., which does not cancel as sums of squares do."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.minimum = np.inf
        self.maximum = -np.inf
        self._squares = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of all values (divided by their number); 0 where there is none."""
        return float(np.sqrt(self._squares / self.count)) if self.count else 0.0

    def add(self, measured: Measured) -> None:
        """Take the moments of some numbers, each row of which has one."""
        if not measured.count:
            return
        mean, total = measured.mean, self.count + measured.count
        difference = mean - self.mean
        self._squares += float((measured.squares + measured.counts * np.square(measured.means - mean)).sum())
        self._squares += difference**2 * self.count * measured.count / total
        self.mean += difference * measured.count / total
        self.minimum = min(self.minimum, float(measured.minima.min()))
        self.maximum = max(self.maximum, float(measured.maxima.max()))
        self.count = total
