"""`rate`: streams of events that come faster than ever before.

A stream is a type of a source. All events together are one too, and so are the cases that are active, and those of two
buckets together: events of one case come in clusters, cases by themselves, so a rate of cases shows where that of
events hides. Counts in equal buckets are judged one bucket after the other, all streams at once (see `streams`).

Strengths of different sources at the same time add up by their squares; that of all together stands by itself. What is
an alarm does not become part of what is expected, but once it is over it is part of the record: what comes every night
is told once.

An incident lasts while the count stays high against what was expected when it began. Streams that are high at the same
time are one incident.
"""

import numpy as np

from analysis_service.anomalies.alarms import PATIENCE, Alarm, Alarms
from analysis_service.anomalies.cases import ActiveCases
from analysis_service.anomalies.incident import Incident
from analysis_service.anomalies.records import DEVIATIONS
from analysis_service.anomalies.streams import HOURS_A_WEEK, Judged, Streams
from analysis_service.columns import EventColumns, Floats, Integers, Mask, joined_codes
from analysis_service.expressions import all_of, between, one_of
from analysis_service.words import number_in_words

STREAMS_MAX = 500
# A stream as strong as this is high; whether that is an incident depends on how many others are.
HIGH = 0.7
_HOUR_NS = 3_600_000_000_000
# The epoch was a Thursday; weeks begin on Monday.
_EPOCH_HOUR = 3 * 24
# Streams of all events have numbers of their own, and a source of their own, which is number 0.
_EVENTS, _CASES, _CASE_PAIRS = 0, 1, 2
_OF_ALL = 3
_WORDS = ("events came", "cases were active", "cases were active")
# They are three ways to see the same, and so three occasions for an alarm.
_CAUTION = 0.85


class RateDetector:
    """Judges counts bucket by bucket. Events must come in the order of time; the last bucket waits for its end.

    case_key: the field that tells cases apart.
    """

    def __init__(self, *, needed: float, bucket_ns: int = 60_000_000_000, case_key: str = "correlation_id") -> None:
        self._needed = needed
        self._bucket_ns = bucket_ns
        self._cases = ActiveCases(case_key)
        self._names: dict[tuple[str | None, str | None], int] = {}
        self._sources: dict[str | None, int] = {}
        self._source_of: Integers = np.zeros(_OF_ALL, np.int64)
        self._streams = Streams(bucket_ns / 1e9)
        self._streams.grow(_OF_ALL)
        self._bucket: int | None = None
        self._counts: Floats = np.zeros(_OF_ALL)
        self._before: Judged | None = None
        self._alarms = Alarms()

    def advance(self, events: EventColumns) -> None:
        """Take events, none before those taken already."""
        if not len(events):
            return
        numbers = self._stream_numbers(events)
        buckets = events.times // self._bucket_ns
        self._bucket = int(buckets[0]) if self._bucket is None else self._bucket
        width, known = len(self._counts), numbers >= 0
        cells = (buckets * width + _EVENTS, self._cases.advance(events, buckets) * width + _CASES)
        found, counts = np.unique(np.concatenate((*cells, buckets[known] * width + numbers[known])), return_counts=True)
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
        return [self._incident(group, self._bucket or 0) for group in self._alarms.together()]

    def _stream_numbers(self, events: EventColumns) -> Integers:
        codes, keys = joined_codes([events.labels("type"), events.labels("source")], len(events))
        for kind, source in keys:
            if len(self._names) < STREAMS_MAX:
                self._names.setdefault((kind, source), _OF_ALL + len(self._names))
        size = _OF_ALL + len(self._names)
        numbers = [self._sources.setdefault(source, 1 + len(self._sources)) for _, source in self._names]
        self._source_of = np.array([0] * _OF_ALL + numbers)
        self._streams.grow(size)
        self._counts = _grown(self._counts, size)
        return np.array([self._names.get((key[0], key[1]), -1) for key in keys], np.int64)[codes]

    def _close_until(self, bucket: int) -> None:
        assert self._bucket is not None
        while self._bucket < bucket:
            streams = self._streams
            if not self._counts[0] and streams.buckets_seen and not streams.recent.any() and not self._alarms.open:
                # Nothing happened for long: what is left of the gap is alike, and teaches nothing.
                self._bucket = bucket
                return
            before = 0.0 if self._before is None else self._before.counts[_CASES]
            self._counts[_CASE_PAIRS] = min(self._counts[_CASES], before)
            self._judge(self._counts, self._bucket)
            self._counts = np.zeros_like(self._counts)
            self._bucket += 1

    def _judge(self, counts: Floats, bucket: int) -> None:
        hour = int(bucket * self._bucket_ns // _HOUR_NS + _EPOCH_HOUR) % HOURS_A_WEEK
        judged = self._streams.judge(counts, hour)
        judged.strength[:_OF_ALL] *= _CAUTION
        high = self._alarms.extend(judged, bucket)
        for ended in self._alarms.end(bucket):
            self._streams.remember(ended.stream, ended.deviance)
        alarmed = self._alarmed(judged.strength) if self._streams.are_warm else np.zeros(len(counts), np.bool_)
        began = self._began_before(judged) & alarmed
        for stream in np.flatnonzero(alarmed & ~high).tolist():
            if stream not in self._alarms.open:
                self._alarms.begin(stream, judged, first=bucket - int(began[stream]), bucket=bucket)
        judged.unusual[:] = alarmed | high
        self._learn_before(began)
        self._before = judged

    def _learn_before(self, began: Mask) -> None:
        """Learn the bucket before: now it is known in which streams an incident began in it."""
        if self._before is not None:
            self._before.unusual[:] |= began[: len(self._before.unusual)]
            self._streams.learn(self._before)

    def _alarmed(self, strength: Floats) -> Mask:
        """Which streams are alarmed: those that are high, where they are high enough together."""
        high: Mask = strength >= HIGH
        if not high.any():
            return high
        by_source = np.zeros(1 + len(self._sources))
        np.maximum.at(by_source, self._source_of[high], strength[high])
        together = max(float(np.sqrt(np.square(by_source[1:]).sum())), float(by_source[0]))
        return high if together >= self._needed else np.zeros(len(strength), np.bool_)

    def _began_before(self, judged: Judged) -> Mask:
        """In which streams an alarm began in the bucket before: it was high there, though not enough for an alarm."""
        size = len(judged.counts)
        if self._before is None:
            return np.zeros(size, np.bool_)
        counts, strength = (_grown(each, size) for each in (self._before.counts, self._before.strength))
        began: Mask = (strength >= HIGH) & (counts >= judged.counts / 3)
        began[_CASE_PAIRS] = True
        return began

    def _incident(self, group: list[Alarm], now: int) -> Incident:
        names = list(self._names)
        group = sorted(group, key=lambda each: (-each.strength, each.stream))
        worst = group[0]
        first, last = min(each.first for each in group), max(each.last for each in group)
        start_ns, end_ns = first * self._bucket_ns, (last + 1) * self._bucket_ns
        named = [names[each.stream - _OF_ALL] for each in group if each.stream >= _OF_ALL]
        types = tuple(dict.fromkeys(kind or "" for kind, _ in named))
        sources = tuple(dict.fromkeys(source for _, source in named if source is not None))
        return Incident(
            "rate",
            self._strength(group),
            types,
            sources,
            start_ns,
            end_ns,
            ongoing=any(each.stream in self._alarms.open and now - each.last <= PATIENCE for each in group),
            expected_low=0.0,
            expected_high=float(worst.expected + DEVIATIONS * np.sqrt(worst.expected)),
            actual=worst.count,
            explanation=self._explanation(worst, others=len(group) - 1),
            expression=all_of(one_of("type", types) if types else "", between(start_ns, end_ns)),
        )

    def _strength(self, group: list[Alarm]) -> float:
        """How strong streams are together, as in _alarmed."""
        by_source: dict[int, float] = {0: 0.0}
        for each in group:
            source = int(self._source_of[each.stream])
            by_source[source] = max(each.strength, by_source.get(source, 0.0))
        of_all = by_source.pop(0)
        return max(of_all, float(np.sqrt(sum(each**2 for each in by_source.values()))))

    def _explanation(self, worst: Alarm, *, others: int) -> str:
        number, seconds = number_in_words(worst.count), self._bucket_ns // 10**9
        if worst.stream < _OF_ALL:
            what = f"{number} {_WORDS[worst.stream]} in {seconds * (1 + (worst.stream == _CASE_PAIRS))} s"
        else:
            kind, source = list(self._names)[worst.stream - _OF_ALL]
            what = f"{kind} of {source} came {number} times in {seconds} s"
        factor = number_in_words(worst.count / worst.expected)
        more = f"; {others} other streams were high too" if others else ""
        return f"{what}, {factor} times what was expected ({worst.expected:.3g}){more}"


def _grown(numbers: Floats, size: int) -> Floats:
    return np.concatenate((numbers, np.zeros(size - len(numbers))))
