"""`rate`: streams of events that come faster than ever before.

A stream is a type of a source; all events together are one too. Counts in equal buckets are judged one bucket after
the other, all streams at once. A count is expected to be that of the last LOCAL_BUCKETS buckets, or the stream's mean,
or, once two weeks are known, the mean of the same hour of the week, whichever is most. How far it is from that is its
deviance (in standard deviations, if events came independently), which is measured against its record (see `records`).

A stream is regular while it has RATE_MIN events a bucket and its deviances are no greater than those of independent
events (REGULAR_SQUARE is twice their mean square). What is expected of it is the mean of the last buckets, shrunk a
little towards its own, so that a night is not measured by the day; and its record is what came after the first
LOCAL_BUCKETS buckets, in which hardly anything was expected yet. Streams that come in clusters keep that record: it is
what their clusters are like.

Strengths of different sources at the same time add up by their squares. What is an alarm does not become part of what
is expected, but once it is over it is part of the record: what comes every night is told once.

An incident lasts while the count stays high against what was expected when it began. Streams that are high at the same
time are one incident.
"""

from dataclasses import dataclass, field

import numpy as np

from analysis_service.anomalies.incident import Incident
from analysis_service.anomalies.records import DEVIATIONS, LEAST_DEVIATION, margin
from analysis_service.columns import EventColumns, Floats, Integers, Mask, joined_codes
from analysis_service.expressions import all_of, between, one_of
from analysis_service.words import number_in_words

LOCAL_BUCKETS = 60
WARM_UP_BUCKETS = 120
STREAMS_MAX = 500
EARLY_BUCKETS = 1440.0
RATE_MIN, REGULAR_SQUARE, PRIOR_BUCKETS = 1.0, 1.0, 10
# A stream as strong as this is high; whether that is an incident depends on how many others are.
HIGH = 0.7
# A stream with fewer events so far than known ones have must come in greater numbers.
KNOWN_EVENTS, COUNT_MIN, COUNT_MIN_UNKNOWN = 20, 3, 10
INCIDENTS_MAX = 1_000
# Buckets that may be quiet within an incident.
_PATIENCE = 2
_HOUR_NS = 3_600_000_000_000
_HOURS_A_WEEK = 168
_EVERYTHING = ("", "")


@dataclass(slots=True)
class _Open:
    """A stream that is high. buckets: numbers of the first and the last one that was; worst: count and strength."""

    stream: int
    first: int
    last: int
    expected: float
    count: float
    strength: float
    deviance: float


@dataclass(slots=True)
class _Streams:
    """State by stream, one number each, in arrays that grow together.

    settled: without the first LOCAL_BUCKETS buckets.
    """

    total: Floats = field(default_factory=lambda: np.zeros(0))
    record: Floats = field(default_factory=lambda: np.zeros(0))
    squares: Floats = field(default_factory=lambda: np.zeros(0))
    settled_record: Floats = field(default_factory=lambda: np.zeros(0))
    settled_squares: Floats = field(default_factory=lambda: np.zeros(0))
    recent: Floats = field(default_factory=lambda: np.zeros((LOCAL_BUCKETS, 0)))
    by_hour: Floats = field(default_factory=lambda: np.zeros((_HOURS_A_WEEK, 0)))

    def grow(self, size: int) -> None:
        more = size - len(self.total)
        by_stream = (self.total, self.record, self.squares, self.settled_record, self.settled_squares)
        self.total, self.record, self.squares, self.settled_record, self.settled_squares = (
            np.concatenate((each, np.zeros(more))) for each in by_stream
        )
        self.recent, self.by_hour = (np.pad(each, ((0, 0), (0, more))) for each in (self.recent, self.by_hour))


class RateDetector:
    """Judges counts bucket by bucket. Events must come in the order of time; the last bucket waits for its end."""

    def __init__(self, *, needed: float, bucket_ns: int = 60_000_000_000) -> None:
        self._needed = needed
        self._bucket_ns = bucket_ns
        self._names: dict[tuple[str | None, str | None], int] = {_EVERYTHING: 0}
        # All events together have a source of their own, which is number 0.
        self._sources: dict[str | None, int] = {"": 0}
        self._source_of: Integers = np.zeros(1, np.int64)
        self._streams = _Streams()
        self._streams.grow(1)
        self._bucket: int | None = None
        self._counts: Floats = np.zeros(1)
        self._buckets_seen = 0
        self._filled_buckets = 0
        self._hours_seen = np.zeros(_HOURS_A_WEEK)
        self._open: dict[int, _Open] = {}
        self._closed: list[_Open] = []

    def advance(self, events: EventColumns) -> None:
        """Take events, none before those taken already."""
        if not len(events):
            return
        numbers = self._stream_numbers(events)
        buckets = events.times // self._bucket_ns
        self._bucket = int(buckets[0]) if self._bucket is None else self._bucket
        width = len(self._names)
        known = numbers >= 0
        # Everything is stream 0, and each event counts there too.
        cells = np.concatenate((buckets * width, buckets[known] * width + numbers[known]))
        found, counts = np.unique(cells, return_counts=True)
        bucket_of, stream_of = np.divmod(found, width)
        borders = np.flatnonzero(np.diff(bucket_of)) + 1
        for bucket, streams, number in zip(
            bucket_of[np.concatenate(([0], borders))].tolist(),
            np.split(stream_of, borders),
            np.split(counts, borders),
            strict=True,
        ):
            self._close_until(max(bucket, self._bucket))
            self._counts[streams] += number

    def close_until(self, time_ns: int) -> None:
        """Nothing comes any more from before this time."""
        if self._bucket is not None:
            self._close_until(time_ns // self._bucket_ns)

    def incidents(self) -> list[Incident]:
        """All so far, streams at the same time put together."""
        now = self._bucket or 0
        alarms = sorted([*self._closed, *self._open.values()], key=lambda each: (each.first, each.stream))
        groups: list[list[_Open]] = []
        end = -_PATIENCE - 1
        for alarm in alarms:
            if alarm.first <= end + _PATIENCE and groups:
                groups[-1].append(alarm)
            else:
                groups.append([alarm])
                end = alarm.last
            end = max(end, alarm.last)
        return [self._incident(group, now) for group in groups]

    def _stream_numbers(self, events: EventColumns) -> Integers:
        codes, keys = joined_codes([events.labels("type"), events.labels("source")], len(events))
        for kind, source in keys:
            if len(self._names) <= STREAMS_MAX:
                self._names.setdefault((kind, source), len(self._names))
        size = len(self._names)
        self._source_of = np.array([self._sources.setdefault(source, len(self._sources)) for _, source in self._names])
        self._streams.grow(size)
        self._counts = np.concatenate((self._counts, np.zeros(size - len(self._counts))))
        return np.array([self._names.get((key[0], key[1]), -1) for key in keys], np.int64)[codes]

    def _close_until(self, bucket: int) -> None:
        assert self._bucket is not None
        while self._bucket < bucket:
            if not self._counts[0] and self._buckets_seen and not self._streams.recent.any() and not self._open:
                # Nothing happened for long: what is left of the gap is alike, and teaches nothing.
                self._bucket = bucket
                return
            self._judge(self._counts, self._bucket)
            self._counts = np.zeros_like(self._counts)
            self._bucket += 1

    def _judge(self, counts: Floats, bucket: int) -> None:
        streams = self._streams
        hour = int(bucket * self._bucket_ns // _HOUR_NS + 3 * 24) % _HOURS_A_WEEK
        regular = self._regular()
        expected = self._expected(hour, regular)
        deviance = _deviance(counts, expected)
        measure = self._measure(regular)
        strength: Floats = deviance / (margin(self._filled_buckets, EARLY_BUCKETS) * measure)
        known = streams.total >= KNOWN_EVENTS
        strength[counts < np.where(known, COUNT_MIN, COUNT_MIN_UNKNOWN)] = 0.0
        warm = self._filled_buckets >= WARM_UP_BUCKETS
        alarm = self._alarms(strength) if warm else np.zeros(len(counts), np.bool_)
        high = self._extend_open(counts, bucket, strength, deviance)
        for stream in np.flatnonzero(alarm & ~high).tolist():
            self._open[stream] = _Open(
                stream, bucket, bucket, *(float(each[stream]) for each in (expected, counts, strength, deviance))
            )
        self._learn(np.where(alarm | high, expected, counts), np.where(alarm | high, 0.0, deviance), hour)
        self._filled_buckets += bool(counts[0])

    def _alarms(self, strength: Floats) -> Mask:
        """Which streams are alarmed: those that are high, where they are high enough together."""
        high: Mask = strength >= HIGH
        if not high.any():
            return high
        by_source = np.zeros(len(self._sources))
        np.maximum.at(by_source, self._source_of[high], strength[high])
        together = max(float(np.sqrt(np.square(by_source[1:]).sum())), float(by_source[0]))
        return high if together >= self._needed else np.zeros(len(strength), np.bool_)

    @property
    def _settled_buckets(self) -> int:
        return max(1, self._buckets_seen - LOCAL_BUCKETS)

    def _regular(self) -> Mask:
        """Which streams come often, and as independent events do."""
        streams = self._streams
        often = streams.total >= RATE_MIN * max(self._buckets_seen, WARM_UP_BUCKETS)
        regular: Mask = often & (streams.settled_squares <= REGULAR_SQUARE * self._settled_buckets)
        return regular if self._buckets_seen >= WARM_UP_BUCKETS else np.zeros(len(regular), np.bool_)

    def _measure(self, regular: Mask) -> Floats:
        """What deviances are measured against."""
        streams = self._streams
        record = np.where(regular, streams.settled_record, streams.record)
        mean_square = np.where(
            regular, streams.settled_squares / self._settled_buckets, streams.squares / max(1, self._buckets_seen)
        )
        measure: Floats = np.maximum(record, DEVIATIONS * np.maximum(LEAST_DEVIATION, np.sqrt(mean_square)))
        return measure

    def _expected(self, hour: int, regular: Mask) -> Floats:
        streams, seen = self._streams, self._buckets_seen
        known, recent = min(LOCAL_BUCKETS, seen + 1), streams.recent.sum(axis=0)
        mean = (streams.total + 0.5) / (seen + 1)
        shrunk = (recent + PRIOR_BUCKETS * mean) / (known + PRIOR_BUCKETS)
        expected: Floats = np.where(regular, shrunk, np.maximum((recent + 0.5) / known, mean))
        if self._hours_seen[hour] >= 2 * _HOUR_NS / self._bucket_ns:
            np.maximum(expected, streams.by_hour[hour] / self._hours_seen[hour], out=expected)
        return expected

    def _extend_open(self, counts: Floats, bucket: int, strength: Floats, deviance: Floats) -> Mask:
        """Which streams are still high; the others close after some patience."""
        high = np.zeros(len(counts), np.bool_)
        for stream, alarm in list(self._open.items()):
            count = float(counts[stream])
            if count > alarm.expected + 3 * np.sqrt(alarm.expected) and count >= alarm.count / 3:
                high[stream] = True
                alarm.last = bucket
                alarm.deviance = max(alarm.deviance, float(deviance[stream]))
                if strength[stream] > alarm.strength:
                    alarm.strength = float(strength[stream])
                alarm.count = max(alarm.count, count)
            elif bucket - alarm.last > _PATIENCE:
                # What was told once is known: it is not new when it comes again.
                for record in (self._streams.record, self._streams.settled_record):
                    record[stream] = max(record[stream], alarm.deviance)
                self._closed.append(self._open.pop(stream))
                del self._closed[:-INCIDENTS_MAX]
        return high

    def _learn(self, counts: Floats, deviance: Floats, hour: int) -> None:
        streams = self._streams
        streams.recent[self._buckets_seen % LOCAL_BUCKETS] = counts
        streams.total += counts
        streams.by_hour[hour] += counts
        self._hours_seen[hour] += 1
        streams.record = np.maximum(streams.record, deviance)
        streams.squares += np.square(deviance)
        if self._buckets_seen >= LOCAL_BUCKETS:
            streams.settled_record = np.maximum(streams.settled_record, deviance)
            streams.settled_squares += np.square(deviance)
        self._buckets_seen += 1

    def _incident(self, group: list[_Open], now: int) -> Incident:
        names = list(self._names)
        group = sorted(group, key=lambda each: (-each.strength, each.stream))
        worst = group[0]
        first, last = min(each.first for each in group), max(each.last for each in group)
        start_ns, end_ns = first * self._bucket_ns, (last + 1) * self._bucket_ns
        named = [names[each.stream] for each in group if each.stream]
        types = tuple(dict.fromkeys(kind or "" for kind, _ in named))
        sources = tuple(dict.fromkeys(source for _, source in named if source is not None))
        what = "all events" if not worst.stream else f"{named[0][0]} of {named[0][1]}"
        others = f"; {len(group) - 1} other streams were high too" if len(group) > 1 else ""
        factor = number_in_words(worst.count / worst.expected)
        by_source: dict[int, float] = {}
        for each in group:
            source = int(self._source_of[each.stream])
            by_source[source] = max(each.strength, by_source.get(source, 0.0))
        everything = by_source.pop(0, 0.0)
        return Incident(
            "rate",
            max(everything, float(np.sqrt(sum(each**2 for each in by_source.values())))),
            types,
            sources,
            start_ns,
            end_ns,
            ongoing=any(each.stream in self._open and now - each.last <= _PATIENCE for each in group),
            expected_low=0.0,
            expected_high=float(worst.expected + DEVIATIONS * np.sqrt(worst.expected)),
            actual=worst.count,
            explanation=f"{what} came {number_in_words(worst.count)} times in {self._bucket_ns // 10**9} s, {factor} "
            f"times what was expected ({worst.expected:.3g}){others}",
            expression=all_of(one_of("type", types) if types else "", between(start_ns, end_ns)),
        )


def _deviance(counts: Floats, expected: Floats) -> Floats:
    """How far counts are above what is expected, in standard deviations of independent events; 0 below it."""
    above = counts > expected
    ratio = np.where(above, counts, expected) / expected
    signed: Floats = np.where(above, np.sqrt(np.maximum(0.0, 2 * (counts * np.log(ratio) - counts + expected))), 0.0)
    return signed
