"""What is usual for streams of events, all streams at once: how many come in a bucket, and how far counts are from it.

A count is expected to be that of the last LOCAL_BUCKETS buckets, or the stream's mean, or, once two weeks are known,
the mean of the same hour of the week, whichever is most. How far it is above that is its deviance (in standard
deviations, if events came independently), which is measured against its record (see `records`). The margin is wider
while few of the stream's own buckets held events: a stream that seldom has any has hardly shown yet how it clusters.

A stream is regular while it has RATE_MIN events a bucket and its deviances are no greater than those of independent
events (REGULAR_SQUARE is twice their mean square). What is expected of it is the mean of the last buckets, shrunk a
little towards its own, so that a night is not measured by the day; and its record is what came after the first
LOCAL_BUCKETS buckets, in which hardly anything was expected yet. Its tails are light, so that its usual deviance says
more than a young record: REGULAR_DEVIATIONS of those are needed, also where many streams offer many occasions. Streams
that come in clusters keep the whole record: it is what their clusters are like.
"""

from dataclasses import dataclass, field

import numpy as np

from analysis_service.anomalies.records import DEVIATIONS, EARLY_MARGIN, LEAST_DEVIATION, MARGIN
from analysis_service.columns import Floats, Mask

LOCAL_BUCKETS = 60
WARM_UP_BUCKETS = 120
# So many buckets that held events are few.
EARLY_BUCKETS = 300.0
RATE_MIN, REGULAR_SQUARE, PRIOR_BUCKETS = 1.0, 1.0, 10
REGULAR_DEVIATIONS = 6.0
# A stream with fewer events so far than known ones have must come in greater numbers.
KNOWN_EVENTS, COUNT_MIN, COUNT_MIN_UNKNOWN = 20, 3, 10
HOURS_A_WEEK = 168


@dataclass(frozen=True, slots=True)
class Judged:
    """Counts of one bucket, one a stream: what was expected, how far above it they are, and how strongly.

    hour: of the week. unusual: the streams whose counts are not to be learnt.
    """

    hour: int
    unusual: Mask
    counts: Floats
    expected: Floats
    deviance: Floats
    strength: Floats


@dataclass(slots=True)
class Streams:
    """State by stream, one number each, in arrays that grow together.

    filled: buckets that held events. settled: without the first LOCAL_BUCKETS buckets.
    """

    bucket_s: float
    buckets_seen: int = 0
    total: Floats = field(default_factory=lambda: np.zeros(0))
    filled: Floats = field(default_factory=lambda: np.zeros(0))
    record: Floats = field(default_factory=lambda: np.zeros(0))
    squares: Floats = field(default_factory=lambda: np.zeros(0))
    settled_record: Floats = field(default_factory=lambda: np.zeros(0))
    settled_squares: Floats = field(default_factory=lambda: np.zeros(0))
    recent: Floats = field(default_factory=lambda: np.zeros((LOCAL_BUCKETS, 0)))
    by_hour: Floats = field(default_factory=lambda: np.zeros((HOURS_A_WEEK, 0)))
    hours_seen: Floats = field(default_factory=lambda: np.zeros(HOURS_A_WEEK))

    @property
    def are_warm(self) -> bool:
        """Whether enough is known to judge by."""
        return bool(self.filled[0] >= WARM_UP_BUCKETS)

    def grow(self, size: int) -> None:
        """Know so many streams."""
        more = size - len(self.total)
        by_stream = (self.total, self.filled, self.record, self.squares, self.settled_record, self.settled_squares)
        self.total, self.filled, self.record, self.squares, self.settled_record, self.settled_squares = (
            np.concatenate((each, np.zeros(more))) for each in by_stream
        )
        self.recent, self.by_hour = (np.pad(each, ((0, 0), (0, more))) for each in (self.recent, self.by_hour))

    def judge(self, counts: Floats, hour: int) -> Judged:
        """How a bucket of an hour of the week compares with what is usual."""
        regular = self._regular()
        expected = self._expected(hour, regular)
        deviance = _deviance(counts, expected)
        margin = MARGIN + EARLY_MARGIN * np.exp(-self.filled / EARLY_BUCKETS)
        strength: Floats = deviance / (margin * self._measure(regular))
        strength[counts < np.where(self.total >= KNOWN_EVENTS, COUNT_MIN, COUNT_MIN_UNKNOWN)] = 0.0
        return Judged(hour, np.zeros(len(counts), np.bool_), counts, expected, deviance, strength)

    def learn(self, judged: Judged) -> None:
        """Take a bucket as usual, but for the streams in which it is not: of them, what was expected."""
        hour, known = judged.hour, len(judged.counts)
        counts, deviance = np.zeros(len(self.total)), np.zeros(len(self.total))
        counts[:known] = np.where(judged.unusual, judged.expected, judged.counts)
        deviance[:known] = np.where(judged.unusual, 0.0, judged.deviance)
        self.recent[self.buckets_seen % LOCAL_BUCKETS] = counts
        self.total += counts
        self.filled += counts > 0
        self.by_hour[hour] += counts
        self.hours_seen[hour] += 1
        self.record = np.maximum(self.record, deviance)
        self.squares += np.square(deviance)
        if self.buckets_seen >= LOCAL_BUCKETS:
            self.settled_record = np.maximum(self.settled_record, deviance)
            self.settled_squares += np.square(deviance)
        self.buckets_seen += 1

    def remember(self, stream: int, deviance: float) -> None:
        """What was told once is known: it is not new when it comes again."""
        for record in (self.record, self.settled_record):
            record[stream] = max(record[stream], deviance)

    @property
    def _settled_buckets(self) -> int:
        return max(1, self.buckets_seen - LOCAL_BUCKETS)

    def _regular(self) -> Mask:
        """Which streams come often, and as independent events do."""
        often = self.total >= RATE_MIN * max(self.buckets_seen, WARM_UP_BUCKETS)
        regular: Mask = often & (self.settled_squares <= REGULAR_SQUARE * self._settled_buckets)
        return regular if self.buckets_seen >= WARM_UP_BUCKETS else np.zeros(len(regular), np.bool_)

    def _measure(self, regular: Mask) -> Floats:
        """What deviances are measured against."""
        record = np.where(regular, self.settled_record, self.record)
        mean_square = np.where(
            regular, self.settled_squares / self._settled_buckets, self.squares / max(1, self.buckets_seen)
        )
        deviations = np.where(regular, REGULAR_DEVIATIONS, DEVIATIONS)
        measure: Floats = np.maximum(record, deviations * np.maximum(LEAST_DEVIATION, np.sqrt(mean_square)))
        return measure

    def _expected(self, hour: int, regular: Mask) -> Floats:
        known, recent = min(LOCAL_BUCKETS, self.buckets_seen + 1), self.recent.sum(axis=0)
        mean = (self.total + 0.5) / (self.buckets_seen + 1)
        shrunk = (recent + PRIOR_BUCKETS * mean) / (known + PRIOR_BUCKETS)
        expected: Floats = np.where(regular, shrunk, np.maximum((recent + 0.5) / known, mean))
        if self.hours_seen[hour] >= 2 * 3600 / self.bucket_s:
            np.maximum(expected, self.by_hour[hour] / self.hours_seen[hour], out=expected)
        return expected


def _deviance(counts: Floats, expected: Floats) -> Floats:
    """How far counts are above what is expected, in standard deviations of independent events; 0 below it."""
    above = counts > expected
    ratio = np.where(above, counts, expected) / expected
    signed: Floats = np.where(above, np.sqrt(np.maximum(0.0, 2 * (counts * np.log(ratio) - counts + expected))), 0.0)
    return signed
