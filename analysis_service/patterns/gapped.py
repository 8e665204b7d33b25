"""`sequence`, the gapped form: types that come in this order in many cases, with anything in between.

Occurrences are the cases that hold the pattern, each once. Confidence: of the cases that hold all but the last type,
the share that holds the last one too. Only closed patterns: see `subsequences`.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from analysis_service.expressions import all_of, one_of
from analysis_service.patterns.cases import Cases
from analysis_service.patterns.flows import variants_of
from analysis_service.patterns.pattern import Pattern, PatternRequest
from analysis_service.patterns.subsequences import STEPS_MAX, Subsequence, SubsequenceMiner
from analysis_service.words import duration_in_words

LENGTH_MAX = 50


def gapped_sequences(request: PatternRequest) -> list[Pattern]:
    """Closed gapped sequences of 2 to `max_length` types, within `maxspan` seconds where that is given."""
    cases = request.cases
    span_s = float(request.parameters.get("maxspan") or 0)
    sequences, members, times = _sequences(cases, with_times=span_s > 0)
    maxspan = int(span_s * 1e9) if span_s else None
    miner = SubsequenceMiner(
        sequences, [len(each) for each in members], min_support=request.min_occurrence, times=times, maxspan=maxspan
    )
    length_max = min(int(request.parameters.get("max_length", 10)), LENGTH_MAX)
    steps_max = min(int(request.parameters.get("max_steps", STEPS_MAX)), STEPS_MAX)
    found = miner.search(request.budget, length_max=length_max, steps_max=steps_max)
    if not found.complete:
        request.notes.append(
            f"the search was cut off: gapped sequences in {found.cut_support} cases or fewer are missing"
        )
    if miner.types_left_out:
        request.notes.append(f"{miner.types_left_out} rarer types were left out of gapped sequences")
    patterns = []
    for each in found.patterns:
        if len(each.codes) > 1:
            holding = [case for number in miner.holding(each.codes) for case in members[number]]
            patterns.append(_pattern(request, each, sorted(holding), maxspan))
    return request.best(patterns)


def first_occurrence(
    codes: Sequence[int], times: Sequence[int], pattern: Sequence[int], maxspan: int | None
) -> list[int] | None:
    """Places of the types of a pattern where it first occurs in a sequence, None where it does not."""
    for begin, code in enumerate(codes):
        if code != pattern[0]:
            continue
        places = [begin]
        for place in range(begin + 1, len(codes)):
            if len(places) == len(pattern):
                break
            if codes[place] == pattern[len(places)]:
                places.append(place)
        if len(places) == len(pattern) and (maxspan is None or times[places[-1]] - times[begin] <= maxspan):
            return places
    return None


def _sequences(
    cases: Cases, *, with_times: bool
) -> tuple[list[tuple[int, ...]], list[list[int]], list[list[int]] | None]:
    """Sequences to search and the cases of each. Times differ between cases, so with them none are put together."""
    if not with_times:
        variants = variants_of(cases)
        return list(variants), list(variants.values()), None
    codes, times, borders = cases.codes.tolist(), cases.times.tolist(), cases.borders.tolist()
    pieces = list(pairwise(borders))
    return (
        [tuple(codes[start:stop]) for start, stop in pieces],
        [[case] for case in range(len(cases))],
        [times[start:stop] for start, stop in pieces],
    )


def _pattern(request: PatternRequest, found: Subsequence, holding: list[int], maxspan: int | None) -> Pattern:
    cases = request.cases
    names = cases.texts(found.codes)
    confidence = found.support / found.prefix_support
    first, stop = (int(border) for border in cases.borders[holding[0] : holding[0] + 2])
    places = first_occurrence(cases.codes[first:stop].tolist(), cases.times[first:stop].tolist(), found.codes, maxspan)
    assert places is not None, "the miner found it in this case"
    within = f" within {duration_in_words(maxspan / 1e9)}" if maxspan else ""
    return Pattern(
        "sequence",
        names,
        occurrences=found.support,
        cases=found.support,
        frequency=request.rate(found.support),
        support=found.support / len(cases),
        confidence=confidence,
        description=f"{' … '.join(names)}, in this order with anything in between{within}: in {found.support} of "
        f"{len(cases)} cases; {confidence:.0%} of the cases that begin so go on to {names[-1]}",
        expression=all_of(one_of("type", names), one_of(request.key, (cases.names[case] for case in holding))),
        samples=tuple(request.events.positions[cases.rows[first + np.array(places)]].tolist()),
        contiguous=False,
    )
