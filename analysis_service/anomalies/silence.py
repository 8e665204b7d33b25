"""`missing`: events that come regularly, as heartbeats do, and stop.

A stream is a type of a host, where events name one, else of a source. It is regular where its usual gap varies little:
then a gap that is much longer than the longest one so far, and than the usual one, is an incident, from when the next
event was due until it comes; it is ongoing where none has come yet.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from analysis_service.anomalies.incident import Incident
from analysis_service.columns import EventColumns, joined_codes
from analysis_service.expressions import all_of, between, equals, one_of
from analysis_service.words import duration_in_words, number_in_words

STREAMS_MAX = 5_000
INCIDENTS_MAX = 1_000
GAPS_KEPT = 64
_GAPS_MIN = 30
_USUAL_NS_MIN = 1_000_000_000
# A regular stream was never silent for more than so many usual gaps, but for what was told as an incident.
_LONGEST_USUAL = 4.0
# Median distance of the gaps from their median, in terms of it.
_IRREGULARITY_MAX = 0.1
# Of the usual gap, and of the longest one: so many make an incident at the default sensitivity.
_USUAL_GAPS, _LONGEST_GAPS = 3.0, 2.0


@dataclass(frozen=True, slots=True)
class _Silence:
    due_ns: int
    until_ns: int
    usual_ns: float
    strength: float
    ongoing: bool


@dataclass(slots=True)
class _Stream:
    last_ns: int
    gaps: deque[int] = field(default_factory=lambda: deque(maxlen=GAPS_KEPT))
    longest: int = 0
    found: list[_Silence] = field(default_factory=list)

    def take(self, times: list[int], needed: float) -> None:
        for time in times:
            silence = self.silence(time, ongoing=False)
            gap = time - self.last_ns
            if silence is not None and silence.strength >= needed:
                self.found.append(silence)
                del self.found[:-INCIDENTS_MAX]
            else:
                self.gaps.append(gap)
                self.longest = max(self.longest, gap)
            self.last_ns = time

    def silence(self, now_ns: int, *, ongoing: bool) -> _Silence | None:
        """The gap until now, if the stream is regular and the gap is long enough to be worth a look."""
        gap = now_ns - self.last_ns
        if len(self.gaps) < _GAPS_MIN or gap <= self.longest:
            return None
        usual = float(np.median(self.gaps))
        if usual < _USUAL_NS_MIN or self.longest > _LONGEST_USUAL * usual:
            return None
        if float(np.median(np.abs(np.array(self.gaps) - usual))) > _IRREGULARITY_MAX * usual:
            return None
        ratio = min(gap / (_USUAL_GAPS * usual), gap / (_LONGEST_GAPS * self.longest))
        strength = ratio if ratio < 1 else 1 + float(np.log(ratio))
        return _Silence(self.last_ns + int(usual), now_ns, usual, strength, ongoing)


class SilenceDetector:
    """Watches gaps. Events must come in the order of time."""

    def __init__(self, *, needed: float) -> None:
        self._needed = needed
        self._streams: dict[tuple[str, str, str], _Stream] = {}
        self._now_ns = 0

    def advance(self, events: EventColumns) -> None:
        """Take events, none before those taken already."""
        if not len(events):
            return
        self._now_ns = max(self._now_ns, int(events.times[-1]))
        place = "metadata.host" if events.has("metadata.host") else "source"
        codes, keys = joined_codes([events.labels("type"), events.labels(place)], len(events))
        order = np.argsort(codes, kind="stable")
        borders = np.searchsorted(codes[order], np.arange(len(keys) + 1))
        for number, (kind, name) in enumerate(keys):
            times = events.times[order[borders[number] : borders[number + 1]]].tolist()
            key = (kind or "", place, name or "")
            if key not in self._streams and len(self._streams) < STREAMS_MAX:
                self._streams[key] = _Stream(times.pop(0))
            if key in self._streams:
                self._streams[key].take(times, self._needed)

    def close_until(self, time_ns: int) -> None:
        """Nothing comes any more from before this time."""
        self._now_ns = max(self._now_ns, time_ns)

    def incidents(self) -> list[Incident]:
        """All so far, those that still last included."""
        found: list[tuple[str, _Silence, str, str]] = []
        for (kind, place, name), stream in self._streams.items():
            silences = list(stream.found)
            now = stream.silence(self._now_ns, ongoing=True)
            if now is not None and now.strength >= self._needed:
                silences.append(now)
            found += [(kind, silence, place, name) for silence in silences]
        found.sort(key=lambda each: (each[0], each[1].due_ns, each[3]))
        groups: list[list[tuple[str, _Silence, str, str]]] = []
        for each in found:
            if groups and _together(groups[-1][0], each):
                groups[-1].append(each)
            else:
                groups.append([each])
        return [_incident(group) for group in groups]


def _together(first: tuple[str, _Silence, str, str], other: tuple[str, _Silence, str, str]) -> bool:
    """Whether two streams of a type fell silent within a usual gap of each other."""
    return first[0] == other[0] and other[1].due_ns - first[1].due_ns <= first[1].usual_ns


def _incident(group: list[tuple[str, _Silence, str, str]]) -> Incident:
    kind, worst, place, name = max(group, key=lambda each: each[1].strength)
    names = [each[3] for each in group if each[3]]
    lasting = (worst.until_ns - worst.due_ns + worst.usual_ns) / 1e9
    usual = worst.usual_ns / 1e9
    start = min(each[1].due_ns for each in group)
    end = max(each[1].until_ns for each in group)
    who = f"{len(group)} streams, among them {name}," if len(group) > 1 else name or "an unknown place"
    has_come = "nothing has come for" if worst.ongoing else "nothing came for"
    return Incident(
        "missing",
        worst.strength,
        (kind,),
        tuple(names) if place == "source" else (),
        start,
        end,
        ongoing=any(each[1].ongoing for each in group),
        expected_low=0.0,
        expected_high=usual,
        actual=lasting,
        explanation=f"{kind} of {who} comes every {duration_in_words(usual)}, but {has_come} "
        f"{duration_in_words(lasting)}, {number_in_words(lasting / usual)} times as long",
        expression=all_of(
            equals("type", kind),
            one_of(place, names) if names else "",
            between(start - int(worst.usual_ns), end + 1),
        ),
    )
