"""Closed frequent subsequences: types that come in this order in many sequences, whatever comes in between.

Prefixes are tried in the order of their support, so that what a limit cuts off is always the rarest, and a higher
threshold finds a part of what a lower one finds. Without a span this is BIDE (Wang and Han, 2004): a pattern is
closed where no type can be put before, between or after its types without losing support, and a prefix whose every
first occurrence has a type in common in one of its gaps need not be tried. All sequences are looked at in one step of
numpy each.

With a span, an occurrence must lie within it: then all beginnings are followed, and closed are those patterns that
no longer one found contains with the same support.

Invariants: the same sequences give the same answer; limits count steps, not time, but for the budget.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis_service.budget import Budget
from analysis_service.columns import Integers

STEPS_MAX = 20_000
_NEXT_ENTRIES_MAX = 32_000_000
_SEPARATOR = -1


@dataclass(frozen=True, slots=True)
class Subsequence:
    """A pattern.

    codes: its types. support: weight of the sequences that hold it; prefix_support: of those that hold all of it but
    the last type.
    """

    codes: tuple[int, ...]
    support: int
    prefix_support: int


@dataclass(frozen=True, slots=True)
class Found:
    """complete: whether the search was finished; if not, all patterns with more support than `cut_support` are here."""

    patterns: list[Subsequence]
    complete: bool
    cut_support: int


class SubsequenceMiner:
    """Sequences prepared for the search. weights: how often each sequence occurs."""

    def __init__(
        self,
        sequences: Sequence[Sequence[int]],
        weights: Sequence[int],
        *,
        min_support: int,
        times: Sequence[Sequence[int]] | None = None,
        maxspan: int | None = None,
    ) -> None:
        assert (times is None) == (maxspan is None)
        self._weights = np.asarray(weights, np.int64)
        self._min_support = max(1, min_support)
        lengths = np.array([len(sequence) + 1 for sequence in sequences], np.int64)
        self._starts = np.cumsum(lengths) - lengths
        self._stops = self._starts + lengths - 1
        # A separator after each sequence, so that the place after its last type is still its own.
        self._flat = np.full(int(lengths.sum()), _SEPARATOR)
        self._times = np.zeros(len(self._flat), np.int64)
        inside = np.ones(len(self._flat), np.bool_)
        inside[self._stops] = False
        self._flat[inside] = [code for sequence in sequences for code in sequence]
        if times is not None:
            self._times[inside] = [time for sequence in times for time in sequence]
        self._maxspan = maxspan
        self._sequence_of = np.repeat(np.arange(len(sequences)), lengths)
        self._previous: dict[int, npt.NDArray[np.int32]] = {}
        self.types_left_out = 0
        self._codes = self._frequent_codes()
        self._next = np.stack([self._places(code, forwards=True) for code in self._codes]) if len(self._codes) else None

    def search(self, budget: Budget, *, length_max: int, steps_max: int = STEPS_MAX) -> Found:
        """The closed patterns of up to `length_max` types."""
        if self._next is None:
            return Found([], complete=True, cut_support=0)
        found: list[Subsequence] = []
        total = int(self._weights.sum())
        # By support, then the longer ones first, so that what makes a pattern not closed is seen before what is rarer.
        waiting: list[tuple[int, int, tuple[int, ...], int]] = [(-total, 0, (), total)]
        for step in range(steps_max):
            if not waiting:
                return Found(self._closed(found), complete=True, cut_support=0)
            if step % 64 == 0 and budget.spent():
                break
            support, _, prefix, prefix_support = heapq.heappop(waiting)
            state = self._follow(prefix)
            supports = self._extension_supports(state)
            if prefix and self._may_be_closed(prefix, state, -support, supports):
                found.append(Subsequence(self._named(prefix), -support, prefix_support))
            if len(prefix) < length_max and not self._is_hopeless(prefix, state):
                for code in np.flatnonzero(supports >= self._min_support).tolist():
                    heapq.heappush(waiting, (-int(supports[code]), -len(prefix) - 1, (*prefix, code), -support))
        if not waiting:
            return Found(self._closed(found), complete=True, cut_support=0)
        cut = -waiting[0][0]
        return Found(self._closed([each for each in found if each.support > cut]), complete=False, cut_support=cut)

    def holding(self, codes: Sequence[int]) -> list[int]:
        """Numbers of the sequences that hold a pattern."""
        own = {code: number for number, code in enumerate(self._codes)}
        state = self._follow(tuple(own[code] for code in codes))
        numbers: list[int] = np.unique(state.sequences).tolist()
        return numbers

    def _frequent_codes(self) -> list[int]:
        """Codes that enough sequences hold, the most frequent first, as many as there is room for."""
        present = np.unique(np.stack((self._flat, self._sequence_of)), axis=1)
        present = present[:, present[0] != _SEPARATOR]
        if not present.size:
            return []
        supports = np.bincount(present[0], self._weights[present[1]])
        codes = [code for code in np.argsort(-supports, kind="stable").tolist() if supports[code] >= self._min_support]
        room = max(1, _NEXT_ENTRIES_MAX // len(self._flat))
        self.types_left_out = max(0, len(codes) - room)
        return codes[:room]

    def _places(self, code: int, *, forwards: bool) -> npt.NDArray[np.int32]:
        """For each place the next one (or the one before) at or beyond it with the code in its sequence, else -1."""
        places = np.flatnonzero(self._flat == code)
        here = np.arange(len(self._flat))
        found = np.searchsorted(places, here, side="left" if forwards else "right") - (0 if forwards else 1)
        inside = (found >= 0) & (found < len(places))
        place = places[found.clip(0, len(places) - 1)]
        same = inside & (self._sequence_of[place] == self._sequence_of)
        return np.where(same, place, -1).astype(np.int32)

    def _named(self, prefix: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._codes[code] for code in prefix)

    def _follow(self, prefix: tuple[int, ...]) -> "_State":
        """Where a prefix occurs first in each sequence; with a span, from each of its beginnings."""
        assert self._next is not None
        if self._maxspan is None:
            firsts = [self._starts - 1]
            for code in prefix:
                place = self._next[code][firsts[-1] + 1]
                alive = place >= 0
                firsts = [*(each[alive] for each in firsts), place[alive].astype(np.int64)]
            return _State(firsts, self._sequence_of[firsts[-1] + (0 if prefix else 1)])
        if not prefix:
            return _State([self._starts - 1], np.arange(len(self._starts)))
        begin = np.flatnonzero(self._flat == self._codes[prefix[0]])
        place = begin
        for code in prefix[1:]:
            following = self._next[code][place + 1]
            alive = (following >= 0) & (self._times[following] - self._times[begin] <= self._maxspan)
            begin, place = begin[alive], following[alive].astype(np.int64)
        return _State([begin, place], self._sequence_of[begin])

    def _extension_supports(self, state: "_State") -> Integers:
        """Support of the prefix with each code put after it."""
        assert self._next is not None
        following = self._next[:, state.last + 1]
        holds = following >= 0
        if self._maxspan is None or len(state.firsts) == 1:
            return (holds @ self._weights[state.sequences]).astype(np.int64)
        if not len(state.sequences):
            return np.zeros(len(self._codes), np.int64)
        holds &= self._times[following] - self._times[state.firsts[0]] <= self._maxspan
        first = np.flatnonzero(np.concatenate(([True], np.diff(state.sequences) != 0)))
        anywhere = np.logical_or.reduceat(holds, first, axis=1)
        return (anywhere @ self._weights[state.sequences[first]]).astype(np.int64)

    def _may_be_closed(self, prefix: tuple[int, ...], state: "_State", support: int, supports: Integers) -> bool:
        if (supports == support).any():
            return False
        if self._maxspan is not None:
            return True
        return not self._common_type(prefix, state, self._stops[state.sequences])

    def _is_hopeless(self, prefix: tuple[int, ...], state: "_State") -> bool:
        """Whether every pattern that goes on from the prefix has a longer one with the same support."""
        return bool(prefix) and self._maxspan is None and self._common_type(prefix, state, state.last + 1)

    def _common_type(self, prefix: tuple[int, ...], state: "_State", stops: Integers) -> bool:
        """Whether all sequences have a type in common in one of the gaps of the prefix.

        A gap reaches from the first occurrence of what comes before it to the last of what comes after it, the
        occurrences lying before `stops`.
        """
        assert self._next is not None
        lasts = list(self._last_places(prefix, stops))
        for number, last in enumerate(reversed(lasts)):
            following = self._next[:, state.firsts[number] + 1]
            if ((following >= 0) & (following < last)).all(axis=1).any():
                return True
        return False

    def _last_places(self, prefix: tuple[int, ...], stops: Integers) -> Iterator[Integers]:
        """Last place of each type of the prefix before `stops` and before what follows it, the last type first."""
        place = stops
        for code in reversed(prefix):
            place = self._before(code)[place - 1].astype(np.int64)
            yield place

    def _before(self, code: int) -> npt.NDArray[np.int32]:
        if code not in self._previous:
            self._previous[code] = self._places(self._codes[code], forwards=False)
        return self._previous[code]

    def _closed(self, found: list[Subsequence]) -> list[Subsequence]:
        if self._maxspan is None:
            return found
        return [
            each
            for each in found
            if not any(
                len(other.codes) > len(each.codes) and other.support == each.support and _holds(other.codes, each.codes)
                for other in found
            )
        ]


@dataclass(frozen=True, slots=True)
class _State:
    """Where a prefix occurs.

    firsts: without a span, the place before the sequence and the first place of each type of the prefix, one array of
    sequences each; with a span, first and last place of each occurrence. sequences: of each entry.
    """

    firsts: list[Integers]
    sequences: Integers

    @property
    def last(self) -> Integers:
        """Where the last type of the prefix stands."""
        return self.firsts[-1]


def _holds(longer: tuple[int, ...], shorter: tuple[int, ...]) -> bool:
    rest = iter(longer)
    return all(code in rest for code in shorter)
