"""Streams that are high, from the bucket in which each began to the one in which it was no longer.

Invariant: at most INCIDENTS_MAX alarms that are over are kept, the last ones.
"""

from dataclasses import dataclass

import numpy as np

from analysis_service.anomalies.streams import Judged
from analysis_service.columns import Mask

INCIDENTS_MAX = 1_000
# Buckets that may be quiet within an incident.
PATIENCE = 2


@dataclass(slots=True)
class Alarm:
    """One stream that is high. first, last: numbers of buckets. expected: when it began; the others: at its worst."""

    stream: int
    first: int
    last: int
    expected: float
    count: float
    strength: float
    deviance: float


class Alarms:
    """Those that go on, by stream, and those that are over."""

    def __init__(self) -> None:
        self.open: dict[int, Alarm] = {}
        self._over: list[Alarm] = []

    def begin(self, stream: int, judged: Judged, *, first: int, bucket: int) -> None:
        """A stream is high; it is so since a bucket."""
        numbers = (judged.expected, judged.counts, judged.strength, judged.deviance)
        self.open[stream] = Alarm(stream, first, bucket, *(float(each[stream]) for each in numbers))

    def extend(self, judged: Judged, bucket: int) -> Mask:
        """Which streams are still high: their count stays high against what was expected when they began."""
        high = np.zeros(len(judged.counts), np.bool_)
        for stream, alarm in self.open.items():
            count = float(judged.counts[stream])
            if count > alarm.expected + 3 * np.sqrt(alarm.expected) and count >= alarm.count / 3:
                high[stream] = True
                alarm.last = bucket
                alarm.deviance = max(alarm.deviance, float(judged.deviance[stream]))
                alarm.strength = max(alarm.strength, float(judged.strength[stream]))
                alarm.count = max(alarm.count, count)
        return high

    def end(self, bucket: int) -> list[Alarm]:
        """End those that were not high for longer than PATIENCE; return them."""
        ended = [alarm for alarm in self.open.values() if bucket - alarm.last > PATIENCE]
        for alarm in ended:
            self._over.append(self.open.pop(alarm.stream))
        del self._over[:-INCIDENTS_MAX]
        return ended

    def together(self) -> list[list[Alarm]]:
        """All alarms, those at the same time together, in the order of time."""
        groups: list[list[Alarm]] = []
        end = -PATIENCE - 1
        for alarm in sorted([*self._over, *self.open.values()], key=lambda each: (each.first, each.stream)):
            if groups and alarm.first <= end + PATIENCE:
                groups[-1].append(alarm)
                end = max(end, alarm.last)
            else:
                groups.append([alarm])
                end = alarm.last
        return groups
