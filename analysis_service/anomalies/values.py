"""`value`: numbers in payloads that are unlike those before, in their series.

A series is a payload field of a type of a source. Where its events come at regular times it is a measurement, and the
course of it is judged (see `novelty`); else its events are independent, and what is judged are their numbers as a
population (see `population`). Which of both is decided by its first points: measurements are not taken in quick
succession, and either their gaps are much alike, or each number resembles the one before.

An incident lasts while values stay outside of the range known before it.
"""

from dataclasses import dataclass

import numpy as np

from analysis_service.anomalies.incident import Incident
from analysis_service.anomalies.novelty import REFRACTORY, WARM_UP, NoveltyDetector
from analysis_service.anomalies.population import BUCKET_NS, Judgement, Population
from analysis_service.columns import EventColumns, Floats, Integers, joined_codes
from analysis_service.expressions import all_of, between, equals
from analysis_service.words import number_in_words

SERIES_MAX = 200
INCIDENTS_MAX = 1_000
# Novelty that the default sensitivity reports: in the middle of where the benchmark's score hardly depends on it.
NOVELTY_NEEDED = 1.6
_PATIENCE = 3
# Of the gaps of a measurement, at most this share is shorter than this part of the usual one.
_QUICK_SHARE_MAX, _QUICK = 0.08, 0.25
_ALIKE_SHARE, _ALIKE = 0.6, 2.0
_RESEMBLANCE = 0.4
_GAPS_TO_BE_SURE, _ALIKE_SHARE_MIN = 150, 0.48


@dataclass(slots=True)
class _Alarm:
    """Something found. inside: how many points have been as usual since."""

    start_ns: int
    end_ns: int
    low: float
    high: float
    actual: float
    strength: float
    what: str
    inside: int = 0
    points: int = 0


class ValueDetector:
    """Judges the numbers of fields. Events must come in the order of time."""

    def __init__(self, *, needed: float, fields: tuple[str, ...]) -> None:
        self._needed = needed
        self._fields = fields
        self._series: dict[tuple[str, str, str | None], _Series] = {}
        self.series_left_out = 0

    def advance(self, events: EventColumns) -> None:
        """Take events, none before those taken already."""
        for field in self._fields:
            if events.has(field):
                self._take(events, field)

    def finish(self) -> None:
        """Nothing comes any more."""
        for series in self._series.values():
            series.finish()

    def incidents(self) -> list[Incident]:
        """All so far."""
        return [incident for series in self._series.values() for incident in series.incidents()]

    def _take(self, events: EventColumns, field: str) -> None:
        numbers = events.numbers(field)
        rows = np.flatnonzero(np.isfinite(numbers))
        types, sources = (events.labels(name).take(rows) for name in ("type", "source"))
        codes, keys = joined_codes([types, sources], len(rows))
        for code, (kind, source) in enumerate(keys):
            key = (field, kind or "", source)
            if key not in self._series:
                if len(self._series) >= SERIES_MAX:
                    self.series_left_out += 1
                    continue
                self._series[key] = _Series(key, self._needed)
            mine = rows[codes == code]
            self._series[key].take(events.times[mine].tolist(), numbers[mine].tolist())


class _Series:
    def __init__(self, key: tuple[str, str, str | None], needed: float) -> None:
        self._key = key
        self._needed = needed
        self._first: list[tuple[int, float]] = []
        self._novelty: NoveltyDetector | None = None
        self._population: Population | None = None
        self._usual_gap = 0.0
        self._last_time = self._gaps = self._gaps_alike = 0
        self._found: list[_Alarm] = []
        self._open: _Alarm | None = None

    def take(self, times: list[int], values: list[float]) -> None:
        for time, value in zip(times, values, strict=True):
            if self._novelty is not None:
                self._measure(self._novelty, time, value)
            elif self._population is not None:
                self._count(self._population, time, value)
            else:
                self._first.append((time, value))
                if len(self._first) > WARM_UP:
                    self._decide()

    def finish(self) -> None:
        if self._population is not None:
            self._take_judgement(self._population.close(self._needed))

    def incidents(self) -> list[Incident]:
        return [self._incident(each) for each in self._found]

    def _decide(self) -> None:
        times, values = (np.array(column) for column in zip(*self._first, strict=True))
        self._usual_gap, self._last_time = float(np.median(np.diff(times))), int(times[0])
        if _is_measurement(np.diff(times), values):
            self._novelty = NoveltyDetector()
        else:
            self._population = Population()
        first, self._first = self._first, []
        self.take([time for time, _ in first], [value for _, value in first])

    def _measure(self, novelty: NoveltyDetector, time: int, value: float) -> None:
        if self._was_mistaken(time):
            self._novelty, self._population, self._found, self._open = None, Population(), [], None
            self._count(self._population, time, value)
            return
        low, high = novelty.usual_range
        strength = novelty.push(value) / NOVELTY_NEEDED
        if self._open is not None:
            self._go_on(self._open, time, inside=self._open.low <= value <= self._open.high)
        if strength >= self._needed:
            self._alarm(_Alarm(time, time + 1, low, high, value, strength, "a new value"))

    def _was_mistaken(self, time: int) -> bool:
        """Whether the gaps turn out not to be alike, after a while: then it was no measurement."""
        gap, self._last_time = time - self._last_time, time
        self._gaps += 1
        self._gaps_alike += self._usual_gap <= gap * _ALIKE and gap <= self._usual_gap * _ALIKE
        return self._gaps >= _GAPS_TO_BE_SURE and self._gaps_alike < _ALIKE_SHARE_MIN * self._gaps

    def _count(self, population: Population, time: int, value: float) -> None:
        self._take_judgement(population.push(time, value, self._needed))

    def _take_judgement(self, judgement: Judgement | None) -> None:
        if judgement is None:
            return
        if self._open is not None:
            self._go_on(self._open, judgement.start_ns + BUCKET_NS - 1, inside=judgement.strength < self._needed)
        if judgement.strength >= self._needed:
            start, actual = judgement.start_ns, judgement.actual
            end, what = start + BUCKET_NS, judgement.what
            self._alarm(_Alarm(start, end, judgement.low, judgement.high, actual, judgement.strength, what))

    def _alarm(self, alarm: _Alarm) -> None:
        if self._open is None:
            self._found.append(alarm)
            del self._found[:-INCIDENTS_MAX]
            self._open = alarm
            return
        self._open.end_ns = max(self._open.end_ns, alarm.end_ns)
        if alarm.strength > self._open.strength:
            self._open.strength, self._open.actual, self._open.what = alarm.strength, alarm.actual, alarm.what

    def _go_on(self, alarm: _Alarm, time: int, *, inside: bool) -> None:
        alarm.points += 1
        if alarm.points >= REFRACTORY:
            # What lasts so long is how things are now.
            self._open = None
            return
        if not inside:
            alarm.inside, alarm.end_ns = 0, max(alarm.end_ns, time + 1)
            return
        alarm.inside += 1
        if alarm.inside > _PATIENCE:
            self._open = None

    def _incident(self, alarm: _Alarm) -> Incident:
        field, kind, source = self._key
        low, high, actual = (number_in_words(each) for each in (alarm.low, alarm.high, alarm.actual))
        if alarm.low <= alarm.actual <= alarm.high:
            how = f"was {actual}: its course is unlike any before, though values from {low} to {high} are known"
        else:
            how = f"was {actual} ({alarm.what}), where {low} to {high} is usual"
        return Incident(
            "value",
            alarm.strength,
            (kind,),
            () if source is None else (source,),
            alarm.start_ns,
            alarm.end_ns,
            ongoing=alarm is self._open,
            expected_low=alarm.low,
            expected_high=alarm.high,
            actual=alarm.actual,
            explanation=f"{field} of {kind} from {source or 'an unknown source'} {how}",
            expression=all_of(equals("type", kind), equals("source", source), between(alarm.start_ns, alarm.end_ns)),
        )


def _is_measurement(gaps: Integers, values: Floats) -> bool:
    usual = np.median(gaps)
    if float((gaps < _QUICK * usual).mean()) > _QUICK_SHARE_MAX:
        return False
    alike = float(((gaps * _ALIKE >= usual) & (gaps <= _ALIKE * usual)).mean())
    return alike >= _ALIKE_SHARE or _resemblance(values) >= _RESEMBLANCE


def _resemblance(values: Floats) -> float:
    """Correlation of the ranks of each value and the one before."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable") - (len(values) - 1) / 2
    return float((ranks[1:] * ranks[:-1]).sum() / np.square(ranks).sum())
