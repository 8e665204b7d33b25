"""How replays go, and how their client behaves, beyond what the configuration file says."""

import datetime as dt
from dataclasses import dataclass, field

from shared.client.back_off import BackOff
from shared.errors import EventConfigException


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPace:
    """Everything has a default; pass only what differs. The service checks the ranges."""

    # Longest pause between two events, before division by the speed. None: as it was.
    gap_max: dt.timedelta | None = None
    # Most events a second, whatever the speed. None: no limit. Not for sessions.
    events_per_second_max: float | None = None
    # Ends, exclusive. None: what is committed as the replay begins. until_time is not for sessions.
    until_position: int | None = None
    until_time: dt.datetime | None = None
    # Pace by when the log recorded the events, and mean that by times; not by when they happened.
    by_recorded_at: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """Everything has a default; pass only what differs. Times are seconds.

    Raises EventConfigException where a value is out of range.
    """

    # Address of the stream service, "host:port". Default: streaming.listen of the configuration.
    address: str | None = None
    # Longest that a call takes that is no replay.
    call_timeout_s: float = 10.0
    # After this long without a sign of life a replay is taken up anew; more than two heartbeats of the service.
    silence_s_max: float = 30.0
    # How long it is tried to take up a replay that broke off.
    give_up_after_s: float = 60.0
    # How often the position of a replay with a checkpoint_name is saved at most.
    save_every_s: float = 1.0
    back_off: BackOff = field(default_factory=BackOff)

    def __post_init__(self) -> None:
        for name in ("call_timeout_s", "silence_s_max", "give_up_after_s", "save_every_s"):
            if getattr(self, name) <= 0:
                raise EventConfigException(f"{name} is {getattr(self, name)}; write more than 0")
