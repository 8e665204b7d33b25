"""The specification's JSON document form of an event, in both directions. Pure.

    {"id":"evt_…","timestamp":"2024-01-20T10:30:00.123456Z","type":"pipeline.stage.completed","source":"…",
     "correlation_id":null,"payload":{…},"metadata":{"host":"…","version":"…","user":null,"session_id":null,"tags":[]}}

Invariants:
- A document is one line without a line break at its end: documents joined by line breaks are JSON lines.
- All keys are written, in this order. What is missing is null, tags are [].
- A payload's text is neither parsed nor written anew: it stands in the document as it is, except that line
  breaks, which JSON allows between tokens only, become spaces.
- The timestamp is exact, with 0, 3, 6 or 9 fractional digits. position and recorded_at are not part of the form.
"""

import re
from typing import Any

import msgspec
import orjson

from shared.errors import EventValidationException, FieldViolation
from shared.events.model import Event, EventMetadata, ExactEvent
from shared.events.payloads import write_payload
from shared.events.timestamps import format_timestamp, parse_timestamp
from shared.suggestion import did_you_mean

_LINE_BREAKS = str.maketrans("\r\n", "  ")
_PLACE = re.compile(r"(.*?) - at `(?:key` in `)?\$\.?(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`(?: - at `.*`)?")


class _Metadata(msgspec.Struct, forbid_unknown_fields=True):
    host: str | None = None
    version: str | None = None
    user: str | None = None
    session_id: str | None = None
    tags: list[str] | None = None


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    id: str | None = None
    timestamp: str | None = None
    source: str | None = None
    correlation_id: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    metadata: _Metadata | None = None


_DECODER = msgspec.json.Decoder(_Document)


def to_document(event: Event) -> bytes:
    """One line of UTF-8, without a line break.

    Raises EventValidationException where a proposed event holds what JSON cannot say.
    """
    payload = event.payload_json if isinstance(event, ExactEvent) else write_payload(event.payload)
    if "\n" in payload or "\r" in payload:
        payload = payload.translate(_LINE_BREAKS)
    metadata = event.metadata
    timestamp_ns = event.timestamp_ns
    document = {
        "id": event.id,
        "timestamp": None if timestamp_ns is None else format_timestamp(timestamp_ns),
        "type": event.type,
        "source": event.source,
        "correlation_id": event.correlation_id,
        "payload": orjson.Fragment(payload),
        "metadata": {
            "host": metadata.host,
            "version": metadata.version,
            "user": metadata.user,
            "session_id": metadata.session_id,
            "tags": metadata.tags,
        },
    }
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise EventValidationException(f"the event cannot be written as JSON: {error}") from error


def parse_document(line: bytes) -> ExactEvent:
    """The event that a document proposes; a line break at the end does not matter.

    Only type must be there; other keys may be missing or null. It does not check the log's limits.
    Raises EventValidationException naming each unknown key with the nearest known one, or the first wrong value.
    """
    try:
        # msgspec leaves the payload's text alone, so look at its encoding here.
        line.decode()
        document = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(_violations(line, error)) from error
    timestamp_ns = None if document.timestamp is None else parse_timestamp(document.timestamp)
    return ExactEvent(
        id=document.id,
        timestamp_ns=timestamp_ns,
        type=document.type,
        source=document.source,
        correlation_id=document.correlation_id,
        payload_json=_payload_text(document.payload),
        metadata=_metadata(document.metadata),
    )


def _payload_text(raw: msgspec.Raw) -> str:
    text = bytes(raw).decode()
    if text.startswith("{"):
        return text
    if text == "null":
        return "{}"
    raise _refusal([FieldViolation("payload", f"is {text[:40]!r}; write a JSON object")])


def _metadata(metadata: _Metadata | None) -> EventMetadata:
    if metadata is None:
        return EventMetadata()
    return EventMetadata(
        host=metadata.host,
        version=metadata.version,
        user=metadata.user,
        session_id=metadata.session_id,
        tags=metadata.tags or [],
    )


def _violations(line: bytes, error: Exception) -> list[FieldViolation]:
    """What is wrong, by field. Slow: it parses again."""
    unknown = _unknown_keys(line)
    if unknown:
        return unknown
    if missing := _MISSING.fullmatch(str(error)):
        return [FieldViolation(missing[1], "is missing; every event has one")]
    if place := _PLACE.fullmatch(str(error)):
        return [FieldViolation(place[2], f"is not right: {place[1]}")]
    # msgspec calls half a surrogate pair a truncated input.
    hint = " (or half a surrogate pair, such as \\ud800 alone)" if "truncated" in str(error) else ""
    return [FieldViolation("", f"is no JSON document: {error}{hint}")]


def _unknown_keys(line: bytes) -> list[FieldViolation]:
    found = []
    try:
        document = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(document.get("metadata", b"{}"), type=dict[str, Any] | None) or {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    for prefix, keys, known in (
        ("", document, _Document.__struct_fields__),
        ("metadata.", metadata, _Metadata.__struct_fields__),
    ):
        for key in keys:
            if key not in known:
                description = f"is not known{did_you_mean(key, known)}"
                found.append(FieldViolation(f"{prefix}{key}", description))
    return found


def _refusal(violations: list[FieldViolation]) -> EventValidationException:
    text = "; ".join(f"{each.field or 'the line'} {each.description}" for each in violations)
    return EventValidationException(text, violations=violations)
