"""One chain: its spans as a tree, where its time went, what failed and where that began."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis_service.chains.spans import Spans
from analysis_service.chains.timing import Timing
from analysis_service.columns import EventColumns, Integers, Mask
from analysis_service.failures import failed

GAPS_MAX = 10
NO_PARENT = -1


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch in which nothing of the chain ran: nanoseconds, and the spans before and after it."""

    start_ns: int
    end_ns: int
    after: int
    before: int


@dataclass(frozen=True, slots=True)
class Chain:
    """The events of one correlation id, by start. Spans are numbered from 0; times in nanoseconds.

    positions: of the events. parents: number of the parent span, or NO_PARENT. depth: 1 for roots. self_ns: time in
    which no child ran. path_ns: part of the critical path; they and `waiting_ns` sum to `duration_ns`. waiting_ns:
    part of the critical path that no span accounts for, only between several roots. orphans: whose parent is missing.
    failed: which events tell of a failure. origins: failures that no failed span below explains, the earliest first.
    duplicates: events left out because their span was there already. inferred: parents are guessed from time.
    """

    correlation_id: str
    positions: Integers
    types: tuple[str, ...]
    sources: tuple[str, ...]
    parents: Integers
    depth: Integers
    starts: Integers
    ends: Integers
    self_ns: Integers
    path_ns: Integers
    on_path: Mask
    waiting_ns: int
    orphans: Mask
    failed: Mask
    origins: tuple[int, ...]
    gaps: tuple[Gap, ...]
    duplicates: int
    inferred: bool

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def duration_ns(self) -> int:
        """From the first root's start to the last root's end."""
        return int(self.path_ns.sum()) + self.waiting_ns

    @property
    def roots(self) -> Integers:
        """Spans without a cause, orphans not among them."""
        return np.flatnonzero((self.parents == NO_PARENT) & ~self.orphans)

    def in_tree_order(self) -> Iterator[int]:
        """Span numbers, each span before its children, children by start."""
        children: dict[int, list[int]] = {}
        for span in range(len(self) - 1, -1, -1):
            children.setdefault(int(self.parents[span]), []).append(span)
        waiting = list(children.get(NO_PARENT, ()))
        while waiting:
            span = waiting.pop()
            yield span
            waiting += children.get(span, ())


def chain_of(events: EventColumns, spans: Spans, timing: Timing, number: int) -> Chain:
    """The chain of a number in `spans`. `events` are those that the spans were found in."""
    first, stop = int(spans.borders[number]), int(spans.borders[number + 1])
    mine = slice(first, stop)
    rows = spans.rows[mine]
    parents = np.where(spans.parents[mine] < len(spans), spans.parents[mine] - first, NO_PARENT)
    types, sources = events.labels("type"), events.labels("source")
    failures = failed(events.take(rows))
    starts, ends = timing.starts[mine], timing.ends[mine]
    return Chain(
        correlation_id=spans.names[number],
        positions=events.positions[rows],
        types=tuple(types.text(code) or "" for code in types.codes[rows].tolist()),
        sources=tuple(sources.text(code) or "" for code in sources.codes[rows].tolist()),
        parents=parents,
        depth=timing.depth[mine],
        starts=spans.starts[mine],
        ends=spans.ends[mine],
        self_ns=timing.self_ns[mine],
        path_ns=timing.path_ns[mine],
        on_path=timing.on_path[mine],
        waiting_ns=int(timing.path_ns[len(spans) + number]),
        orphans=spans.orphans[mine],
        failed=failures,
        origins=tuple(np.flatnonzero(failure_origins(parents, failures)).tolist()),
        gaps=_gaps(parents, starts, ends),
        duplicates=int(spans.duplicates[number]),
        inferred=bool(spans.inferred[number]),
    )


def failure_origins(parents: Integers, failures: Mask) -> Mask:
    """Which failures have no failed span below them. Parents outside the spans count as none."""
    explained = np.zeros(len(parents), np.bool_)
    ancestors = np.flatnonzero(failures)
    while len(ancestors):
        above = np.unique(parents[ancestors])
        above = above[(above >= 0) & (above < len(parents))]
        ancestors = above[~explained[above]]
        explained[ancestors] = True
    return failures & ~explained


def _gaps(parents: Integers, starts: Integers, ends: Integers) -> tuple[Gap, ...]:
    """Longest stretches, longest first, between the runs of spans that have no children."""
    leaf = np.ones(len(parents), np.bool_)
    leaf[parents[parents >= 0]] = False
    spans = np.flatnonzero(leaf)
    spans = spans[np.argsort(starts[spans], kind="stable")]
    latest = np.maximum.accumulate(ends[spans])
    lengths = starts[spans][1:] - latest[:-1]
    longest = [place for place in np.argsort(-lengths, kind="stable")[:GAPS_MAX].tolist() if lengths[place] > 0]
    return tuple(_gap(spans, ends, int(latest[place]), starts, place) for place in longest)


def _gap(spans: Integers, ends: Integers, since: int, starts: Integers, place: int) -> Gap:
    before = spans[: place + 1]
    last = int(before[ends[before] == since][-1])
    following = int(spans[place + 1])
    return Gap(since, int(starts[following]), after=last, before=following)


def chains_of(events: EventColumns, spans: Spans, timing: Timing, numbers: Sequence[int]) -> list[Chain]:
    """Several chains."""
    return [chain_of(events, spans, timing, number) for number in numbers]
