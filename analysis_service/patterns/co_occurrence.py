"""`co_occurrence`: types that occur in the same cases, in whatever order, more often than chance would have it.

Occurrences: cases that have both. Confidence: of the cases that have the rarer one, the share that has the other too.
Lift: how many times more cases have both than if they were independent; pairs with a lift of at most 1 are left out.
"""

import numpy as np

from analysis_service.columns import Integers
from analysis_service.expressions import all_of, one_of
from analysis_service.patterns.pattern import Pattern, PatternRequest

TYPES_MAX = 256
_CASES_AT_A_TIME = 16_384


def co_occurrences(request: PatternRequest) -> list[Pattern]:
    """Pairs of types that occur together, the most frequent first."""
    cases = request.cases
    if not len(cases):
        return []
    has_type = np.unique(cases.case * len(cases.types) + cases.codes)
    case, code = np.divmod(has_type, len(cases.types))
    by_type = np.bincount(code, minlength=len(cases.types))
    chosen = [each for each in np.argsort(-by_type, kind="stable").tolist() if by_type[each] >= request.min_occurrence]
    if len(chosen) > TYPES_MAX:
        request.notes.append(f"{len(chosen) - TYPES_MAX} rarer types were left out of co-occurrences")
    chosen = chosen[:TYPES_MAX]
    together = _together(case, code, chosen, len(cases))
    found = []
    for first, second in zip(*np.triu_indices(len(chosen), 1), strict=True):
        both = int(together[first, second])
        expected = by_type[chosen[first]] * by_type[chosen[second]] / len(cases)
        if both >= request.min_occurrence and both > expected:
            found.append(_pattern(request, (chosen[first], chosen[second]), both, by_type, both / expected))
    return request.best(found)


def _together(case: Integers, code: Integers, chosen: list[int], cases: int) -> Integers:
    """In how many cases each pair of chosen types occurs."""
    column = np.full(int(code.max()) + 1, -1)
    column[chosen] = np.arange(len(chosen))
    together = np.zeros((len(chosen), len(chosen)))
    for start in range(0, cases, _CASES_AT_A_TIME):
        mine = (case >= start) & (case < start + _CASES_AT_A_TIME) & (column[code] >= 0)
        matrix = np.zeros((_CASES_AT_A_TIME, len(chosen)), np.float32)
        matrix[case[mine] - start, column[code[mine]]] = 1
        together += matrix.T @ matrix
    return together.astype(np.int64)


def _pattern(request: PatternRequest, codes: tuple[int, int], both: int, by_type: Integers, lift: float) -> Pattern:
    cases = request.cases
    first, second = names = cases.texts(codes)
    confidence = both / int(by_type[list(codes)].min())
    having: list[Integers] = [np.unique(cases.case[cases.codes == code]) for code in codes]
    shared = np.intersect1d(having[0], having[1])
    inside = slice(int(cases.borders[shared[0]]), int(cases.borders[shared[0] + 1]))
    places = [inside.start + int(np.argmax(cases.codes[inside] == code)) for code in codes]
    return Pattern(
        "co_occurrence",
        names,
        occurrences=both,
        cases=both,
        frequency=request.rate(both),
        support=both / len(cases),
        confidence=confidence,
        description=f"{first} and {second} occur together in {both} of {len(cases)} cases, {lift:.2g} times as often "
        f"as by chance; {confidence:.0%} of the cases that have the rarer one have both",
        expression=all_of(one_of("type", names), one_of(request.key, (cases.names[case] for case in shared.tolist()))),
        samples=tuple(request.events.positions[cases.rows[places]].tolist()),
    )
