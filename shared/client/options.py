"""How a logger behaves beyond what the configuration file says: limits, policies, and who is logging."""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from shared.client.back_off import BackOff
from shared.client.submission import Limits, OverflowPolicy
from shared.config import EventConfig
from shared.errors import EventConfigException, EventException
from shared.log.limits import BATCH_EVENTS_MAX, MIB


class Durability(Enum):
    """When the ingest service acknowledges."""

    DURABLE = "durable"  # synced to disk: survives the loss of power
    BUFFERED = "buffered"  # in the memory of the service: faster, may be lost with it


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggerOptions:
    """Everything has a default; pass only what differs.

    Sizes are in bytes, times in seconds. Raises EventConfigException where a value is out of range.
    """

    # Address of the ingest service, "host:port". Default: ingest.listen of the configuration.
    address: str | None = None

    # Written into each event, unless the call gives another: source "unknown" is the service's default.
    source: str | None = None
    host: str = field(default_factory=socket.gethostname)
    # Version of the application that logs.
    version: str | None = None
    user: str | None = None
    session_id: str | None = None
    # Each event has these and those of the call.
    tags: tuple[str, ...] = ()

    durability: Durability = Durability.DURABLE
    overflow_policy: OverflowPolicy = OverflowPolicy.BLOCK
    # Encoded events that may wait, beside logging.buffer_size of the configuration.
    buffer_bytes_max: int = 64 * MIB
    # A background request takes what waits, up to this; a single log_batch may be larger.
    request_events_max: int = 1_000
    request_bytes_max: int = 1 * MIB

    # Longest that one attempt takes.
    request_timeout_s: float = 10.0
    # How long an event is tried before it fails.
    give_up_after_s: float = 60.0
    back_off: BackOff = field(default_factory=BackOff)
    # What close() waits for at most, by default; and what it waits when the interpreter exits.
    close_timeout_s: float = 10.0
    exit_timeout_s: float = 5.0

    # Called with a number of events that nobody waited for and that were dropped or have failed, and why.
    # Runs in the logger's thread or in the one that logs; must not block.
    on_lost: Callable[[int, EventException], None] | None = None

    def __post_init__(self) -> None:
        for name in ("buffer_bytes_max", "request_events_max", "request_bytes_max"):
            if getattr(self, name) < 1:
                raise EventConfigException(f"{name} is {getattr(self, name)}; write at least 1")
        if self.request_events_max > BATCH_EVENTS_MAX:
            raise EventConfigException(
                f"request_events_max is {self.request_events_max}; write at most {BATCH_EVENTS_MAX}"
            )
        for name in ("request_timeout_s", "give_up_after_s"):
            if getattr(self, name) <= 0:
                raise EventConfigException(f"{name} is {getattr(self, name)}; write more than 0")
        for name in ("close_timeout_s", "exit_timeout_s"):
            if getattr(self, name) < 0:
                raise EventConfigException(f"{name} is {getattr(self, name)}; write 0 or more")


def limits_of(config: EventConfig, options: LoggerOptions) -> Limits:
    """Bounds of the outbox.

    Raises EventConfigException where a request would be repeated after the service may have forgotten its id.
    """
    tried_s = options.give_up_after_s + options.request_timeout_s
    if tried_s > config.ingest.request_id_horizon:
        raise EventConfigException(
            f"give_up_after_s and request_timeout_s are {tried_s:g} s together, longer than the "
            f"{config.ingest.request_id_horizon:g} s of ingest.request_id_horizon: a late retry would log twice. "
            "Lower them, or raise the horizon"
        )
    return Limits(
        events_max=config.logging.buffer_size,
        bytes_max=options.buffer_bytes_max,
        request_events_max=options.request_events_max,
        request_bytes_max=options.request_bytes_max,
        flush_interval_s=config.logging.flush_interval,
        give_up_after_s=options.give_up_after_s,
        overflow_policy=options.overflow_policy,
    )


def address_of(config: EventConfig, options: LoggerOptions) -> str:
    """Address of the ingest service to connect to."""
    return reachable_address(options.address or config.ingest.listen)


def reachable_address(address: str) -> str:
    """Where to reach a service that listens there. One that listens on every interface is sought on this machine."""
    host, _, port = address.rpartition(":")
    if host in ("", "0.0.0.0", "[::]", "*"):  # noqa: S104 — recognised, not bound to
        return f"localhost:{port}"
    return address
