"""Numbers that independent events carry, such as durations: whether some minutes are unlike all before.

Values are compared on a scale that is linear near zero and logarithmic far from it, so that heavy tails are tame.
In each bucket of BUCKET_NS the mean is compared with the mean of all before, in its standard error, and the value
farthest from that mean in standard deviations; both against their records (see `records`).
"""

import math
from dataclasses import dataclass

import numpy as np

from analysis_service.anomalies.records import RecordMeter
from analysis_service.columns import Floats

BUCKET_NS = 300_000_000_000
WARM_UP_VALUES, WARM_UP_BUCKETS = 100, 50
_EARLY_BUCKETS = 100.0
# Tails are heavier, and the work at night is another than by day, than what a few hundred values tell.
_CAUTION = 0.75
_OVER_AFTER = 3


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a bucket is like, from start_ns on.

    low, high: what is usual for `actual`, which is the bucket's mean or its farthest value, as `what` says.
    """

    start_ns: int
    strength: float
    low: float
    high: float
    actual: float
    what: str


class Population:
    """State of one quantity; takes values in the order of time."""

    def __init__(self) -> None:
        self._scale: float | None = None
        self._bucket: int | None = None
        self._values: list[float] = []
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._told: list[tuple[float, float]] = []
        self._buckets_since_told = 0
        self._means, self._extremes = RecordMeter(early=_EARLY_BUCKETS), RecordMeter(early=_EARLY_BUCKETS)

    def push(self, time_ns: int, value: float, needed: float) -> Judgement | None:
        """Take a value; the judgement of the bucket before, where that is complete now."""
        bucket = time_ns // BUCKET_NS
        judgement = None
        if self._bucket is not None and bucket > self._bucket:
            judgement = self.close(needed)
        self._bucket = bucket
        self._values.append(value)
        return judgement

    def close(self, needed: float) -> Judgement | None:
        """The judgement of the last bucket, though it may not be complete."""
        if not self._values or self._bucket is None:
            return None
        raw = np.array(self._values)
        self._values = []
        if self._scale is None:
            self._scale = float(np.median(np.abs(raw))) or 1.0
        values = np.arcsinh(raw / self._scale)
        judgement = self._judge(values, self._bucket * BUCKET_NS)
        told = judgement is not None and judgement.strength >= needed
        self._learn(values, told=told)
        return judgement

    def _judge(self, values: Floats, start_ns: int) -> Judgement | None:
        if self._count < WARM_UP_VALUES:
            return None
        deviation = math.sqrt(self._squares / self._count) or 1e-9
        error = deviation / math.sqrt(len(values))
        mean = float(values.mean())
        farthest = float(values[np.argmax(np.abs(values - self._mean))])
        of_mean, of_extreme = self._deviances(values)
        if self._means.seen < WARM_UP_BUCKETS:
            return None
        strengths = (self._means.strength(of_mean), self._extremes.strength(of_extreme))
        by_mean = strengths[0] >= strengths[1]
        width = 4 * (error if by_mean else deviation)
        return Judgement(
            start_ns,
            _CAUTION * max(strengths),
            self._raw(self._mean - width),
            self._raw(self._mean + width),
            self._raw(mean if by_mean else farthest),
            f"the mean of {len(values)} values" if by_mean else "one value",
        )

    def _deviances(self, values: Floats) -> tuple[float, float]:
        """Of the mean in its standard error, and of the farthest value in standard deviations."""
        deviation = math.sqrt(self._squares / self._count) or 1e-9
        from_mean = values - self._mean
        of_mean = float(from_mean.mean()) / deviation * math.sqrt(len(values))
        return of_mean, float(from_mean[np.argmax(np.abs(from_mean))]) / deviation

    def _learn(self, values: Floats, *, told: bool) -> None:
        """What was told does not become usual, but once it is over it is known, and not told again."""
        deviances = self._deviances(values) if self._count >= WARM_UP_VALUES else None
        if told:
            assert deviances is not None
            self._told.append(deviances)
            self._buckets_since_told = 0
            return
        self._buckets_since_told += 1
        if self._buckets_since_told > _OVER_AFTER:
            for of_mean, of_extreme in self._told:
                self._means.learn(of_mean)
                self._extremes.learn(of_extreme)
            self._told = []
        if deviances is not None:
            self._means.learn(deviances[0])
            self._extremes.learn(deviances[1])
        total = self._count + len(values)
        difference = float(values.mean()) - self._mean
        self._squares += float(np.square(values - values.mean()).sum())
        self._squares += difference**2 * self._count * len(values) / total
        self._mean += difference * len(values) / total
        self._count = total

    def _raw(self, value: float) -> float:
        assert self._scale is not None
        return float(np.sinh(value) * self._scale)
