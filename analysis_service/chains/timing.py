"""Where the time of chains went: self times and critical paths, for all spans at once.

A child that pokes out of its parent is clamped to it, for its clock ran differently or nobody waited for it.

Critical path: from the end of the chain back, always through the last child to finish before what came after it
began. Each span on it has the part of its time in which none of its children on the path ran.

Invariants: parts and self times are not negative; the parts of a chain sum exactly to the length of its virtual
span, which is that of its root where it has one root.
"""

from dataclasses import dataclass

import numpy as np

from analysis_service.chains.spans import Spans
from analysis_service.columns import MISSING, Integers, Mask


@dataclass(frozen=True, slots=True)
class Timing:
    """By span, the virtual ones of the chains after the real ones; nanoseconds.

    starts, ends: clamped to the parent. self_ns: time in which no child ran. path_ns: part of the critical path.
    on_path: whether the span is on it. depth: 0 for virtual spans, 1 for roots.
    """

    starts: Integers
    ends: Integers
    self_ns: Integers
    path_ns: Integers
    on_path: Mask
    depth: Integers


def measure(spans: Spans) -> Timing:
    """Measure all chains."""
    parents = np.concatenate((spans.parents, np.arange(len(spans), len(spans) + spans.chains)))
    starts, ends = _with_virtual(spans)
    starts, ends, depth = _clamped(parents, starts, ends, len(spans))
    self_ns = (ends - starts) - _covered_by_children(spans, starts, ends)
    path_ns, on_path = _critical(spans, starts, ends)
    return Timing(starts, ends, self_ns, path_ns, on_path, depth)


def _with_virtual(spans: Spans) -> tuple[Integers, Integers]:
    top = spans.parents >= len(spans)
    chain = spans.chain[top]
    borders = np.searchsorted(chain, np.arange(spans.chains))
    if not spans.chains:
        return spans.starts, spans.ends
    first = np.minimum.reduceat(spans.starts[top], borders)
    last = np.maximum.reduceat(spans.ends[top], borders)
    return np.concatenate((spans.starts, first)), np.concatenate((spans.ends, last))


def _clamped(parents: Integers, starts: Integers, ends: Integers, virtual: int) -> tuple[Integers, Integers, Integers]:
    """Clamp to all ancestors. Clamping twice is one clamp, so the steps upwards double each time."""
    low, high = starts[parents], ends[parents]
    ancestor = parents
    depth = (np.arange(len(parents)) < virtual).astype(np.int64)
    while (ancestor < virtual).any():
        low, high = (np.clip(border, low[ancestor], high[ancestor]) for border in (low, high))
        depth = depth + depth[ancestor]
        ancestor = ancestor[ancestor]
    return np.clip(starts, low, high), np.clip(ends, low, high), depth


def _covered_by_children(spans: Spans, starts: Integers, ends: Integers) -> Integers:
    """Length of the union of the children of each span."""
    count = len(spans)
    order = np.lexsort((starts[:count], spans.parents))
    parent, start, end = spans.parents[order], starts[:count][order], ends[:count][order]
    values, rank = np.unique(end, return_inverse=True)
    # The latest end so far among siblings: a running maximum that begins anew with each parent.
    latest = np.maximum.accumulate(parent * len(values) + rank) % max(1, len(values))
    before = np.concatenate(([0], values[latest][:-1])) if count else end
    first_child = np.concatenate(([True], np.diff(parent) != 0)) if count else np.zeros(0, np.bool_)
    begin = np.where(first_child, start, np.maximum(start, before))
    covered = np.zeros(len(starts), np.int64)
    np.add.at(covered, parent, np.maximum(0, end - begin))
    return covered


def _critical(spans: Spans, starts: Integers, ends: Integers) -> tuple[Integers, Mask]:
    count, total = len(spans), len(starts)
    order = np.lexsort((starts[:count], ends[:count], spans.parents))
    before = _last_finished_before(spans.parents[order], starts[:count][order], ends[:count][order])
    last_child = np.full(total, MISSING)
    last_child[spans.parents[order]] = np.arange(count)
    on_path = np.zeros(total, np.bool_)
    chosen = _walk(list(range(count, total)), order.tolist(), before.tolist(), last_child.tolist())
    on_path[chosen] = True
    path_ns = np.where(on_path, ends - starts, 0)
    real = np.flatnonzero(on_path[:count])
    np.subtract.at(path_ns, spans.parents[real], ends[real] - starts[real])
    return path_ns, on_path


def _last_finished_before(parent: Integers, start: Integers, end: Integers) -> Integers:
    """Place of the last sibling that had finished when each began, MISSING if none; ordered by parent and end."""
    place = np.arange(len(parent))
    values, rank = np.unique(np.concatenate((end, start)), return_inverse=True)
    end_rank, start_rank = np.split(rank, 2)
    key = parent * len(values) + end_rank
    found = np.searchsorted(key, parent * len(values) + start_rank, side="right") - 1
    found = np.minimum(found, place - 1)
    same = (found >= 0) & (parent[found] == parent)
    return np.where(same, found, MISSING)


def _walk(virtual: list[int], order: list[int], before: list[int], last_child: list[int]) -> list[int]:
    """The spans on the critical paths; visits no others."""
    waiting = virtual
    chosen = []
    while waiting:
        span = waiting.pop()
        chosen.append(span)
        place = last_child[span]
        while place != MISSING:
            waiting.append(order[place])
            place = before[place]
    return chosen
