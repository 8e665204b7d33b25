"""Filters of live events: compiled once for each distinct filter, evaluated once for each block.

Invariant: all subscribers with one filter share one Matcher, and its answer for a block.
"""

from weakref import WeakValueDictionary

import numpy as np

from shared.clock import Clock
from shared.columns.encoded_events import EncodedEvents
from shared.filters.batch_filter import BatchFilter
from shared.filters.tree import Everything, Tree
from stream_service.block import Block, Rows
from stream_service.ring import Ring


class Matcher:
    """One filter. `key` is its encoded EventFilters."""

    def __init__(self, key: bytes, tree: Tree, clock: Clock) -> None:
        self.key = key
        self._clock = clock
        self._filter = None if isinstance(tree, Everything) else BatchFilter(tree)

    def rows(self, block: Block) -> Rows:
        """The rows that match; None for all of them."""
        if self._filter is None:
            return None
        if self.key not in block.matches:
            rows = np.flatnonzero(self._filter.mask(block.columns(), now_ns=self._clock.now_ns()))
            block.matches[self.key] = None if len(rows) == block.events.num_rows else rows
        return block.matches[self.key]

    def matching(self, block: Block) -> int:
        """How many events of a block match."""
        rows = self.rows(block)
        return block.events.num_rows if rows is None else len(rows)

    def events(self, block: Block, cursor: int, *, payload_as_struct: bool = False) -> EncodedEvents:
        """The matching events of a block from a cursor on."""
        events, rows = block.encoded(payload_as_struct=payload_as_struct), self.rows(block)
        start = block.row_of(cursor) if cursor > block.first else 0
        if rows is None:
            return events.slice(start, len(events))
        return events.pick(rows[rows.searchsorted(start) :] if start else rows)

    def count(self, ring: Ring, cursor: int, until: int) -> int:
        """How many events of positions [cursor, until) match. The ring must hold them."""
        found = 0
        for block in ring.blocks_from(cursor):
            if block.first >= until:
                break
            found += self._count_rows(block, block.row_of(cursor), block.row_of(until))
        return found

    def position_after(self, ring: Ring, cursor: int, count: int) -> int:
        """The position that follows the first `count` matching events from a cursor on. The ring must hold them."""
        for block in ring.blocks_from(cursor):
            start = block.row_of(cursor)
            matching = self._count_rows(block, start, block.events.num_rows)
            if count <= matching:
                return self._position_of(block, start, count - 1) + 1
            count -= matching
        raise AssertionError("the ring does not hold as many events")

    def _count_rows(self, block: Block, start: int, stop: int) -> int:
        rows = self.rows(block)
        return stop - start if rows is None else int(np.diff(rows.searchsorted([start, stop]))[0])

    def _position_of(self, block: Block, start: int, index: int) -> int:
        rows = self.rows(block)
        row = start + index if rows is None else rows[rows.searchsorted(start) + index]
        return int(block.encoded().positions[row])


class Matchers:
    """The matchers in use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._matchers: WeakValueDictionary[bytes, Matcher] = WeakValueDictionary()

    def of(self, key: bytes, tree: Tree) -> Matcher:
        """The matcher of a filter, by its encoded EventFilters."""
        matcher = self._matchers.get(key)
        if matcher is None:
            matcher = self._matchers[key] = Matcher(key, tree, self._clock)
        return matcher
