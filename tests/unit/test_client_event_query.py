"""EventQuery and AsyncEventQuery: what they give when answers are partial and connections break, in both forms."""

import asyncio
from collections.abc import Callable

import grpc
import pytest

from shared.client import AsyncEventQuery, BackOff, EventFilter, EventOrder, EventQuery, QueryOptions
from shared.config import EventConfig, QueryConfig
from shared.errors import (
    EventConfigException,
    EventException,
    EventFilterException,
    EventValidationException,
    LogCorrupted,
    StorageUnavailable,
)
from shared.rpc.remote_error import RemoteError
from tests.support.fake_query import FakeQuery, Fault, serving

QUICK = BackOff(first_s=0.005, max_s=0.01)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def service():
    """A query service with ten events."""
    return FakeQuery()


class Both:
    """Calls the threaded or the asyncio form the same way, so that each test holds for both."""

    def __init__(self, form: str, address: str, **options: object) -> None:
        config = EventConfig(query=QueryConfig(listen=address))
        options = QueryOptions(**{"back_off": QUICK, "give_up_after_s": 5.0, **options})
        self._make: Callable[[], object] = lambda: (EventQuery if form == "threads" else AsyncEventQuery)(
            config, options
        )
        self._form = form

    def positions(self, *arguments: object, **keywords: object) -> list[int]:
        """Positions of the events of a query."""
        if self._form == "threads":
            with self._make() as query:
                return [event.position for event in query.events(*arguments, **keywords)]

        async def run() -> list[int]:
            async with self._make() as query:
                return [event.position async for event in query.events(*arguments, **keywords)]

        return asyncio.run(run())

    def call(self, method: str, *arguments: object, **keywords: object) -> object:
        """What a method returns."""
        if self._form == "threads":
            with self._make() as query:
                return getattr(query, method)(*arguments, **keywords)

        async def run() -> object:
            async with self._make() as query:
                return await getattr(query, method)(*arguments, **keywords)

        return asyncio.run(run())


@pytest.fixture(params=["threads", "asyncio"])
def client(request, service):
    """Both forms of the client."""
    with serving(service) as address:
        yield Both(request.param, address)


def test_events_come_in_order_and_once(client):
    """A query gives every event once, in the order asked for."""
    assert client.positions() == list(range(1, 11))
    assert client.positions(order=EventOrder.POSITION_DESCENDING) == list(range(10, 0, -1))


def test_limit_and_positions_are_passed_on(client, service):
    """The service is asked for no more than is wanted."""
    assert client.positions("type = 'a'", 3, from_position=4) == [4, 5, 6]
    assert client.positions(limit=0) == []
    assert service.requests[0].limit == 3
    assert service.requests[0].selection.from_position == 4
    assert service.requests[0].selection.filters.expression == "type = 'a'"


def test_filters_object_is_passed_on(client, service):
    """EventFilters are accepted as well as an expression."""
    client.positions(EventFilter().build_filter(type_pattern="a.*", source="s", expression="payload.x = 1"))
    filters = service.requests[0].selection.filters
    assert (list(filters.type_patterns), list(filters.sources)) == (["a.*"], ["s"])
    assert filters.expression == "payload.x = 1"


@pytest.mark.parametrize("fault", [Fault(after=0), Fault(after=2, token=False)])
def test_partial_answer_that_leads_nowhere_is_an_error(client, service, fault):
    """An answer that comes no further than its token, or has none, is neither complete nor gone on with for ever."""
    service.script = [Fault(after=4), fault]
    with pytest.raises(EventFilterException, match="not complete"):
        client.positions()


def test_partial_answers_with_progress_become_the_whole(client, service):
    """Partial answers, one after the other, together are the whole answer."""
    service.script = [Fault(after=4), Fault(after=2), Fault(after=1)]
    assert client.positions() == list(range(1, 11))
    assert [request.resume_token for request in service.requests] == ["", "before 5", "before 7", "before 8"]


@pytest.mark.parametrize("order", [EventOrder.POSITION_ASCENDING, EventOrder.POSITION_DESCENDING])
@pytest.mark.parametrize("limit", [None, 8])
def test_broken_connection_loses_and_repeats_nothing(client, service, order, limit):
    """Wherever a call breaks off, the next goes on behind the last event, also after a partial answer."""
    service.script = [
        Fault(after=2, error=UNAVAILABLE),
        Fault(after=0, error=UNAVAILABLE),
        Fault(after=3),
        Fault(after=1, error=grpc.StatusCode.DEADLINE_EXCEEDED),
    ]
    whole = list(range(1, 11)) if order is EventOrder.POSITION_ASCENDING else list(range(10, 0, -1))
    assert client.positions(limit=limit, order=order) == whole[:limit]


def test_break_after_the_last_event_ends_well(client, service):
    """A connection that breaks between the last event and the summary costs a call, and no event."""
    service.script = [Fault(after=10, error=UNAVAILABLE)]
    assert client.positions(order=EventOrder.POSITION_DESCENDING) == list(range(10, 0, -1))


def test_broken_order_by_timestamp_is_an_error(client, service):
    """By timestamp there is no place to go on from: half an answer is never passed off as a whole one."""
    service.script = [Fault(after=4, error=UNAVAILABLE)]
    with pytest.raises(RemoteError) as caught:
        client.positions(order=EventOrder.TIMESTAMP_ASCENDING)
    assert caught.value.code is UNAVAILABLE


def test_wrong_filter_is_not_tried_again(client, service):
    """An error that a repetition would not mend reaches the caller at once, as its own exception."""
    service.script = [Fault(after=0, error=EventFilterException("line 1, column 3: …"))]
    with pytest.raises(EventFilterException, match="column 3"):
        client.positions("a b")
    assert len(service.requests) == 1


def test_answer_without_a_summary_is_an_error(client, service):
    """A stream that ends early and well is no complete answer."""
    service.script = [Fault(after=4, error="silence")]
    with pytest.raises(EventFilterException, match="without a summary"):
        client.positions()


def test_client_gives_up_when_it_has_failed_for_long(service):
    """Without progress it ends after give_up_after_s, with the last error."""
    service.script = [Fault(after=0, error=StorageUnavailable("down"))] * 1_000
    with serving(service) as address, pytest.raises(StorageUnavailable, match="down"):
        Both("threads", address, give_up_after_s=0.05).positions()


def test_counts_are_added_up(client, service):
    """A count that time cut short is gone on with; one that failed for now is tried again."""
    service.script = [
        Fault(after=0, error=UNAVAILABLE),
        Fault(after=7),
        Fault(after=0, error=UNAVAILABLE),
        Fault(after=2),
    ]
    assert client.call("count") == 10


@pytest.mark.parametrize("fault", [Fault(after=0), Fault(after=2, token=False)])
def test_count_that_leads_nowhere_is_an_error(client, service, fault):
    """Half a count is never passed off as a whole one."""
    service.script = [Fault(after=7), fault]
    with pytest.raises(EventFilterException, match="not complete"):
        client.call("count")


def test_export_appears_when_it_is_complete(client, service, tmp_path):
    """The file holds all bytes, progress ends complete, nothing else is left in the folder."""
    progress = []
    path = tmp_path / "events.txt"
    path.write_text("before")
    report = client.call("export", path, "json", "type = 'a'", zstd=True, on_progress=progress.append)
    assert path.read_text() == "".join(f"{number}\n" for number in range(1, 11))
    assert (report.path, report.events, report.bytes, report.snapshot_position) == (path, 10, 21, 10)
    assert (progress[-1].events, progress[-1].bytes) == (10, 21)
    assert list(tmp_path.iterdir()) == [path]
    request = service.export_requests[0]
    assert (request.format, request.zstd, request.selection.filters.expression) == ("json", True, "type = 'a'")


def test_broken_export_begins_anew(client, service, tmp_path):
    """Nothing of the attempts before is left in the file."""
    service.script = [Fault(after=4, error=UNAVAILABLE), Fault(after=2, error=UNAVAILABLE)]
    report = client.call("export", tmp_path / "events.txt")
    assert (tmp_path / "events.txt").read_text().split() == [str(number) for number in range(1, 11)]
    assert report.events == 10


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(after=4), EventFilterException),
        (Fault(after=4, partial_reason="DAMAGE"), LogCorrupted),
        (Fault(after=4, error="silence"), EventFilterException),
        (Fault(after=0, error=EventValidationException("no such format", reason="INVALID_FIELD")), EventException),
    ],
)
def test_failed_export_leaves_what_was_there(client, service, tmp_path, fault, error):
    """Where an export fails, the file of before stays and no other is left."""
    service.script = [fault]
    path = tmp_path / "events.txt"
    path.write_text("before")
    with pytest.raises(error):
        client.call("export", path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_export_is_not_begun_anew_for_ever(client, service, tmp_path):
    """An export that always breaks in the middle fails after a few attempts."""
    service.script = [Fault(after=4, error=UNAVAILABLE)] * 100
    with pytest.raises(RemoteError):
        client.call("export", tmp_path / "events.txt")
    assert len(service.export_requests) == 4


def test_options_are_checked():
    """A time of nothing is refused, with what to write."""
    with pytest.raises(EventConfigException, match="call_timeout_s"):
        QueryOptions(call_timeout_s=0)
