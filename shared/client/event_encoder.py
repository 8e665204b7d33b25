"""A caller's event to the bytes of a request: time, host, version and correlation are filled in here.

An event that the ingest service would certainly refuse is refused at once, in the caller's thread, where the
fault is: by type, text lengths and payload. The service checks everything again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventlog.v1 import event_pb2, ingest_service_pb2

from shared.client.call_fields import EventFields
from shared.client.correlation import current_correlation_id
from shared.client.options import LoggerOptions
from shared.client.payload_json import encode_payload
from shared.clock import Clock
from shared.errors import EventValidationException, FieldViolation
from shared.events import Event, ExactEvent
from shared.events.limits import PAYLOAD_BYTES_MAX, TAGS_MAX, TEXT_BYTES_MAX, TYPE_PATTERN
from shared.events.timestamps import NANOSECONDS_MAX, NANOSECONDS_MIN, to_nanoseconds
from shared.log.limits import BATCH_BYTES_MAX, BATCH_EVENTS_MAX

_TYPE = re.compile(TYPE_PATTERN, re.ASCII)
_METADATA_TEXTS = ("host", "version", "user", "session_id")
_FIELD_NAMES = EventFields.__optional_keys__


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where an event says it comes from; None leaves the logger's default."""

    source: str | None
    correlation_id: str | None
    timestamp_ns: int | None
    user: str | None
    session_id: str | None
    tags: Sequence[str]
    host: str | None = None
    version: str | None = None


class EventEncoder:
    """Makes the encoded `events` field of a LogBatchRequest.

    Raises EventValidationException where the options themselves say what no event may.
    """

    def __init__(self, options: LoggerOptions, clock: Clock) -> None:
        self._clock = clock
        self._source = None if options.source is None else _checked(options.source, "source")
        # What every event begins with.
        self._metadata = event_pb2.EventMetadata()
        for name in _METADATA_TEXTS:
            value = getattr(options, name)
            if value is not None:
                setattr(self._metadata, name, _checked(value, f"metadata.{name}"))
        _add_tags(self._metadata, options.tags)

    def encode_one(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        source: str | None,
        correlation_id: str | None,
        fields: EventFields,
    ) -> bytes:
        """One event. Raises EventValidationException."""
        if unknown := fields.keys() - _FIELD_NAMES:
            raise TypeError(f"unknown keyword {min(unknown)!r}; there are {', '.join(sorted(_FIELD_NAMES))}")
        timestamp = fields.get("timestamp")
        origin = _Origin(
            source=source,
            correlation_id=correlation_id,
            timestamp_ns=None if timestamp is None else to_nanoseconds(timestamp),
            user=fields.get("user"),
            session_id=fields.get("session_id"),
            tags=fields.get("tags", ()),
        )
        request = ingest_service_pb2.LogBatchRequest()
        self._fill(request.events.add(), event_type, encode_payload(payload), origin)
        return request.SerializeToString()

    def encode_batch(self, events: Sequence[Event], correlation_id: str | None = None) -> bytes:
        """Several events; correlation_id is for those without one of their own.

        Raises EventValidationException, also where they are too many or too large for one request.
        """
        if len(events) > BATCH_EVENTS_MAX:
            raise _too_large(f"{len(events)} events; at most {BATCH_EVENTS_MAX} fit")
        request = ingest_service_pb2.LogBatchRequest()
        for index, event in enumerate(events):
            try:
                # What was made from JSON text keeps that text.
                kept = _checked_json(event.payload_json) if isinstance(event, ExactEvent) else None
                payload_json = encode_payload(event.payload) if kept is None else kept
                self._fill(request.events.add(), event.type, payload_json, _origin_of(event, correlation_id))
            except EventValidationException as error:
                raise _at_index(index, error) from error
        # The request's own fields come on top, so leave them some room.
        if request.ByteSize() > BATCH_BYTES_MAX - 1024:
            raise _too_large(f"{request.ByteSize()} bytes; at most {BATCH_BYTES_MAX - 1024} fit")
        return request.SerializeToString()

    def _fill(self, event: event_pb2.NewEvent, event_type: str, payload_json: str, origin: _Origin) -> None:
        if not isinstance(event_type, str) or not _TYPE.fullmatch(event_type):
            raise _invalid(
                "type",
                f"is {event_type!r}; write 1 to 200 of A-Z a-z 0-9 _ . : / - not beginning with a sign",
            )
        event.type = event_type
        event.payload_json = payload_json
        # A character takes at most 4 bytes: most payloads need no counting.
        if len(payload_json) * 4 > PAYLOAD_BYTES_MAX and len(payload_json.encode()) > PAYLOAD_BYTES_MAX:
            raise _invalid("payload", f"is larger than {PAYLOAD_BYTES_MAX} bytes of JSON; store it elsewhere")
        source = self._source if origin.source is None else _checked(origin.source, "source")
        if source is not None:
            event.source = source
        correlation_id = origin.correlation_id or current_correlation_id()
        if correlation_id is not None:
            event.correlation_id = _checked(correlation_id, "correlation_id")
        timestamp_ns = self._clock.now_ns() if origin.timestamp_ns is None else origin.timestamp_ns
        _fill_timestamp(event, timestamp_ns)
        event.metadata.CopyFrom(self._metadata)
        for name in _METADATA_TEXTS:
            value = getattr(origin, name)
            if value is not None:
                setattr(event.metadata, name, _checked(value, f"metadata.{name}"))
        if origin.tags:
            _add_tags(event.metadata, origin.tags)


def _origin_of(event: Event, correlation_id: str | None) -> _Origin:
    metadata = event.metadata
    return _Origin(
        source=event.source,
        correlation_id=event.correlation_id or correlation_id,
        timestamp_ns=event.timestamp_ns,
        user=metadata.user,
        session_id=metadata.session_id,
        tags=metadata.tags,
        host=metadata.host,
        version=metadata.version,
    )


def _fill_timestamp(event: event_pb2.NewEvent, timestamp_ns: int) -> None:
    if not NANOSECONDS_MIN <= timestamp_ns <= NANOSECONDS_MAX:
        raise _invalid("timestamp", "is out of range; write one from 1677-09-22 to 2262-04-11")
    event.timestamp.seconds, event.timestamp.nanos = divmod(timestamp_ns, 1_000_000_000)


def _add_tags(metadata: event_pb2.EventMetadata, tags: Sequence[str]) -> None:
    """Add those that are not there yet."""
    if isinstance(tags, str):
        raise _invalid("metadata.tags", f"is the text {tags!r}; pass a list of texts")
    for tag in tags:
        if tag not in metadata.tags:
            metadata.tags.append(_checked(tag, "metadata.tags"))
    if len(metadata.tags) > TAGS_MAX:
        raise _invalid("metadata.tags", f"are {len(metadata.tags)}; at most {TAGS_MAX}")


def _checked(value: str, name: str) -> str:
    if not isinstance(value, str):
        raise _invalid(name, f"is {type(value).__name__}; pass a str")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise _invalid(name, f"holds a lone surrogate at character {error.start}") from error
    if size > TEXT_BYTES_MAX:
        raise _invalid(name, f"is {size} bytes long; at most {TEXT_BYTES_MAX}")
    return value


def _checked_json(text: str) -> str:
    """The text if UTF-8 can hold it; whether it is JSON the service says."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _invalid("payload", f"holds a lone surrogate at character {error.start}") from error
    return text


def _invalid(field: str, problem: str) -> EventValidationException:
    return EventValidationException(f"{field} {problem}", violations=[FieldViolation(field, problem)])


def _at_index(index: int, error: EventValidationException) -> EventValidationException:
    prefix = f"events[{index}]."
    violations = [FieldViolation(prefix + each.field, each.description) for each in error.violations]
    return EventValidationException(f"{prefix}{error}", violations=violations, reason=error.reason)


def _too_large(problem: str) -> EventValidationException:
    return EventValidationException(
        f"the batch has {problem} into one request; log it in parts, each of which is atomic by itself",
        reason="BATCH_TOO_LARGE",
    )
