"""How a subscription begins and behaves, and how its client does, beyond what the configuration file says."""

import datetime as dt
from dataclasses import dataclass, field
from enum import Enum

from shared.client.back_off import BackOff
from shared.errors import EventConfigException


class SlowConsumerPolicy(Enum):
    """What the service does when the buffer of an ephemeral subscription is full."""

    DROP_OLDEST = "drop_oldest"  # the oldest waiting events are dropped, and counted
    CATCH_UP = "catch_up"  # history is read again from there on: nothing is lost
    DISCONNECT = "disconnect"  # the stream ends; the client takes it up again from there on


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAt:
    """Where a subscription begins: at most one may be given; none means with what is logged from now on."""

    # With the first event kept.
    earliest: bool = False
    # With this position, inclusive.
    position: int | None = None
    # With the first event recorded at or after this time; without a zone it is UTC.
    time: dt.datetime | None = None
    # Behind the checkpoint of the durable subscription of this name.
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """Everything has a default; pass only what differs. Times are seconds.

    Raises EventConfigException where a value is out of range.
    """

    # Address of the stream service, "host:port". Default: streaming.listen of the configuration.
    address: str | None = None
    # Longest that a call takes that is no stream.
    call_timeout_s: float = 10.0
    # How long it is tried to connect, and to take up a stream that broke off.
    give_up_after_s: float = 60.0
    # How long an acknowledgement waits for others at most, and how many go together.
    acknowledge_after_s: float = 0.1
    acknowledge_at_count: int = 500
    back_off: BackOff = field(default_factory=BackOff)

    def __post_init__(self) -> None:
        for name in ("call_timeout_s", "give_up_after_s", "acknowledge_after_s"):
            if getattr(self, name) <= 0:
                raise EventConfigException(f"{name} is {getattr(self, name)}; write more than 0")
        if not 1 <= self.acknowledge_at_count <= 10_000:
            raise EventConfigException(f"acknowledge_at_count is {self.acknowledge_at_count}; write 1 to 10000")
