"""GetEvent and ListEvents without a wire: requests, page tokens, waiting for positions."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from eventlog.v1 import event_pb2
from eventlog.v1 import query_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from query_service.servicer import PAGE_SIZE_DEFAULT, READS_RUNNING_MAX, READS_WAITING_MAX, QueryServicer
from shared.clock import SystemClock
from shared.columns.wire import WireCodec
from shared.errors import EventException
from shared.events.ids import format_event_id
from shared.log.log_reader import LocalLogReader
from tests.support.builders import frame_of, numbered_frame, open_writer, payload
from tests.support.fake_clock import START_NS
from tests.support.log_requests import FakeContext
from tests.support.memory_file_system import MemoryFileSystem

_LOG_ID = "TEST0001"


class _Service:
    """A query service over a log of frames of five events in memory, and its writer."""

    def __init__(self) -> None:
        self.fs = MemoryFileSystem()
        self.writer = open_writer(self.fs, new_log_id=_LOG_ID)
        self.servicer = QueryServicer(LocalLogReader(self.fs), WireCodec(), SystemClock())

    def append(self, frames: int = 1) -> None:
        for _ in range(frames):
            self.writer.append(numbered_frame(self.writer.last_position + 1, 5))

    async def get(self, time_remaining: float | None = None, **fields: Any) -> event_pb2.Event:
        context: Any = FakeContext(time_remaining)
        request = pb.GetEventRequest(**fields)
        return pb.GetEventResponse.FromString(await self.servicer.get_event(request, context)).event

    async def list(
        self, request: pb.ListEventsRequest | None = None, time_remaining: float | None = None, **fields: Any
    ) -> pb.ListEventsResponse:
        context: Any = FakeContext(time_remaining)
        asked = pb.ListEventsRequest()
        asked.CopyFrom(request or asked)
        asked.MergeFrom(pb.ListEventsRequest(**fields))
        return pb.ListEventsResponse.FromString(await self.servicer.list_events(asked, context))

    async def list_all(self, **fields: Any) -> "list[int]":
        found: list[int] = []
        token = ""
        while True:
            page = await self.list(page_token=token, **fields)
            found += [event.position for event in page.events]
            token = page.next_page_token
            if not token:
                return found


@pytest.fixture
async def service() -> AsyncIterator[_Service]:
    """A service over a log of twenty events."""
    made = _Service()
    made.append(4)
    yield made
    made.servicer.close()
    made.writer.close()


def _selection(**fields: Any) -> event_pb2.EventFilters:
    return pb.EventSelection(**fields)


async def _refused(call: Any) -> EventException:
    with pytest.raises(EventException) as caught:
        await call
    return caught.value


async def test_an_event_is_found_by_id_and_by_position(service: _Service) -> None:
    """Both name the same event."""
    by_position = await service.get(position=7)
    assert by_position == await service.get(id=format_event_id(_LOG_ID, 7))
    assert (by_position.position, by_position.payload_json) == (7, payload("event 7"))
    assert by_position.id == format_event_id(_LOG_ID, 7)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "INVALID_FIELD"),
        ({"position": 7, "id": format_event_id(_LOG_ID, 7)}, "INVALID_FIELD"),
        ({"id": "evt_nonsense"}, "INVALID_FIELD"),
        ({"id": format_event_id(_LOG_ID, 7).lower()}, "INVALID_FIELD"),
        ({"id": format_event_id("TEST0002", 7)}, "EVENT_NOT_FOUND"),
        ({"id": format_event_id(_LOG_ID, 21)}, "EVENT_NOT_FOUND"),
        ({"position": 21}, "EVENT_NOT_FOUND"),
        ({"position": 2**64 - 1}, "EVENT_NOT_FOUND"),
    ],
)
async def test_a_request_for_no_event_says_why(service: _Service, fields: dict[str, Any], reason: str) -> None:
    """Neither or both, no id at all, another log's id, a position that is not committed."""
    error = await _refused(service.get(**fields))
    assert error.reason == reason


async def test_a_page_has_a_default_size_and_a_token(service: _Service) -> None:
    """A hundred events, and the way to the rest."""
    service.append(25)
    page = await service.list()
    assert len(page.events) == PAGE_SIZE_DEFAULT
    assert page.snapshot_position == 145
    assert [event.position for event in (await service.list(page_token=page.next_page_token)).events] == list(
        range(101, 146)
    )


@pytest.mark.parametrize("page_size", [1, 3, 5, 7, 20, 10_000, 2**31 - 1])
async def test_every_page_size_gives_the_same_events(service: _Service, page_size: int) -> None:
    """Also those that do not fit the frames, and those that are capped."""
    assert await service.list_all(page_size=page_size) == list(range(1, 21))


@pytest.mark.parametrize(
    ("first", "until", "expected"),
    [(0, 0, (1, 20)), (5, 0, (5, 20)), (0, 5, (1, 4)), (19, 99, (19, 20)), (9, 9, (1, 0))],
)
async def test_positions_are_half_open(service: _Service, first: int, until: int, expected: tuple[int, int]) -> None:
    """Zero means unset."""
    selection = _selection(from_position=first, until_position=until)
    assert await service.list_all(selection=selection, page_size=3) == list(range(expected[0], expected[1] + 1))


async def test_a_time_range_selects_by_timestamp(service: _Service) -> None:
    """From the start, inclusive, to the end, exclusive, in nanoseconds."""
    start, end = Timestamp(), Timestamp()
    start.FromNanoseconds(START_NS + 1)
    end.FromNanoseconds(START_NS + 3)
    filters = event_pb2.EventFilters(time_range=event_pb2.TimeRange(start=start, end=end))
    # In each frame of these tests the timestamps begin anew.
    expected = [2, 3, 7, 8, 12, 13, 17, 18]
    assert await service.list_all(selection=_selection(filters=filters), page_size=3) == expected


async def test_pages_show_the_log_as_it_was_at_the_first(service: _Service) -> None:
    """What is logged meanwhile is not in them; a new listing has it."""
    page = await service.list(page_size=15)
    service.append()
    rest = await service.list(page_size=15, page_token=page.next_page_token)
    assert [event.position for event in rest.events] == list(range(16, 21))
    assert (rest.snapshot_position, rest.next_page_token) == (20, "")
    assert len(await service.list_all()) == 25


_OTHER_QUERIES: list[Callable[[pb.ListEventsRequest], None]] = [
    lambda request: setattr(request.selection, "until_position", 9),
    lambda request: setattr(request.selection, "from_position", 2),
    lambda request: request.selection.filters.time_range.start.FromNanoseconds(1),
    lambda request: setattr(request, "order", pb.EVENT_ORDER_POSITION_ASCENDING),
    lambda request: setattr(request, "payload_form", event_pb2.PAYLOAD_FORM_STRUCT),
]


@pytest.mark.parametrize("change", _OTHER_QUERIES)
async def test_a_token_is_bound_to_its_query(service: _Service, change: Callable[[pb.ListEventsRequest], None]) -> None:
    """With anything else than the page size changed it is refused."""
    page = await service.list(page_size=5)
    request = pb.ListEventsRequest(page_token=page.next_page_token, page_size=5)
    change(request)
    assert (await _refused(service.list(request))).reason == "INVALID_PAGE_TOKEN"


async def test_a_token_goes_with_another_page_size_and_position_to_wait_for(service: _Service) -> None:
    """These two belong to a page, not to the query."""
    page = await service.list(page_size=5)
    rest = await service.list(page_size=50, page_token=page.next_page_token, selection=_selection(min_position=20))
    assert [event.position for event in rest.events] == list(range(6, 21))


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "A", lambda t: "B" + t[1:], lambda _: "x", lambda _: "ü"]
)
async def test_a_token_that_was_tampered_with_is_refused(service: _Service, change: Callable[[str], str]) -> None:
    """Cut, lengthened, changed, invented."""
    page = await service.list(page_size=5)
    assert (await _refused(service.list(page_token=change(page.next_page_token)))).reason == "INVALID_PAGE_TOKEN"


async def test_a_token_of_another_log_is_refused(service: _Service) -> None:
    """Positions of one log mean nothing in another."""
    other = _Service()
    other.writer.log_id = "TEST0002"
    other.append(4)
    page = await other.list(page_size=5)
    assert page.events[0].id.startswith("evt_TEST0002")
    assert (await _refused(service.list(page_size=5, page_token=page.next_page_token))).reason == "INVALID_PAGE_TOKEN"
    other.servicer.close()
    other.writer.close()


@pytest.mark.parametrize("by_id", [True, False])
async def test_a_read_waits_for_the_position_it_asks_for(service: _Service, *, by_id: bool) -> None:
    """So that a writer reads what it wrote, from a service that is not the one it wrote to."""
    name = {"id": format_event_id(_LOG_ID, 22)} if by_id else {"position": 22}
    reads = asyncio.gather(
        service.get(min_position=22, **name),
        service.list(selection=_selection(min_position=25, from_position=21), page_size=9),
    )
    await asyncio.sleep(0)
    service.append()
    event, page = await reads
    assert (event.position, len(page.events)) == (22, 5)


async def test_a_position_that_is_not_reached_in_time_is_told(service: _Service) -> None:
    """With what is committed, so that the caller can decide."""
    error = await _refused(service.get(position=1, min_position=21, time_remaining=0.02))
    assert (error.reason, error.metadata["committed_position"]) == ("POSITION_NOT_REACHED", "20")
    selection = _selection(min_position=21)
    assert (await _refused(service.list(selection=selection, time_remaining=0))).reason == "POSITION_NOT_REACHED"


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(2**62, 0), (-(2**62), 0), (9_223_372_037, 0), (1, 1_000_000_000), (1, -1)]
)
async def test_times_out_of_range_are_refused_by_name(service: _Service, seconds: int, nanos: int) -> None:
    """The field that is wrong is named."""
    time = Timestamp(seconds=seconds, nanos=nanos)
    for field in ("start", "end"):
        filters = event_pb2.EventFilters(time_range=event_pb2.TimeRange(**{field: time}))
        error = await _refused(service.list(selection=_selection(filters=filters)))
        assert error.reason == "INVALID_FIELD"
        assert f"selection.filters.time_range.{field}" in str(error)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"page_size": -1}, "INVALID_FIELD"),
        ({"order": pb.EVENT_ORDER_TIMESTAMP_DESCENDING}, "NOT_IMPLEMENTED"),
        ({"order": 99}, "NOT_IMPLEMENTED"),
        ({"selection": _selection(filters=event_pb2.EventFilters(sources=["s"]))}, "NOT_IMPLEMENTED"),
        ({"selection": _selection(filters=event_pb2.EventFilters(expression="a = 1"))}, "NOT_IMPLEMENTED"),
    ],
)
async def test_what_cannot_be_answered_is_refused(service: _Service, fields: dict[str, Any], reason: str) -> None:
    """A filter that is not built is not silently left out."""
    assert (await _refused(service.list(**fields))).reason == reason


async def test_payloads_come_as_structures_where_asked(service: _Service) -> None:
    """Of one event and of a page."""
    form = event_pb2.PAYLOAD_FORM_STRUCT
    event = await service.get(position=7, payload_form=form)
    assert (event.payload["text"], event.HasField("payload_json")) == ("event 7", False)
    page = await service.list(payload_form=form, page_size=2)
    assert [each.payload["text"] for each in page.events] == ["event 1", "event 2"]


async def test_a_page_of_large_events_stays_small(service: _Service) -> None:
    """A client with gRPC's default limits can take every page."""
    large = '{"a":"' + "x" * 1_000_000 + '"}'
    service.writer.append(frame_of(21, [large] * 6))
    sizes, token = [], ""
    while True:
        page = await service.list(selection=_selection(from_position=21), page_size=100, page_token=token)
        sizes.append(page.ByteSize())
        token = page.next_page_token
        if not token:
            break
    assert len(sizes) == 2
    assert max(sizes) < 4 * 1024 * 1024


async def test_damage_is_told_with_its_positions(service: _Service) -> None:
    """Also where a client asks for one event of it."""
    name = f"segments/{1:020d}.log"
    data = service.fs.files()[name]
    starts = [at for at in range(len(data)) if data.startswith(b"EVFR", at)]
    service.fs.flip(name, starts[1] + 60)
    page = await service.list()
    assert [event.position for event in page.events] == [1, 2, 3, 4, 5]
    error = await _refused(service.list(page_token=page.next_page_token))
    assert (error.reason, error.metadata) == ("LOG_CORRUPTED", {"first_position": "6", "last_position": "10"})
    assert (await _refused(service.get(position=8))).reason == "LOG_CORRUPTED"
    assert len(await service.list_all(selection=_selection(from_position=11))) == 10


async def test_where_there_is_no_log_it_says_so() -> None:
    """The service may run before the log exists."""
    servicer = QueryServicer(LocalLogReader(MemoryFileSystem()), WireCodec(), SystemClock())
    context: Any = FakeContext()
    assert (await _refused(servicer.list_events(pb.ListEventsRequest(), context))).reason == "LOG_UNAVAILABLE"
    servicer.close()


async def test_reads_are_bounded(service: _Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a stated number is refused, and those that run end well."""
    monkeypatch.setattr(service.servicer, "_reads", READS_RUNNING_MAX + READS_WAITING_MAX)
    assert (await _refused(service.get(position=1))).reason == "TOO_MANY_REQUESTS"
    monkeypatch.setattr(service.servicer, "_reads", 0)
    events = await asyncio.gather(*(service.get(position=n % 20 + 1) for n in range(40)))
    assert [event.position for event in events] == [n % 20 + 1 for n in range(40)]
    assert service.servicer._reads == 0
