"""Published frames by their positions: those that follow what is known, and those ahead of a gap. Pure.

                         next
    ring … ──▶ [following] │ gap │ [ahead]

Invariants: each position follows once; what is ahead is bounded by AHEAD_BYTES_MAX: more is forgotten, the lowest
positions first, and becomes part of the gap. What follows is bounded by who hands it in: see `is_full`.
"""

from collections import deque

from shared.log.types import Position
from stream_service.published_frames import PublishedFrame

FOLLOWING_BYTES_MAX = 16 * 1024 * 1024
AHEAD_BYTES_MAX = 32 * 1024 * 1024


class Arrivals:
    """Frames between their receipt and the ring."""

    def __init__(self) -> None:
        self._following: deque[PublishedFrame] = deque()
        self._following_bytes = 0
        self._ahead: deque[PublishedFrame] = deque()
        self._ahead_bytes = 0
        # First position that is neither in the ring nor following.
        self.next = Position(1)

    def __bool__(self) -> bool:
        """Whether frames follow."""
        return bool(self._following)

    @property
    def is_full(self) -> bool:
        """Whether who hands in frames must wait."""
        return self._following_bytes > FOLLOWING_BYTES_MAX

    @property
    def gap_until(self) -> Position | None:
        """Where the gap before the first frame ahead ends; None where none is ahead."""
        return self._ahead[0].header.first_position if self._ahead else None

    def place(self, frame: PublishedFrame, *, filling: bool = False) -> None:
        """Take a frame. filling: the gap before what follows is being read, so everything is ahead."""
        first, last = frame.header.positions.first, frame.header.positions.last
        if last < self.next:
            return
        if first <= self.next and not filling:
            self._following.append(frame)
            self._following_bytes += len(frame.data)
            self.next = Position(last + 1)
            return
        self._ahead.append(frame)
        self._ahead_bytes += len(frame.data)
        while self._ahead_bytes > AHEAD_BYTES_MAX:
            self._ahead_bytes -= len(self._ahead.popleft().data)

    def close_up(self) -> None:
        """Let those ahead follow, where the gap before them is filled."""
        while self._ahead and self._ahead[0].header.first_position <= self.next:
            frame = self._ahead.popleft()
            self._ahead_bytes -= len(frame.data)
            self.place(frame)

    def take(self, events_max: int) -> list[PublishedFrame]:
        """The frames that follow, with no more events than this, unless the first has more."""
        frames: list[PublishedFrame] = []
        events = 0
        while self._following and (not frames or events + self._following[0].header.count <= events_max):
            frame = self._following.popleft()
            self._following_bytes -= len(frame.data)
            events += frame.header.count
            frames.append(frame)
        return frames
