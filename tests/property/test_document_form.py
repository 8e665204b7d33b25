"""The JSON document form, for any event."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import EventValidationException
from shared.events import Event, EventMetadata, ExactEvent, RecordedEvent, parse_document, to_document
from shared.events.timestamps import NANOSECONDS_MAX, NANOSECONDS_MIN

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OPTIONAL_TEXTS = st.none() | TEXTS
NANOSECONDS = st.integers(NANOSECONDS_MIN, NANOSECONDS_MAX)
NUMBERS = st.integers(-(10**60), 10**60) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
PAYLOADS = st.dictionaries(TEXTS, VALUES, max_size=5)
METADATA = st.builds(
    EventMetadata,
    host=OPTIONAL_TEXTS,
    version=OPTIONAL_TEXTS,
    user=OPTIONAL_TEXTS,
    session_id=OPTIONAL_TEXTS,
    tags=st.lists(TEXTS, max_size=4),
)


@st.composite
def spelled(draw):
    """A payload and one of the many texts that spell it."""
    payload = draw(PAYLOADS)
    text = json.dumps(
        payload,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", " :\n")])),
    )
    return payload, text


@settings(deadline=None)
@given(spelled(), NANOSECONDS, NANOSECONDS, TEXTS, TEXTS, OPTIONAL_TEXTS, METADATA, st.integers(1, 2**64 - 1))
def test_recorded_events_round_trip(
    payload, timestamp_ns, recorded_at_ns, event_type, source, correlation_id, metadata, position
):
    """A document is one line, says the same as the event, and gives it back with its payload's text."""
    values, text = payload
    event = RecordedEvent(
        id="evt_7Q2M4XKD0000000000001",
        timestamp_ns=timestamp_ns,
        type=event_type,
        source=source,
        correlation_id=correlation_id,
        payload_json=text,
        metadata=metadata,
        position=position,
        recorded_at_ns=recorded_at_ns,
    )
    line = to_document(event)
    assert b"\n" not in line
    assert b"\r" not in line
    back = parse_document(line)
    one_line = text.replace("\n", " ").replace("\r", " ")
    assert back == ExactEvent(
        id=event.id,
        timestamp_ns=timestamp_ns,
        type=event_type,
        source=source,
        correlation_id=correlation_id,
        payload_json=one_line,
        metadata=metadata,
    )
    assert back.payload == event.payload == values == json.loads(line)["payload"]
    assert to_document(back) == line


@settings(deadline=None)
@given(PAYLOADS, st.none() | st.integers(NANOSECONDS_MIN + 1000, NANOSECONDS_MAX), OPTIONAL_TEXTS)
def test_proposed_events_round_trip(payload, timestamp_ns, source):
    """The values of a producer's payload come back, integers of any size included."""
    proposed = ExactEvent(type="x", timestamp_ns=timestamp_ns).timestamp
    event = Event(type="x", timestamp=proposed, source=source, payload=payload)
    back = parse_document(to_document(event))
    assert back.payload == payload
    assert back.timestamp == event.timestamp
    assert back.timestamp_ns == event.timestamp_ns
    assert back.source == source


@settings(deadline=None)
@given(spelled(), st.data())
def test_damaged_documents_are_refused_or_whole(payload, data):
    """A document with one byte changed is refused, or is a whole event that can be written again."""
    line = bytearray(to_document(ExactEvent(type="x", timestamp_ns=5, payload_json=payload[1])))
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] = data.draw(st.integers(0, 255))
    try:
        event = parse_document(bytes(line))
    except EventValidationException:
        return
    written = to_document(event)
    assert to_document(parse_document(written)) == written
    assert json.loads(written)["type"] == event.type
