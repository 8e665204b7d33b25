"""Causes that nobody named, inferred from time: what runs within a longer event of another type belongs to it.

A pipeline that took ten seconds contains its stages, a stage the documents in it. Events of the same type never
contain each other, so that work in parallel stays side by side. Clocks and rounding are forgiven some slack. It is a
guess, and whoever shows it says so.
"""

import numpy as np

from analysis_service.columns import MISSING, Integers, Mask

# Of its length a span may contain what begins before or ends after it, and at most so many nanoseconds.
_SLACK_SHARE = 0.02
_SLACK_NS_MAX = 1_000_000_000
_OPEN_MAX = 64


def nest_by_time(chain: Integers, starts: Integers, ends: Integers, types: Integers, chosen: Mask) -> Integers:
    """Number of the parent span of each chosen span, MISSING where nothing contains it.

    Of those that contain it the one that began last is the parent; at most _OPEN_MAX are looked back at.
    """
    lengths = ends - starts
    slack = np.minimum(lengths * _SLACK_SHARE, _SLACK_NS_MAX).astype(np.int64)
    numbers = np.flatnonzero(chosen)
    order = numbers[np.lexsort((-lengths[numbers], (starts - slack)[numbers], chain[numbers]))]
    columns = (column[order].tolist() for column in (chain, starts, ends, types, lengths, ends + slack))
    parents = np.full(len(chain), MISSING)
    opened: list[tuple[int, int, int, int]] = []
    current = MISSING
    for number, (chain_number, start, end, kind, length, until) in zip(
        order.tolist(), zip(*columns, strict=True), strict=True
    ):
        if chain_number != current:
            current, opened = chain_number, []
        opened = [each for each in opened if each[1] >= start][-_OPEN_MAX:]
        for candidate, other_until, other_kind, other_length in reversed(opened):
            if other_until >= end and other_kind != kind and other_length >= length:
                parents[number] = candidate
                break
        if length:
            opened.append((number, until, kind, length))
    return parents
