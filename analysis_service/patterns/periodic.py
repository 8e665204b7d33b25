"""`periodic`: events that come at regular intervals, and types whose rate has a rhythm.

Regular: the median distance of the gaps between the events of a stream from their median is small against it.
Confidence: the share of gaps that are one period, within a tenth of it. A stream is a type of a host, or of a source,
or a type by itself, whichever is the most special that is regular: heartbeats of many hosts, taken together, may look
regular too.

Rhythm: the counts of a type in equal bins resemble themselves one period later (autocorrelation by FFT). Confidence:
that correlation. At least three periods must have been seen.
"""

import numpy as np

from analysis_service.columns import Floats
from analysis_service.patterns.pattern import SAMPLE_EVENTS_MAX, Pattern, PatternRequest
from analysis_service.patterns.streams import Stream, streams_of
from analysis_service.words import duration_in_words

_STREAM_FIELDS = (("type", "metadata.host"), ("type", "source"), ("type",))
_EVENTS_MIN = 5
_DEVIATION_SHARE_MAX = 0.1
_TOLERANCE = 0.1
_CONFIDENCE_MIN = 0.7
# Finer bins tell shorter periods, fuller ones are less noisy.
_BINS_MIN, _BINS_MAX, _EVENTS_A_BIN = 32, 4_096, 16
_CORRELATION_MIN = 0.4
_PERIODS_MIN = 3
_SHORTEST_LAG = 4


def periodic(request: PatternRequest) -> list[Pattern]:
    """Streams that are regular or have a rhythm, the most frequent first."""
    found: list[Pattern] = []
    explained: set[str] = set()
    for fields in _STREAM_FIELDS:
        if not all(request.events.has(field) for field in fields):
            continue
        for stream in streams_of(request.events, fields, events_min=max(_EVENTS_MIN, request.min_occurrence)):
            if stream.type in explained:
                continue
            pattern = _regular(request, stream)
            if pattern is not None:
                found.append(pattern)
        explained |= {pattern.types[0] for pattern in found}
        if request.budget.spent():
            request.notes.append("time ran out: not all streams were looked at for periods")
            return request.best(found)
    for stream in streams_of(request.events, ("type",), events_min=max(_EVENTS_MIN, request.min_occurrence)):
        rhythm = None if stream.type in explained else _rhythm(request, stream)
        found += [rhythm] if rhythm else []
    return request.best(found)


def _regular(request: PatternRequest, stream: Stream) -> Pattern | None:
    gaps = np.diff(stream.times) / 1e9
    period = float(np.median(gaps))
    if period <= 0 or float(np.median(np.abs(gaps - period))) > _DEVIATION_SHARE_MAX * period:
        return None
    confidence = float((np.abs(gaps - period) <= _TOLERANCE * period).mean())
    if confidence < _CONFIDENCE_MIN:
        return None
    description = f"{stream.name} comes every {duration_in_words(period)}; {confidence:.0%} of the gaps are that long"
    return _pattern(request, stream, period, confidence, description)


def _rhythm(request: PatternRequest, stream: Stream) -> Pattern | None:
    length = float(stream.times[-1] - stream.times[0])
    if length <= 0:
        return None
    bins = min(_BINS_MAX, max(_BINS_MIN, len(stream.times) // _EVENTS_A_BIN))
    place = ((stream.times - stream.times[0]) * (bins / length)).astype(np.int64).clip(0, bins - 1)
    correlation = _autocorrelation(np.bincount(place, minlength=bins).astype(np.float64))
    lags = np.arange(_SHORTEST_LAG, bins // _PERIODS_MIN)
    peaks = lags[(correlation[lags] >= correlation[lags - 1]) & (correlation[lags] >= correlation[lags + 1])]
    peaks = peaks[correlation[peaks] >= _CORRELATION_MIN]
    if not len(peaks):
        return None
    # The shortest of those that are nearly as good as the best, for twice a period is a period too.
    lag = int(peaks[correlation[peaks] >= 0.9 * correlation[peaks].max()][0])
    period, confidence = lag * length / bins / 1e9, float(correlation[lag])
    description = (
        f"the rate of {stream.name} has a rhythm of {duration_in_words(period)} (correlation {confidence:.2f})"
    )
    return _pattern(request, stream, period, confidence, description)


def _autocorrelation(counts: Floats) -> Floats:
    """By lag, 1 at lag 0; unbiased by the shorter overlap of longer lags."""
    centred = counts - counts.mean()
    spectrum = np.fft.rfft(centred, 2 * len(counts))
    sums = np.fft.irfft(np.abs(spectrum) ** 2)[: len(counts)]
    overlap = np.arange(len(counts), 0, -1) / len(counts)
    variance = sums[0]
    correlation: Floats = sums / overlap / variance if variance > 0 else np.zeros(len(counts))
    return correlation


def _pattern(request: PatternRequest, stream: Stream, period: float, confidence: float, description: str) -> Pattern:
    return Pattern(
        "periodic",
        (stream.type,),
        occurrences=len(stream.rows),
        cases=0,
        frequency=request.rate(len(stream.rows)),
        support=len(stream.rows) / len(request.events),
        confidence=confidence,
        description=description,
        expression=stream.expression,
        samples=tuple(request.events.positions[stream.rows[:SAMPLE_EVENTS_MAX]].tolist()),
        period_s=period,
    )
