"""Where a subscription begins: now, at the earliest event, at a position, at a time, or behind a checkpoint.

Every answer is defined: on an empty log each of them is its beginning; a position or time behind the last event is
the end of the log; one before the first kept, or in a gap that retention left, is the next event there is.
"""

from collections.abc import Callable
from dataclasses import dataclass

from shared.log.types import Nanoseconds, Position
from stream_service.query_history import Extent, QueryHistory


@dataclass(frozen=True, slots=True)
class StartAsked:
    """Where to begin: at most one is given; none means now."""

    earliest: bool = False
    position: int | None = None
    time_ns: int | None = None
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The first position that may be delivered, and the one beyond the end that was asked for, if that was so."""

    position: Position
    clamped_position: int = 0


class Starts:
    """Finds positions to begin at."""

    def __init__(self, known_end: Callable[[], Position], history: QueryHistory) -> None:
        """known_end: the position behind the last that is known here to be committed, be it in the ring yet or not."""
        self._known_end = known_end
        self._history = history

    async def resolve(self, asked: StartAsked) -> Start:
        """Where to begin. Raises EventException where the query service is needed and cannot be asked."""
        if asked.position is not None:
            return await self._at(asked.position)
        if asked.time_ns is not None:
            return Start(await self._recorded_since(Nanoseconds(asked.time_ns)))
        if asked.earliest:
            extent = await self._history.extent()
            return Start(Position(extent.first_position))
        return Start(self._known_end())

    async def _at(self, position: int) -> Start:
        if position > self._known_end():
            # What was committed just now is on its way here.
            extent = await self._history.extent()
            end = Position(max(self._known_end(), extent.committed_position + 1))
            if position > end:
                return Start(end, position)
        return Start(Position(max(position, 1)))

    async def _recorded_since(self, time_ns: Nanoseconds) -> Position:
        extent = await self._history.extent()
        last = max(extent.committed_position, self._known_end() - 1)
        return Position(await self._history.first_recorded_since(time_ns, Extent(extent.first_position, last)))
