"""How new the next number of a series is: the detector of values.

Three measures are taken of each point, each the distance to what came before, in the running mean and deviation of
all such distances before it (only what lies above the mean counts, as log1p):
- value: to the nearest earlier value;
- shape: of the last SHAPE_POINTS points to the nearest earlier stretch as long that does not overlap;
- restlessness: of the mean step of the last RECENT points from that of the STEADY points before, in logarithms.
Novelty is value + 0.5 x shape + 0.5 x restlessness. It counts only where it exceeds all that counted in the last
REFRACTORY points, so that a long deviation is told once, and again if it grows. The weights are those that suit the
Numenta Anomaly Benchmark as a whole; nothing is fitted to a series.

A series may go on for ever: the last HISTORY points are remembered.
"""

import math
from bisect import bisect_left, insort
from collections import deque

import numpy as np

from analysis_service.columns import Floats

HISTORY = 4_000
WARM_UP = 60
SHAPE_POINTS = 10
RECENT, STEADY = 60, 2_000
REFRACTORY = 120
# Of a distance that no earlier one differed from: certainly new.
_CERTAIN = 10.0
_SHAPE_WEIGHT, _RESTLESSNESS_WEIGHT = 0.5, 0.5


class NoveltyDetector:
    """The state of one series; takes points in the order of time."""

    def __init__(self) -> None:
        self._points = 0
        self._value, self._shape, self._restlessness = _NearestValue(), _NearestShape(), _Restlessness()
        self._surprises = tuple(_Surprise() for _ in range(3))
        self._last_emitted = -REFRACTORY
        self._emitted = 0.0

    @property
    def usual_range(self) -> tuple[float, float]:
        """The least and the greatest value remembered; NaN before the first."""
        return self._value.range

    def push(self, value: float) -> float:
        """Novelty of the next point; 0 where it does not count."""
        distances = (self._value.push(value), self._shape.push(value), self._restlessness.push(value))
        parts = [
            surprise.push(distance) if distance is not None else 0.0
            for surprise, distance in zip(self._surprises, distances, strict=True)
        ]
        self._points += 1
        if self._points <= WARM_UP:
            return 0.0
        novelty = parts[0] + _SHAPE_WEIGHT * parts[1] + _RESTLESSNESS_WEIGHT * parts[2]
        if novelty <= 0 or (self._points - self._last_emitted < REFRACTORY and novelty <= self._emitted):
            return 0.0
        self._last_emitted, self._emitted = self._points, novelty
        return novelty


class _Surprise:
    """A distance in terms of those before it: log1p of the deviations that it lies above their mean."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0

    def push(self, distance: float) -> float:
        surprise = 0.0
        if self._count > 1:
            deviation = math.sqrt(self._squares / self._count)
            if deviation > 0:
                surprise = math.log1p(max(0.0, (distance - self._mean) / deviation))
            elif distance > self._mean:
                surprise = _CERTAIN
        self._count += 1
        difference = distance - self._mean
        self._mean += difference / self._count
        self._squares += difference * (distance - self._mean)
        return surprise


class _NearestValue:
    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._order: deque[float] = deque()

    @property
    def range(self) -> tuple[float, float]:
        return (self._sorted[0], self._sorted[-1]) if self._sorted else (math.nan, math.nan)

    def push(self, value: float) -> float | None:
        place = bisect_left(self._sorted, value)
        near = self._sorted[max(0, place - 1) : place + 1]
        distance = min((abs(value - each) for each in near), default=None)
        insort(self._sorted, value)
        self._order.append(value)
        if len(self._order) > HISTORY:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]
        return distance


class _NearestShape:
    """Keeps the squared distance of the last stretch to every earlier one, and moves all of them by one point."""

    def __init__(self) -> None:
        self._values: Floats = np.empty(2 * HISTORY)
        self._squares: Floats = np.empty(2 * HISTORY)
        self._count = 0

    def push(self, value: float) -> float | None:
        if self._count == len(self._values):
            self._forget()
        values, count = self._values, self._count
        values[count] = value
        # squares[j]: of the stretch that ends at j to the one that ends at the newest point.
        moved = np.empty(count + 1)
        moved[0] = 0.0
        moved[1:] = self._squares[:count]
        moved += (values[: count + 1] - value) ** 2
        if count >= SHAPE_POINTS:
            gone = values[count - SHAPE_POINTS]
            moved[SHAPE_POINTS:] -= (values[: count + 1 - SHAPE_POINTS] - gone) ** 2
        self._squares[: count + 1] = moved
        self._count = count + 1
        first, stop = SHAPE_POINTS - 1, count - SHAPE_POINTS + 1
        if stop <= first:
            return None
        return math.sqrt(max(0.0, float(moved[max(first, stop - HISTORY) : stop].min())))

    def _forget(self) -> None:
        half = self._count // 2
        for array in (self._values, self._squares):
            array[:half] = array[self._count - half : self._count]
        self._count = half


class _Restlessness:
    def __init__(self) -> None:
        self._before: float | None = None
        self._recent: deque[float] = deque()
        self._steady: deque[float] = deque()
        self._recent_sum = self._steady_sum = 0.0

    def push(self, value: float) -> float | None:
        step = 0.0 if self._before is None else abs(value - self._before)
        self._before = value
        self._recent.append(step)
        self._recent_sum += step
        if len(self._recent) > RECENT:
            old = self._recent.popleft()
            self._recent_sum -= old
            self._steady.append(old)
            self._steady_sum += old
        if len(self._steady) > STEADY:
            self._steady_sum -= self._steady.popleft()
        if len(self._steady) < RECENT or self._recent_sum <= 0 or self._steady_sum <= 0:
            return None
        recent, steady = self._recent_sum / len(self._recent), self._steady_sum / len(self._steady)
        return abs(math.log(recent / steady))
