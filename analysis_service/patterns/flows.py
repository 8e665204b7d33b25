"""What follows what directly, and which whole sequences cases take.

- `directly_follows`: one type comes right after another in a case. Confidence: of what comes right after the first,
  the share that is the second.
- `variant`: all events of a case, in order. Occurrences: cases with exactly this sequence. Confidence: its share.
"""

from itertools import pairwise

import numpy as np

from analysis_service.columns import Integers
from analysis_service.expressions import all_of, one_of
from analysis_service.patterns.cases import Cases
from analysis_service.patterns.pattern import SAMPLE_EVENTS_MAX, Pattern, PatternRequest
from analysis_service.words import duration_in_words

_NAMED_TYPES_MAX = 12


def directly_follows(request: PatternRequest) -> list[Pattern]:
    """Pairs of types that follow each other directly, the most frequent first."""
    cases = request.cases
    place = np.flatnonzero(cases.case[1:] == cases.case[:-1])
    width = max(1, len(cases.types))
    edge = cases.codes[place] * width + cases.codes[place + 1]
    edges, edge_of, counts = np.unique(edge, return_inverse=True, return_counts=True)
    leaving = np.bincount(cases.codes[place], minlength=width)
    found = []
    for number in np.flatnonzero(counts >= request.min_occurrence).tolist():
        first, second = divmod(int(edges[number]), width)
        places = place[edge_of == number]
        in_cases = np.unique(cases.case[places])
        names = cases.texts((first, second))
        confidence = float(counts[number] / leaving[first])
        gap = float(np.median(cases.times[places + 1] - cases.times[places])) / 1e9
        found.append(
            Pattern(
                "directly_follows",
                names,
                occurrences=int(counts[number]),
                cases=len(in_cases),
                frequency=request.rate(int(counts[number])),
                support=len(in_cases) / len(cases),
                confidence=confidence,
                description=f"{names[1]} directly follows {names[0]} in {confidence:.0%} of the times that anything "
                f"does, usually after {duration_in_words(gap)}",
                expression=_expression(request, cases, names, in_cases),
                samples=_positions(request, cases, places[0] + np.arange(2)),
            )
        )
    return request.best(found)


def variants(request: PatternRequest) -> list[Pattern]:
    """Whole sequences of cases, the most frequent first."""
    cases = request.cases
    found = []
    for sequence, members in variants_of(cases).items():
        if len(members) < request.min_occurrence:
            continue
        names = cases.texts(sequence)
        share = len(members) / len(cases)
        shown = " → ".join(names[:_NAMED_TYPES_MAX]) + (" → …" if len(names) > _NAMED_TYPES_MAX else "")
        first = int(cases.borders[members[0]])
        found.append(
            Pattern(
                "variant",
                names,
                occurrences=len(members),
                cases=len(members),
                frequency=request.rate(len(members)),
                support=share,
                confidence=share,
                description=f"{share:.1%} of the cases consist of exactly {len(names)} events: {shown}",
                expression=one_of(request.key, (cases.names[case] for case in members)),
                samples=_positions(request, cases, first + np.arange(min(len(names), SAMPLE_EVENTS_MAX))),
            )
        )
    return request.best(found)


def variants_of(cases: Cases) -> dict[tuple[int, ...], list[int]]:
    """Cases by their sequence of type codes."""
    by_bytes: dict[bytes, list[int]] = {}
    codes = cases.codes.astype(np.int32)
    borders = cases.borders.tolist()
    # A sequence is recognised by its bytes: one step a case, not one an event.
    for case, (start, stop) in enumerate(pairwise(borders)):
        by_bytes.setdefault(codes[start:stop].tobytes(), []).append(case)
    return {tuple(np.frombuffer(key, np.int32).tolist()): members for key, members in by_bytes.items()}


def _expression(request: PatternRequest, cases: Cases, names: tuple[str, ...], in_cases: Integers) -> str:
    return all_of(one_of("type", names), one_of(request.key, (cases.names[case] for case in in_cases.tolist())))


def _positions(request: PatternRequest, cases: Cases, places: Integers) -> tuple[int, ...]:
    return tuple(request.events.positions[cases.rows[places]].tolist())
