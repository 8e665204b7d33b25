"""The events of many chains as spans: each with a start, an end and a parent.

A chain is what shares a correlation id. A parent is found by the id that an event names as its cause. A chain in
which no event has such an id is nested by time instead (see `nesting`) and marked as inferred.

Invariants:
- Neither the order of the events nor repeated delivery changes the answer: a span id counts once in a chain, its
  first event by time and position; an event without one counts once by its position.
- A chain is at most 2^63 nanoseconds long, 292 years: what lies beyond that from its start is moved there, so that no
  difference of its times overflows.
- Spans are ordered by chain, then by start, the longer first, then by position. Parents are span numbers.
- Every chain has a virtual span of number len(spans) + chain: the parent of its roots and orphans, as long as they
  are together. Orphans are spans whose parent is not there, or that would close a circle.
"""

from dataclasses import dataclass

import numpy as np

from analysis_service.chains.nesting import nest_by_time
from analysis_service.columns import MISSING, EventColumns, Integers, Mask

_MS_NS = 1_000_000
# Times are kept so far from the ends of 64 bits that nesting may add its slack to them.
_MARGIN_NS = 2_000_000_000
_FIRST_NS, _LAST_NS = -(2**63) + _MARGIN_NS, 2**63 - 1 - _MARGIN_NS
# An event of these words tells of something that is over: its duration lies before it.
_END_WORDS = {"completed", "finished", "failed", "stopped", "ended", "done", "after", "stop"}


@dataclass(frozen=True, slots=True)
class SpanFields:
    """Fields that say what an event's chain, id and cause are, and how long it took. Times in nanoseconds."""

    chain: str = "correlation_id"
    span: str = "payload.span_id"
    parent: str = "payload.parent_id"
    start: str = "payload.start_unix_nano"
    end: str = "payload.end_unix_nano"
    duration_ms: str = "payload.duration_ms"

    def names(self) -> tuple[str, ...]:
        """The fields to scan."""
        return (self.chain, self.span, self.parent, self.start, self.end, self.duration_ms)


DEFAULT_FIELDS = SpanFields()


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of many chains, in columns.

    rows: row of the event of each span. chain: number of its chain. starts, ends: nanoseconds. parents: span number,
    virtual ones included. borders: first span of each chain, and the number of spans. duplicates, inferred: by chain.
    """

    rows: Integers
    chain: Integers
    starts: Integers
    ends: Integers
    parents: Integers
    orphans: Mask
    borders: Integers
    names: tuple[str, ...]
    duplicates: Integers
    inferred: Mask

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def chains(self) -> int:
        """Number of chains."""
        return len(self.names)

    @property
    def roots(self) -> Mask:
        """Spans without a cause."""
        return (self.parents >= len(self.rows)) & ~self.orphans


def find_spans(events: EventColumns, fields: SpanFields = DEFAULT_FIELDS) -> Spans:
    """The spans of all events that belong to a chain."""
    chain = events.labels(fields.chain)
    starts, ends = _intervals(events, fields)
    rows = np.flatnonzero(chain.codes != MISSING)
    ids, causes = _cause_codes(events, fields)
    chain_of, names = _numbered_by_name(chain.codes[rows], chain.values)
    order = np.lexsort((events.positions[rows], -ends[rows], starts[rows], chain_of))
    rows, chain_of = rows[order], chain_of[order]
    keep = _first_of_each(chain_of, ids[rows], events.positions[rows])
    duplicates = np.bincount(chain_of[~keep], minlength=len(names))
    rows, chain_of = rows[keep], chain_of[keep]
    starts, ends, ids, causes = starts[rows], ends[rows], ids[rows], causes[rows]
    borders = np.searchsorted(chain_of, np.arange(len(names) + 1))
    latest = _latest(starts[borders[:-1]])[chain_of]
    starts, ends = np.minimum(starts, latest), np.minimum(ends, latest)
    parents, orphans = _parents(chain_of, ids, causes)
    inferred = np.bincount(chain_of[(ids != MISSING) | (causes != MISSING)], minlength=len(names)) == 0
    unlinked = inferred[chain_of]
    if unlinked.any():
        types = events.labels("type").codes[rows]
        parents[unlinked] = nest_by_time(chain_of, starts, ends, types, unlinked)[unlinked]
    parents = np.where(parents == MISSING, len(rows) + chain_of, parents)
    return Spans(rows, chain_of, starts, ends, parents, orphans, borders, names, duplicates, inferred)


def _intervals(events: EventColumns, fields: SpanFields) -> tuple[Integers, Integers]:
    """Start and end: those that the payload names, else from the duration, else the instant of the event."""
    starts = events.times.copy()
    ends = events.times.copy()
    if events.has(fields.duration_ms):
        durations = events.numbers(fields.duration_ms)
        usable = (durations > 0) & (durations < 1e12)
        lengths = np.where(usable, durations * _MS_NS, 0).astype(np.int64)
        backwards = _told_at_the_end(events)
        starts = np.where(backwards, np.maximum(starts, _FIRST_NS + lengths) - lengths, starts)
        ends = np.where(backwards, ends, np.minimum(ends, _LAST_NS - lengths) + lengths)
    if events.has(fields.start) and events.has(fields.end):
        given_start, has_start = events.integers(fields.start)
        given_end, has_end = events.integers(fields.end)
        both = has_start & has_end & (given_end >= given_start)
        starts, ends = np.where(both, given_start, starts), np.where(both, given_end, ends)
    return starts.clip(_FIRST_NS, _LAST_NS), ends.clip(_FIRST_NS, _LAST_NS)


def _latest(first: Integers) -> Integers:
    """The latest time of chains that begin then."""
    return np.minimum(first, 0) + _LAST_NS


def _told_at_the_end(events: EventColumns) -> Mask:
    types = events.labels("type")
    by_code = np.array([text.rpartition(".")[2] in _END_WORDS for text in types.values] + [False], np.bool_)
    mask: Mask = by_code[types.codes]
    return mask


def _cause_codes(events: EventColumns, fields: SpanFields) -> tuple[Integers, Integers]:
    """Own id and the cause's id of each event, in the same codes."""
    if not events.has(fields.span):
        none = np.full(len(events), MISSING)
        return none, none.copy()
    if not events.has(fields.parent):
        return events.labels(fields.span).codes, np.full(len(events), MISSING)
    return events.common_codes(fields.span, fields.parent)


def _numbered_by_name(codes: Integers, values: tuple[str, ...]) -> tuple[Integers, tuple[str, ...]]:
    """Numbers of chains in the order of their names, so that they do not depend on the order of the events."""
    used = np.unique(codes).tolist()
    names = tuple(sorted(values[code] for code in used))
    rank = {name: number for number, name in enumerate(names)}
    number_of = np.zeros(len(values), np.int64)
    number_of[used] = [rank[values[code]] for code in used]
    return number_of[codes], names


def _first_of_each(chain: Integers, ids: Integers, positions: Integers) -> Mask:
    """Which spans are the first with their id in their chain, or with their position where they have none."""
    identity = np.where(ids == MISSING, -1 - positions, ids)
    order = np.lexsort((identity, chain))
    again = (np.diff(chain[order]) == 0) & (np.diff(identity[order]) == 0)
    keep = np.ones(len(chain), np.bool_)
    keep[order[1:][again]] = False
    return keep


def _parents(chain: Integers, ids: Integers, causes: Integers) -> tuple[Integers, Mask]:
    """Number of the parent span, MISSING for roots and orphans; and which are orphans."""
    width = int(max(ids.max(initial=0), causes.max(initial=0))) + 2
    keys = chain * width + ids
    order = np.argsort(keys, kind="stable")
    wanted = chain * width + causes
    place = np.searchsorted(keys[order], wanted).clip(0, max(0, len(keys) - 1))
    candidate = order[place] if len(order) else place
    has_cause = causes != MISSING
    found = has_cause & (keys[candidate] == wanted) if len(order) else has_cause
    parents = np.where(found, candidate, MISSING)
    circular = _never_reach_a_root(parents) & (parents >= np.arange(len(parents)))
    parents[circular] = MISSING
    return parents, (has_cause & ~found) | circular


def _never_reach_a_root(parents: Integers) -> Mask:
    """Which spans run in a circle of causes."""
    ancestor = parents.copy()
    for _ in range(max(1, len(parents)).bit_length()):
        known = ancestor != MISSING
        if not known.any():
            break
        ancestor[known] = ancestor[ancestor[known]]
    circular: Mask = ancestor != MISSING
    return circular
