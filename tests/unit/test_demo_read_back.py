"""The demo's comparison: it is exact, and it finds what is wrong."""

import json

import orjson
import pytest
from eventlog.v1 import ingest_service_pb2, query_service_pb2

from deploy.demo.batches import EVENTS_MAX, make_batches
from deploy.demo.producer import Acknowledged
from deploy.demo.read_back import Defaults, compare_range, compare_single, expected_events
from shared.events.ids import format_event_id

DEFAULTS = Defaults(host="h", version="v")
LOG_ID = "4A37F9JN"


class FakeChannel:
    """A channel to a query service that has these events, in pages of two."""

    def __init__(self, events):
        self._events = events

    def unary_unary(self, method, **_):
        """Return the call of a method."""
        return {"ListEvents": self._list, "GetEvent": self._get}.get(method.rpartition("/")[2])

    def unary_stream(self, *_, **__):
        """No method that streams is called."""

    def _list(self, request, timeout):
        start = int(request.page_token or 0)
        more = start + 2 < len(self._events)
        page = self._events[start : start + 2]
        return query_service_pb2.ListEventsResponse(events=page, next_page_token=str(start + 2) if more else "")

    def _get(self, request, timeout):
        found = [e for e in self._events if request.id == e.id or request.position == e.position]
        return query_service_pb2.GetEventResponse(event=found[0])


@pytest.fixture
def acknowledged():
    """Two batches of events that were logged in the other order."""
    documents = [
        {"type": "a.b", "payload": {"n": 2**70}, "timestamp": "2024-01-20T10:30:00.123456789Z"},
        {"type": "a.c", "source": "s", "correlation_id": "c", "metadata": {"host": "x", "user": "u", "tags": ["t"]}},
    ]
    answers = []
    for first in (3, 1):
        answer = ingest_service_pb2.LogBatchResponse(
            first_position=first, count=2, first_event_id=format_event_id(LOG_ID, first)
        )
        answer.recorded_at.seconds = 1000 + first
        answers.append(
            Acknowledged(
                make_batches("t", [json.dumps(document).encode() for document in documents]).requests[0], answer
            )
        )
    return answers


@pytest.fixture
def recorded(acknowledged):
    """The events as the log returns them."""
    return [event for each in acknowledged[::-1] for event in expected_events(each, DEFAULTS)]


def test_events_that_came_back_as_logged_are_equal(acknowledged, recorded):
    """Batches are compared by position, over all pages, whatever the order of the acknowledgements."""
    comparison = compare_range(FakeChannel(recorded), acknowledged, DEFAULTS)
    assert (comparison.events, comparison.different) == (4, 0)
    assert compare_single(FakeChannel(recorded), acknowledged, DEFAULTS, 4).different == 0


def test_expected_event_has_what_was_proposed_and_the_defaults(recorded):
    """What the producer gave is exact; what it left out has the defaults."""
    first, second = recorded[:2]
    assert first.payload_json == f'{{"n": {2**70}}}'
    assert (first.timestamp.nanos, first.source, first.metadata.host) == (123456789, "unknown", "h")
    assert not first.HasField("correlation_id")
    assert second.timestamp == second.recorded_at
    assert (second.metadata.host, second.metadata.version, second.payload_json) == ("x", "v", "{}")
    assert [event.position for event in recorded] == [1, 2, 3, 4]
    assert len({event.id for event in recorded}) == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda event: setattr(event, "type", "a.d"),
        lambda event: setattr(event, "payload_json", '{"n": 1}'),
        lambda event: setattr(event, "correlation_id", ""),
        lambda event: setattr(event.timestamp, "nanos", 1),
        lambda event: setattr(event.recorded_at, "nanos", 1),
        lambda event: event.metadata.tags.append("more"),
        lambda event: setattr(event.metadata, "session_id", "s"),
        lambda event: setattr(event, "id", format_event_id(LOG_ID, 9)),
    ],
)
def test_any_changed_field_is_a_difference(acknowledged, recorded, change):
    """Whatever differs in an event is found, and the position named."""
    change(recorded[2])
    comparison = compare_range(FakeChannel(recorded), acknowledged, DEFAULTS)
    assert comparison.different == 1
    assert "position 3 differs" in comparison.differences[0]


def test_missing_and_surplus_events_are_differences(acknowledged, recorded):
    """An acknowledged event that is not there is found, and so is one that was never logged."""
    lost = compare_range(FakeChannel(recorded[:3]), acknowledged, DEFAULTS)
    assert lost.differences == ["1 acknowledged events are not there"]
    phantom = compare_range(FakeChannel([*recorded, recorded[0]]), acknowledged, DEFAULTS)
    assert phantom.differences == ["position 1 was never logged"]


def test_batches_hold_all_documents_in_order():
    """Documents are cut into requests of the size stated, each with an id of its own."""
    documents = [orjson.dumps({"type": f"t.{number}"}) for number in range(EVENTS_MAX * 2 + 1)]
    batches = make_batches("n", documents)
    assert [len(request.events) for request in batches.requests] == [EVENTS_MAX, EVENTS_MAX, 1]
    assert [event.type for request in batches.requests for event in request.events][-1] == f"t.{EVENTS_MAX * 2}"
    assert len({request.request_id for request in batches.requests}) == 3
    assert batches.events == len(documents)
    assert batches.json_bytes == sum(len(document) + 1 for document in documents)
