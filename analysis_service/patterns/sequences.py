"""`sequence`: runs of types that come one right after the other in cases, closed ones only.

Occurrences count every place where the run stands, overlapping ones too. A run is closed where no run that is one
longer, to either side, stands as often: what is left out says nothing more. Confidence: of the places where the run
without its last type stands, the share where it goes on with it.
"""

from dataclasses import dataclass

import numpy as np

from analysis_service.columns import Integers, Mask
from analysis_service.expressions import all_of, one_of
from analysis_service.patterns.cases import Cases
from analysis_service.patterns.pattern import Pattern, PatternRequest
from analysis_service.words import duration_in_words

LENGTH_MAX = 10


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of one length. places: where each stands; code: which run stands there; counts: by code."""

    places: Integers
    code: Integers
    counts: Integers


def sequences(request: PatternRequest) -> list[Pattern]:
    """Closed contiguous sequences of 2 to `max_length` types, within `maxspan` where that is given."""
    cases = request.cases
    length_max = min(int(request.parameters.get("max_length", 6)), LENGTH_MAX)
    span_s = float(request.parameters.get("maxspan") or 0)
    maxspan_ns = int(span_s * 1e9) if span_s else None
    shorter = runs = _single(cases)
    found: list[Pattern] = []
    # One longer than asked for, to see whether the longest ones are closed.
    for length in range(2, length_max + 2):
        longer = _longer(cases, runs, length, request.min_occurrence, maxspan_ns)
        if length > 2:
            found += _patterns(request, runs, _closed(runs, longer), length - 1, shorter)
        shorter, runs = runs, longer
        if not len(runs.places):
            break
        if request.budget.spent():
            request.notes.append(f"time ran out: sequences of {length} and more types were not looked at")
            break
        request.budget.progress("sequence", length / (length_max + 1))
    return request.best(found)


def _single(cases: Cases) -> _Runs:
    return _Runs(np.arange(len(cases.codes)), cases.codes, np.bincount(cases.codes, minlength=len(cases.types)))


def _longer(cases: Cases, runs: _Runs, length: int, min_occurrence: int, maxspan_ns: int | None) -> _Runs:
    """Runs of `length` types; only those that begin and end with runs one shorter that are frequent."""
    code_at = np.full(len(cases.codes) + 1, -1)
    frequent = runs.counts[runs.code] >= min_occurrence
    code_at[runs.places[frequent]] = runs.code[frequent]
    places = runs.places[frequent]
    places = places[places + length <= len(cases.codes)]
    last = places + length - 1
    same = (cases.case[places] == cases.case[last]) & (code_at[places + 1] >= 0)
    if maxspan_ns is not None:
        same &= cases.times[last] - cases.times[places] <= maxspan_ns
    places = places[same]
    pair = code_at[places] * max(1, len(runs.counts)) + code_at[places + 1]
    _, code, counts = np.unique(pair, return_inverse=True, return_counts=True)
    frequent = counts[code] >= min_occurrence
    return _Runs(places[frequent], code[frequent], counts)


def _closed(runs: _Runs, longer: _Runs) -> Mask:
    """Which codes of runs no longer run stands as often as."""
    closed = np.ones(len(runs.counts), np.bool_)
    code_at = np.full(int(runs.places.max(initial=0)) + 2, -1)
    code_at[runs.places] = runs.code
    for shift in (0, 1):
        inside = code_at[longer.places + shift]
        as_often = longer.counts[longer.code] == runs.counts[inside]
        closed[inside[as_often]] = False
    return closed


def _patterns(request: PatternRequest, runs: _Runs, closed: Mask, length: int, shorter: _Runs) -> list[Pattern]:
    cases = request.cases
    prefix_at = np.full(len(cases.codes) + 1, -1)
    prefix_at[shorter.places] = shorter.code
    found = []
    order = np.argsort(runs.code, kind="stable")
    codes, first = np.unique(runs.code[order], return_index=True)
    for code, places in zip(codes.tolist(), np.split(runs.places[order], first[1:]), strict=True):
        if not closed[code]:
            continue
        prefix = int(shorter.counts[prefix_at[places[0]]])
        found.append(_pattern(request, np.sort(places), length, len(places) / prefix))
    return found


def _pattern(request: PatternRequest, places: Integers, length: int, confidence: float) -> Pattern:
    cases = request.cases
    names = cases.texts(tuple(cases.codes[places[0] : places[0] + length].tolist()))
    in_cases = np.unique(cases.case[places])
    span = float(np.median(cases.times[places + length - 1] - cases.times[places])) / 1e9
    description = (
        f"{' → '.join(names)}: {len(places)} times in {len(in_cases)} of {len(cases)} cases, usually within "
        f"{duration_in_words(span)}; {confidence:.0%} of what begins so goes on to {names[-1]}"
    )
    return Pattern(
        "sequence",
        names,
        occurrences=len(places),
        cases=len(in_cases),
        frequency=request.rate(len(places)),
        support=len(in_cases) / len(cases),
        confidence=confidence,
        description=description,
        expression=all_of(
            one_of("type", names), one_of(request.key, (cases.names[case] for case in in_cases.tolist()))
        ),
        samples=tuple(request.events.positions[cases.rows[places[0] : places[0] + length]].tolist()),
    )
