"""Which source and type of event best explains the errors and the slowness of many chains.

Errors: the failures that no failure below them explains are where trouble began; each counts for its source and type.
Slowness: a chain is slow where it took longer than SLOW_PERCENTILE of its kind, and SLOW_FACTOR times the median. The
time that its spans took themselves beyond the median for their source and type is what they add; a cause's share is
what it adds to all slow chains, of what all causes add.
"""

from dataclasses import dataclass

import numpy as np

from analysis_service.chains.chain import failure_origins
from analysis_service.chains.shape import kinds_of
from analysis_service.chains.spans import Spans
from analysis_service.chains.timing import Timing
from analysis_service.columns import EventColumns, Floats, Integers, Mask
from analysis_service.expressions import all_of, equals
from analysis_service.failures import EXPRESSION, failed

SLOW_PERCENTILE = 95.0
SLOW_FACTOR = 1.5
CAUSES_MAX = 50
EXAMPLES_MAX = 5


@dataclass(frozen=True, slots=True)
class Cause:
    """A source and a type that explains trouble.

    what: "errors" or "slowness". score: share of the trouble that it explains, 0 to 1. chains: how many are affected.
    amount: failures that began there, or milliseconds that it added. examples: correlation ids, the worst first.
    """

    what: str
    source: str
    type: str
    score: float
    chains: int
    amount: float
    examples: tuple[str, ...]

    def describe(self) -> str:
        """In words."""
        place = f"{self.type} of {self.source or 'an unknown source'}"
        if self.what == "errors":
            return f"{self.amount:.0f} failures in {self.chains} chains began at {place}: {self.score:.0%} of them"
        return f"{place} added {self.amount:.0f} ms to {self.chains} slow chains: {self.score:.0%} of their delay"

    def expression(self) -> str:
        """Filter expression that finds its events: of errors, those that failed."""
        there = all_of(equals("source", self.source), equals("type", self.type))
        return all_of(there, EXPRESSION) if self.what == "errors" else there


def rank_causes(events: EventColumns, spans: Spans, timing: Timing) -> list[Cause]:
    """Causes of errors and of slowness, those that explain most first; at most CAUSES_MAX."""
    if not len(spans):
        return []
    types, sources = events.labels("type"), events.labels("source")
    key = sources.codes[spans.rows] * len(types.values) + types.codes[spans.rows]
    origins = failure_origins(spans.parents, failed(events)[spans.rows])
    slow = _slow_chains(spans, timing, types.codes[spans.rows])[spans.chain]
    excess = np.where(slow, _beyond_median(key, timing.self_ns[: len(spans)] / 1e6), 0.0)
    # A span adds to a delay only where its chain waited for it.
    excess *= timing.on_path[: len(spans)]
    causes = []
    for what, amounts in (("errors", origins.astype(np.float64)), ("slowness", excess)):
        total = amounts.sum()
        for code in np.unique(key[amounts > 0]).tolist():
            mine = np.where(key == code, amounts, 0.0)
            by_chain = np.bincount(spans.chain, mine, spans.chains)
            worst = np.argsort(-by_chain, kind="stable")[:EXAMPLES_MAX]
            source, kind = divmod(code, len(types.values))
            causes.append(
                Cause(
                    what,
                    sources.text(source) or "",
                    types.values[kind],
                    score=float(mine.sum() / total),
                    chains=int((by_chain > 0).sum()),
                    amount=float(mine.sum()),
                    examples=tuple(spans.names[chain] for chain in worst.tolist() if by_chain[chain] > 0),
                )
            )
    return sorted(causes, key=lambda cause: (-cause.score, cause.what, cause.source, cause.type))[:CAUSES_MAX]


def _slow_chains(spans: Spans, timing: Timing, types: Integers) -> Mask:
    durations = (timing.ends - timing.starts)[len(spans) :] / 1e6
    kinds = kinds_of(spans, types)
    slow = np.zeros(spans.chains, np.bool_)
    for kind in np.unique(kinds):
        mine = kinds == kind
        middle, high = np.percentile(durations[mine], [50, SLOW_PERCENTILE])
        slow |= mine & (durations >= high) & (durations > SLOW_FACTOR * middle)
    return slow


def _beyond_median(key: Integers, values: Floats) -> Floats:
    """How far each value lies above the median of those with its key; 0 below it."""
    order = np.lexsort((values, key))
    found, first, count = np.unique(key[order], return_index=True, return_counts=True)
    medians = values[order][first + (count - 1) // 2]
    beyond: Floats = np.maximum(0.0, values - medians[np.searchsorted(found, key)])
    return beyond
