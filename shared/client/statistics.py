"""What a logger has done so far: a snapshot that does not change."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """Counts since the logger was made.

    Every event handed over is in exactly one of logged_events, failed_events, dropped_events,
    waiting_events and under_way_events.
    """

    # Acknowledged by the ingest service.
    logged_events: int
    # Refused by it, or given up.
    failed_events: int
    # Dropped by the overflow policy.
    dropped_events: int
    # Part of logged_events: the acknowledgement of an earlier attempt was lost, this one repeated it.
    duplicate_events: int
    # Requests made, and attempts beyond the first of each.
    requests: int
    retries: int
    # In the buffer now.
    waiting_events: int
    waiting_bytes: int
    # Sent, or to be sent again, and not acknowledged yet.
    under_way_events: int
