"""One event as predicates look at it. None is what the event does not have."""

from typing import Self

from shared.events.model import Event, ExactEvent, RecordedEvent
from shared.events.payloads import write_payload
from shared.filters.payload_document import PayloadDocument


class LiveEvent:
    """The fields of an event, flat, and its payload, which is parsed at most once for all filters.

    Times are nanoseconds since the epoch. Not for several threads.
    """

    __slots__ = (
        "correlation_id",
        "host",
        "id",
        "payload",
        "position",
        "recorded_at",
        "session_id",
        "source",
        "tags",
        "timestamp",
        "type",
        "user",
        "version",
    )

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002 — the field's name
        position: int | None = None,
        timestamp: int | None = None,
        recorded_at: int | None = None,
        type: str | None = None,  # noqa: A002 — the field's name
        source: str | None = None,
        correlation_id: str | None = None,
        host: str | None = None,
        version: str | None = None,
        user: str | None = None,
        session_id: str | None = None,
        tags: list[str] | None = None,
        payload: str = "{}",
    ) -> None:
        self.id = id
        self.position = position
        self.timestamp = timestamp
        self.recorded_at = recorded_at
        self.type = type
        self.source = source
        self.correlation_id = correlation_id
        self.host = host
        self.version = version
        self.user = user
        self.session_id = session_id
        self.tags = tags
        self.payload = PayloadDocument(payload)

    @classmethod
    def of(cls, event: Event) -> Self:
        """Look at an event, proposed or recorded.

        Raises EventValidationException if its payload cannot be written as JSON or its timestamp is out of range.
        """
        recorded = event if isinstance(event, RecordedEvent) else None
        metadata = event.metadata
        return cls(
            id=event.id,
            position=None if recorded is None else recorded.position,
            timestamp=event.timestamp_ns,
            recorded_at=None if recorded is None else recorded.recorded_at_ns,
            type=event.type,
            source=event.source,
            correlation_id=event.correlation_id,
            host=metadata.host,
            version=metadata.version,
            user=metadata.user,
            session_id=metadata.session_id,
            tags=metadata.tags,
            payload=event.payload_json if isinstance(event, ExactEvent) else write_payload(event.payload),
        )
