"""What is asked of the query service beyond a filter, and how its client behaves."""

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias, TypedDict

from shared.client.back_off import BackOff
from shared.errors import EventConfigException
from shared.events.model import EventFilters

# A structured filter, an expression of the filter language, or None for everything.
Filters: TypeAlias = EventFilters | str | None


class EventOrder(Enum):
    """The order of the events in an answer."""

    POSITION_ASCENDING = "position"
    POSITION_DESCENDING = "-position"
    # By timestamp, then position.
    TIMESTAMP_ASCENDING = "timestamp"
    TIMESTAMP_DESCENDING = "-timestamp"


class Selection(TypedDict, total=False):
    """Keywords of every reading method, beside its filter."""

    # First position, inclusive. Default: the first that is kept.
    from_position: int
    # End of the positions, exclusive. Default: everything committed.
    until_position: int
    # Wait until this position is committed: reads what you wrote.
    min_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOptions:
    """Everything has a default; pass only what differs. Times are seconds.

    Raises EventConfigException where a value is out of range.
    """

    # Address of the query service, "host:port". Default: query.listen of the configuration.
    address: str | None = None
    # Longest that one call takes. An answer that takes longer is partial, and is gone on with where it can be.
    call_timeout_s: float = 30.0
    # Longest that an export takes, from its beginning.
    export_timeout_s: float = 3600.0
    # How long a call that fails for now is tried again.
    give_up_after_s: float = 60.0
    back_off: BackOff = field(default_factory=BackOff)

    def __post_init__(self) -> None:
        for name in ("call_timeout_s", "export_timeout_s", "give_up_after_s"):
            if getattr(self, name) <= 0:
                raise EventConfigException(f"{name} is {getattr(self, name)}; write more than 0")
