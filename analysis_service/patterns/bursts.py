"""`burst`: stretches in which the events of a type come much faster than usual.

Counts in equal bins are compared with two rates, the mean one and RATE_FACTOR times it: the running sum of the
logarithm of how much likelier the second is rises in a burst (cumulative sum test). A burst is where it rises by
EVIDENCE_MIN at least, events that usually come in clusters counting for less. Occurrences: the bursts of a type.
Confidence: the share of its events that lie in them.
"""

import numpy as np

from analysis_service.columns import Floats, Integers
from analysis_service.expressions import all_of, between
from analysis_service.patterns.pattern import SAMPLE_EVENTS_MAX, Pattern, PatternRequest
from analysis_service.patterns.streams import Stream, streams_of
from analysis_service.words import duration_in_words, number_in_words

RATE_FACTOR = 3.0
# One false burst in exp(14) beginnings, a million, if events came independently.
EVIDENCE_MIN = 14.0
_EVENTS_MIN = 10
_EVENTS_A_BIN = 4
_BINS_MAX = 16_384


def bursts(request: PatternRequest) -> list[Pattern]:
    """Types with at least `min_occurrence` bursts, those with most first."""
    found = []
    for stream in streams_of(request.events, ("type",), events_min=_EVENTS_MIN):
        pattern = _pattern(request, stream)
        if pattern is not None and pattern.occurrences >= request.min_occurrence:
            found.append(pattern)
        if request.budget.spent():
            request.notes.append("time ran out: not all types were looked at for bursts")
            break
    return request.best(found)


def burst_ranges(times: Integers) -> list[tuple[int, int]]:
    """Bursts of sorted times, each as [start, end) in nanoseconds, in the order of time."""
    begin, length = int(times[0]), int(times[-1] - times[0]) + 1
    bins = int(min(_BINS_MAX, max(16, len(times) // _EVENTS_A_BIN)))
    width = -(-length // bins)
    counts = np.bincount((times - begin) // width, minlength=bins)
    evidence = (counts * np.log(RATE_FACTOR) - counts.mean() * (RATE_FACTOR - 1)) / _dispersion(counts)
    total = np.concatenate(([0.0], np.cumsum(evidence)))
    risen = total - np.minimum.accumulate(total)
    ranges = []
    for first, stop in _positive_runs(risen):
        peak = first + int(np.argmax(risen[first:stop]))
        if risen[peak] >= EVIDENCE_MIN:
            ranges.append((begin + (first - 1) * width, min(begin + peak * width, begin + length)))
    return ranges


def _dispersion(counts: Integers) -> float:
    """Variance of the counts by their mean, at least 1: how much less a count says where events come in clusters.

    The fullest twentieth is left out, for it may be the bursts.
    """
    usual = np.sort(counts)[: max(2, len(counts) - len(counts) // 20)]
    return max(1.0, float(usual.var() / max(usual.mean(), 1e-9)))


def _positive_runs(risen: Floats) -> list[tuple[int, int]]:
    change = np.diff(np.concatenate(([False], risen > 0, [False])).astype(np.int8))
    return list(zip(np.flatnonzero(change == 1).tolist(), np.flatnonzero(change == -1).tolist(), strict=True))


def _pattern(request: PatternRequest, stream: Stream) -> Pattern | None:
    ranges = burst_ranges(stream.times)
    if not ranges:
        return None
    starts, ends = (np.array(side) for side in zip(*ranges, strict=True))
    place = np.searchsorted(starts, stream.times, side="right") - 1
    inside = (place >= 0) & (stream.times < ends[place.clip(0)])
    number = int(inside.sum())
    lasting = float((ends - starts).sum())
    outside_rate = (len(stream.times) - number) / max(1.0, float(stream.times[-1] - stream.times[0]) - lasting)
    factor = number / lasting / outside_rate if outside_rate else float("inf")
    faster = f"{number_in_words(factor)} times as fast as usual" if np.isfinite(factor) else "and never otherwise"
    lasting_usually = duration_in_words(float(np.median(ends - starts)) / 1e9)
    fullest = int(np.argmax(np.bincount(place[inside], minlength=len(ranges))))
    rows = stream.rows[inside & (place == fullest)]
    return Pattern(
        "burst",
        (stream.type,),
        occurrences=len(ranges),
        cases=0,
        frequency=request.rate(len(ranges)),
        support=len(stream.times) / len(request.events),
        confidence=number / len(stream.times),
        description=f"{stream.name} comes in {len(ranges)} bursts, {faster}, usually for {lasting_usually}; they hold "
        f"{number / len(stream.times):.0%} of its events",
        expression=all_of(stream.expression, between(*ranges[fullest])),
        samples=tuple(request.events.positions[rows[:SAMPLE_EVENTS_MAX]].tolist()),
    )
