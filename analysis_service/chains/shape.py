"""The usual shape of chains of a kind, and how one chain differs from it.

The kind of a chain is the type of its first root. Its shape says of each step, which is a type below the type that
caused it, how many chains have it, how often, and how much time it takes itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis_service.chains.spans import Spans
from analysis_service.chains.timing import Timing
from analysis_service.columns import EventColumns, Floats, Integers

REFERENCES_MIN = 5
# A step is usual where this share of the chains has it, and unusual where less than the other share has it.
_USUAL_SHARE, _UNUSUAL_SHARE = 0.9, 0.05
_SLOWER_FACTOR = 1.5


@dataclass(frozen=True, slots=True)
class Difference:
    """How a chain differs in one step. what: "missing", "extra", "slower", "more" or "fewer".

    parent_type: None for roots. share: of the usual chains that have the step. expected_low, expected_high and actual:
    milliseconds the step takes itself for "slower", else how often it occurs; expected from the 5th to the 95th
    percentile of the usual chains.
    """

    what: str
    parent_type: str | None
    type: str
    share: float
    expected_low: float
    expected_high: float
    actual: float

    def describe(self) -> str:
        """In words."""
        step = self.type if self.parent_type is None else f"{self.type} below {self.parent_type}"
        usual = f"usually {self.expected_low:.4g} to {self.expected_high:.4g}"
        match self.what:
            case "missing":
                return f"{step} is missing; {self.share:.0%} of such chains have it"
            case "extra":
                return f"{step} is unusual: {self.share:.1%} of such chains have it"
            case "slower":
                return f"{step} took {self.actual:.4g} ms itself, {usual} ms"
            case _:
                return f"{step} occurs {self.actual:.4g} times, {usual} times"


@dataclass(frozen=True, slots=True)
class Comparison:
    """kind: type of the first root. references: chains compared with; too few of them give no differences."""

    kind: str
    references: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class _Steps:
    """One row for each step that occurs in a chain."""

    chain: Integers
    step: Integers
    count: Integers
    self_ms: Floats


def kinds_of(spans: Spans, types: Integers) -> Integers:
    """Code of the type of the first root of each chain; `types` are codes by span."""
    top = np.flatnonzero(spans.parents >= len(spans))
    _, first = np.unique(spans.chain[top], return_index=True)
    return types[top[first]]


def compare_with_usual(events: EventColumns, spans: Spans, timing: Timing, number: int) -> Comparison:
    """Compare the chain of a number with all others of its kind among the spans."""
    labels = events.labels("type")
    types = labels.codes[spans.rows]
    kinds = kinds_of(spans, types)
    references = np.flatnonzero(kinds == kinds[number])
    references = references[references != number]
    kind = labels.values[kinds[number]]
    if len(references) < REFERENCES_MIN:
        return Comparison(kind, len(references), ())
    steps = _steps(spans, timing, types, len(labels.values))
    found = list(_differences(steps, number, references))
    width = len(labels.values) + 1
    named = [
        Difference(
            what,
            None if step // width == 0 else labels.values[step // width - 1],
            labels.values[step % width - 1],
            *rest,
        )
        for what, step, rest in found
    ]
    return Comparison(kind, len(references), tuple(sorted(named, key=_weight, reverse=True)))


def _steps(spans: Spans, timing: Timing, types: Integers, type_count: int) -> _Steps:
    # Codes grow by one so that 0 stands for "no parent".
    above = np.concatenate((types, np.full(spans.chains, -1)))[spans.parents] + 1
    step = above * (type_count + 1) + types + 1
    base = (type_count + 1) ** 2
    keys, place = np.unique(spans.chain * base + step, return_inverse=True)
    self_ms: Floats = np.bincount(place, timing.self_ns[: len(spans)] / 1e6, len(keys)).astype(np.float64)
    return _Steps(keys // base, keys % base, np.bincount(place, minlength=len(keys)), self_ms)


def _differences(
    steps: _Steps, number: int, references: Integers
) -> Iterator[tuple[str, int, tuple[float, float, float, float]]]:
    mine = steps.chain == number
    theirs = np.isin(steps.chain, references)
    own = {
        int(step): (int(n), float(ms))
        for step, n, ms in zip(steps.step[mine], steps.count[mine], steps.self_ms[mine], strict=True)
    }
    for step in np.union1d(steps.step[theirs], steps.step[mine]).tolist():
        rows = theirs & (steps.step == step)
        share = float(rows.sum() / len(references))
        counts = np.zeros(len(references))
        counts[: rows.sum()] = steps.count[rows]
        low, high = np.percentile(counts, [5, 95])
        number_here, ms = own.get(step, (0, 0.0))
        if not number_here:
            if share >= _USUAL_SHARE:
                yield "missing", step, (share, low, high, 0.0)
            continue
        if share < _UNUSUAL_SHARE:
            yield "extra", step, (share, low, high, number_here)
            continue
        if not low <= number_here <= high:
            yield "more" if number_here > high else "fewer", step, (share, low, high, number_here)
        fast, middle, slow = np.percentile(steps.self_ms[rows], [5, 50, 95])
        if ms > slow and ms > _SLOWER_FACTOR * middle:
            yield "slower", step, (share, fast, slow, ms)


def _weight(difference: Difference) -> tuple[int, float]:
    """What is missing or extra first, then by how far it is outside of what is expected."""
    if difference.what in {"missing", "extra"}:
        return 1, abs(difference.share - 0.5)
    return 0, abs(difference.actual - difference.expected_high)
