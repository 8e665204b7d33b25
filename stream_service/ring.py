"""The most recent committed events, shared by all subscribers.

Invariants: blocks follow each other without a gap, [first, end); their bytes do not exceed bytes_max, unless one
block alone does; what is older is in history only. Pure.
"""

from collections import deque
from collections.abc import Iterator

from shared.log.types import Position
from stream_service.block import Block


class Ring:
    """Blocks in order of positions. A cursor is a position: that of the next event to take."""

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._blocks: deque[Block] = deque()
        self._bytes = 0
        # First position that is not in it yet.
        self.end = Position(1)

    @property
    def first(self) -> Position:
        """First position that is in it; its end where it is empty."""
        return self._blocks[0].first if self._blocks else self.end

    def holds(self, cursor: int) -> bool:
        """Whether everything from the cursor on is in it, or still to come."""
        return self.first <= cursor <= self.end

    def first_after(self, block: Block) -> Position:
        """What its first position will be once this block is appended."""
        room = self._bytes_max - block.size
        kept = self._bytes
        for old in self._blocks:
            if kept <= room:
                return old.first
            kept -= old.size
        return block.first

    def append(self, block: Block) -> None:
        """Take the block that follows, and let go of the oldest for it."""
        assert block.first == self.end, (block.first, self.end)
        first = self.first_after(block)
        while self._blocks and self._blocks[0].first < first:
            self._bytes -= self._blocks.popleft().size
        self._blocks.append(block)
        self._bytes += block.size
        self.end = block.until

    def restart(self, end: Position) -> None:
        """Let go of everything; go on with this position."""
        self._blocks.clear()
        self._bytes = 0
        self.end = end

    def blocks_from(self, cursor: int) -> Iterator[Block]:
        """The blocks from the one that holds the cursor on."""
        if cursor < self.end:
            # Most cursors are near the end.
            behind = 0
            for block in reversed(self._blocks):
                behind += 1
                if block.first <= cursor:
                    break
            for index in range(len(self._blocks) - behind, len(self._blocks)):
                yield self._blocks[index]
