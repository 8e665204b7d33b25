"""Events: as proposed, from exact values, as recorded."""

import copy
import datetime as dt
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest

from shared.errors import EventValidationException
from shared.events import Event, EventFilters, EventMetadata, ExactEvent, RecordedEvent, ReplayState


def recorded(**changes):
    """A recorded event."""
    values = {
        "id": "evt_7Q2M4XKD0000000000009",
        "timestamp_ns": 1_705_746_600_123_456_789,
        "type": "pipeline.started",
        "source": "test",
        "payload_json": '{"big": 123456789012345678901234567890, "x": 1.50}',
        "position": 9,
        "recorded_at_ns": 1_705_746_601_000_000_001,
    }
    return RecordedEvent(**(values | changes))


def test_event_has_the_fields_of_the_specification_in_their_order():
    """The specification's dataclasses, by name and order."""
    assert [each.name for each in fields(Event)] == [
        "id",
        "timestamp",
        "type",
        "source",
        "correlation_id",
        "payload",
        "metadata",
    ]
    assert [each.name for each in fields(EventMetadata)] == ["host", "version", "user", "session_id", "tags"]
    specified = ["type_patterns", "time_range", "sources", "correlation_ids", "content_patterns"]
    assert [each.name for each in fields(EventFilters)][:5] == specified
    assert [each.name for each in fields(ReplayState)] == ["position", "timestamp", "filters", "speed"]


def test_a_producer_gives_type_and_payload_only():
    """Everything else has a default; the type has none."""
    event = Event(type="x", payload={"a": 1})
    assert event == Event(type="x", payload={"a": 1}, metadata=EventMetadata(tags=[]))
    assert (event.id, event.timestamp, event.timestamp_ns, event.source) == (None, None, None, None)
    assert Event(type="x").payload == {}
    with pytest.raises(TypeError, match="type"):
        Event(payload={})


def test_defaults_are_not_shared():
    """Filling one event's payload does not fill another's."""
    Event(type="x").payload["a"] = 1
    Event(type="x").metadata.tags.append("t")
    assert Event(type="x") == Event(type="x", payload={}, metadata=EventMetadata())


def test_timestamp_ns_follows_from_the_timestamp():
    """In nanoseconds, whatever the zone."""
    moment = dt.datetime(2024, 1, 20, 11, 30, 0, 5, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert Event(type="x", timestamp=moment).timestamp_ns == 1_705_746_600_000_005_000


def test_recorded_event_keeps_what_python_values_lose():
    """Nanoseconds and the payload's text are exact; datetime and dict are derived from them."""
    event = recorded()
    assert isinstance(event, Event)
    assert event.timestamp_ns == 1_705_746_600_123_456_789
    assert event.timestamp == dt.datetime(2024, 1, 20, 10, 30, 0, 123_456, tzinfo=dt.UTC)
    assert event.recorded_at == dt.datetime(2024, 1, 20, 10, 30, 1, tzinfo=dt.UTC)
    assert event.recorded_at_ns == 1_705_746_601_000_000_001
    assert event.payload == {"big": 123456789012345678901234567890, "x": 1.5}
    assert event.payload_json == '{"big": 123456789012345678901234567890, "x": 1.50}'
    assert event.position == 9
    assert event.metadata == EventMetadata()


def test_exact_event_without_a_timestamp_has_none():
    """A proposed event may leave the time to the log."""
    assert ExactEvent(type="x").timestamp is None
    assert ExactEvent(type="x", timestamp_ns=0).timestamp == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize("name", ["type", "timestamp", "timestamp_ns", "payload_json", "position", "new"])
def test_recorded_events_never_change(name):
    """No field can be assigned or deleted."""
    event = recorded()
    with pytest.raises(FrozenInstanceError, match=name):
        setattr(event, name, 1)
    with pytest.raises(FrozenInstanceError, match=name):
        delattr(event, name)
    with pytest.raises(FrozenInstanceError):
        Event(type="x").type = "y"


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp_ns": 1_705_746_600_123_456_788},
        {"payload_json": '{"big": 123456789012345678901234567890, "x": 1.5}'},
        {"position": 8},
        {"recorded_at_ns": 2},
        {"source": "other"},
        {"metadata": EventMetadata(host="h")},
    ],
)
def test_recorded_events_are_equal_if_exactly_equal(change):
    """A nanosecond or a digit makes a difference, what was derived before does not."""
    event, same = recorded(), recorded()
    assert event.payload
    assert event == same
    assert hash(event) == hash(same)
    assert event != recorded(**change)
    assert event != Event(type=event.type, payload=event.payload)


def test_events_travel():
    """Copies and pickles are equal, and the text of an event shows what is in it."""
    event = recorded()
    assert pickle.loads(pickle.dumps(event)) == event == copy.deepcopy(event)
    assert "position=9" in repr(event)
    assert "timestamp_ns=1705746600123456789" in repr(event)


@pytest.mark.parametrize(
    "text",
    ["[1]", "5", "{", "", '{"a": 1e400}', '{"a": NaN}', '{"a":' * 3000 + "1" + "}" * 3000, '{"a": %s}' % ("1" * 5000)],
)
def test_payloads_that_python_cannot_hold_are_errors(text):
    """Nothing is returned as infinity or cut; the text stays readable."""
    event = ExactEvent(type="x", payload_json=text)
    with pytest.raises(EventValidationException, match="payload"):
        assert event.payload is None
    assert event.payload_json == text


def test_lone_surrogates_in_a_payload_are_kept():
    """JSON can spell them, so they come back."""
    assert ExactEvent(type="x", payload_json='{"a": "\\ud800"}').payload == {"a": "\ud800"}
