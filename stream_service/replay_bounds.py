"""Where a replay begins and ends, as positions. recorded_at never decreases, so a time of it is a position too."""

from dataclasses import dataclass

from stream_service.query_history import Extent, QueryHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayBounds:
    """What was asked for; None where nothing was. Ends are exclusive."""

    from_position: int | None = None
    until_position: int | None = None
    recorded_since_ns: int | None = None
    recorded_until_ns: int | None = None


async def resolve(bounds: ReplayBounds, history: QueryHistory, extent: Extent) -> tuple[int, int]:
    """The first position that may be replayed, and the end, exclusive: no later than what is committed.

    A first position that is not kept any more stays as it is: reading it says so. Raises what history raises.
    """
    first = bounds.from_position or extent.first_position
    end = extent.committed_position + 1
    if bounds.recorded_since_ns is not None:
        first = await history.first_recorded_since(bounds.recorded_since_ns, extent)
    if bounds.recorded_until_ns is not None:
        end = min(end, await history.first_recorded_since(bounds.recorded_until_ns, extent))
    if bounds.until_position is not None:
        end = min(end, bounds.until_position)
    return first, max(first, end)
