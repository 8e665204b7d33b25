"""What became of a subscription so far."""

from dataclasses import dataclass


@dataclass(slots=True)
class StreamStatistics:
    """Counts since the subscription was made, and where it is."""

    received_events: int = 0
    # Events that the service says it dropped, because the program took them too slowly.
    dropped_events: int = 0
    # Of a durable subscription, events that were delivered before.
    redelivered_events: int = 0
    # How often the stream was taken up again after it broke off.
    resumptions: int = 0
    # As of the last sign of life that said so.
    head_position: int = 0
    lag_events: int = 0
    under_pressure: bool = False
    # Whether what comes now is live.
    live: bool = False
