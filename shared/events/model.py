"""Events, and the plain data around them.

    Event                 what a producer proposes, with the specification's fields
    └── ExactEvent        the same, made from exact values: nanoseconds and JSON text
        └── RecordedEvent what the log recorded: it has an id, a position and recorded_at

Whoever reads `timestamp` and `payload` need not care which it is: an ExactEvent derives them when they are
first asked for. What an event carries is exact in `timestamp_ns` and `payload_json`: a datetime has no
nanoseconds, and a dict keeps neither the spelling of numbers nor the order of duplicate keys.

Nothing here checks the log's limits: the ingest service does, and names each wrong field.
"""

import datetime as dt
import re
from dataclasses import FrozenInstanceError, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NoReturn

from shared.events.payloads import parse_payload
from shared.events.timestamps import to_datetime, to_nanoseconds


@dataclass(frozen=True, kw_only=True, slots=True)
class EventMetadata:
    """Where an event came from and how it is labelled. None: not known."""

    # Filled in by the ingest service where the producer gives none.
    host: str | None = None
    version: str | None = None
    user: str | None = None
    session_id: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event. A producer gives its type and payload, and what else it knows.

    The log gives the id: one that a proposed event carries, because it was read somewhere, is not kept.
    """

    id: str | None = None
    # When it happened; without a time zone it is UTC. None: the log's clock decides.
    timestamp: dt.datetime | None = None
    # What happened, dotted from general to special: "pipeline.stage.completed".
    type: str
    # What produced it. None: "unknown".
    source: str | None = None
    # Chain of related events that it belongs to.
    correlation_id: str | None = None
    # A JSON object.
    payload: dict[str, Any] = field(default_factory=dict)
    metadata: EventMetadata = field(default_factory=EventMetadata)

    @cached_property
    def timestamp_ns(self) -> int | None:
        """When it happened, in nanoseconds since the epoch.

        Raises EventValidationException for a timestamp before 1677-09-22 or after 2262-04-11.
        """
        return None if self.timestamp is None else to_nanoseconds(self.timestamp)


class ExactEvent(Event):
    """An event made from exact values. Equal to another if all exact values are."""

    _EXACT: ClassVar[tuple[str, ...]] = (
        "id",
        "timestamp_ns",
        "type",
        "source",
        "correlation_id",
        "payload_json",
        "metadata",
    )

    # The payload as the text of a JSON object, as the producer wrote it.
    payload_json: str

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002 — the specification's name
        timestamp_ns: int | None = None,
        type: str,  # noqa: A002 — the specification's name
        source: str | None = None,
        correlation_id: str | None = None,
        payload_json: str = "{}",
        metadata: EventMetadata | None = None,
    ) -> None:
        # Straight into the instance: it is frozen, and millions are made.
        self.__dict__.update(
            id=id,
            timestamp_ns=timestamp_ns,
            type=type,
            source=source,
            correlation_id=correlation_id,
            payload_json=payload_json,
            metadata=EventMetadata() if metadata is None else metadata,
        )

    @cached_property
    def timestamp(self) -> dt.datetime | None:
        """When it happened, cut off to microseconds."""
        return None if self.timestamp_ns is None else to_datetime(self.timestamp_ns)

    @cached_property
    def payload(self) -> dict[str, Any]:
        """The payload, parsed: integers of any size are exact. Raises EventValidationException if it cannot be."""
        return parse_payload(self.payload_json)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to {name}; make another event")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete {name}; make another event")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExactEvent):
            return NotImplemented
        return self.__class__ is other.__class__ and self._exact_values() == other._exact_values()

    def __hash__(self) -> int:
        return hash((self.id, self.timestamp_ns, self.type, self.payload_json))

    def __repr__(self) -> str:
        values = zip(self._EXACT, self._exact_values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in values)})"

    def _exact_values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._EXACT)


class RecordedEvent(ExactEvent):
    """An event as the log recorded it. It never changes."""

    _EXACT: ClassVar[tuple[str, ...]] = (*ExactEvent._EXACT, "position", "recorded_at_ns")  # noqa: SLF001 — its own

    id: str
    source: str
    # Place in the log: starts at 1, grows by 1.
    position: int
    # When the log recorded it, in nanoseconds since the epoch. Never decreases with the position.
    recorded_at_ns: int

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 — the specification's name
        timestamp_ns: int,
        type: str,  # noqa: A002 — the specification's name
        source: str,
        correlation_id: str | None = None,
        payload_json: str = "{}",
        metadata: EventMetadata | None = None,
        position: int,
        recorded_at_ns: int,
    ) -> None:
        super().__init__(
            id=id,
            timestamp_ns=timestamp_ns,
            type=type,
            source=source,
            correlation_id=correlation_id,
            payload_json=payload_json,
            metadata=metadata,
        )
        self.__dict__.update(position=position, recorded_at_ns=recorded_at_ns)

    @cached_property
    def timestamp(self) -> dt.datetime:
        """When it happened, cut off to microseconds. timestamp_ns is exact."""
        assert self.timestamp_ns is not None
        return to_datetime(self.timestamp_ns)

    @cached_property
    def recorded_at(self) -> dt.datetime:
        """When the log recorded it, cut off to microseconds. recorded_at_ns is exact."""
        return to_datetime(self.recorded_at_ns)


@dataclass(frozen=True, kw_only=True)
class EventFilters:
    """Which events: all parts must hold; within a part any value may hold. Empty matches everything."""

    # Patterns for the type: * is any run of characters, ? any one character.
    type_patterns: list[str] = field(default_factory=list)
    # Start, inclusive, and end, exclusive, of the timestamp; None: unbounded on that side.
    time_range: tuple[dt.datetime | None, dt.datetime | None] | None = None
    sources: list[str] = field(default_factory=list)
    correlation_ids: list[str] = field(default_factory=list)
    # RE2 patterns searched for in the payload's JSON text. Of a compiled one its text and flags count.
    content_patterns: list[str | re.Pattern[str]] = field(default_factory=list)
    # An expression of the filter language that must hold too.
    expression: str = ""


@dataclass(frozen=True, kw_only=True)
class ReplayState:
    """Where a replay is."""

    # Last position delivered, 0 for none.
    position: int = 0
    # When the event at it was recorded.
    timestamp: dt.datetime | None = None
    filters: EventFilters = field(default_factory=EventFilters)
    # Multiple of the recorded pace; 0: as fast as possible.
    speed: float = 1.0
