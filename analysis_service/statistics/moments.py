"""Count, mean, standard deviation, least and greatest of numbers that come in pieces."""

import numpy as np

from analysis_service.columns import Floats


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

    def add(self, values: Floats) -> None:
        """Take values; none may be NaN."""
        if not len(values):
            return
        mean = float(values.mean())
        squares = float(np.square(values - mean).sum())
        total = self.count + len(values)
        difference = mean - self.mean
        self._squares += squares + difference**2 * self.count * len(values) / total
        self.mean += difference * len(values) / total
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))
        self.count = total
