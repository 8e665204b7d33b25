"""The RPCs of the query service without a wire: requests, page tokens, waiting for positions, partial answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from eventlog.v1 import event_pb2
from eventlog.v1 import query_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from query_service.messages import PAGE_SIZE_DEFAULT
from shared.errors import EventException, EventValidationException
from shared.events.ids import format_event_id
from tests.support.builders import frame_of, payload
from tests.support.fake_clock import START_NS
from tests.support.log_requests import FakeContext
from tests.support.query_service import QueryUnderTest

_LOG_ID = "TEST0001"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[QueryUnderTest]:
    """A service over a log of twenty events, in frames of five."""
    async with QueryUnderTest(tmp_path, log_id=_LOG_ID) as made:
        made.append(4)
        yield made


def _selection(**fields: Any) -> event_pb2.EventFilters:
    return pb.EventSelection(**fields)


async def _refused(call: Any) -> EventException:
    with pytest.raises(EventException) as caught:
        await call
    return caught.value


async def test_an_event_is_found_by_id_and_by_position(service: QueryUnderTest) -> None:
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
async def test_a_request_for_no_event_says_why(service: QueryUnderTest, fields: dict[str, Any], reason: str) -> None:
    """Neither or both, no id at all, another log's id, a position that is not committed."""
    error = await _refused(service.get(**fields))
    assert error.reason == reason


async def test_a_page_has_a_default_size_and_a_token(service: QueryUnderTest) -> None:
    """A hundred events, and the way to the rest."""
    service.append(25)
    page = await service.list()
    assert len(page.events) == PAGE_SIZE_DEFAULT
    assert page.snapshot_position == 145
    assert [event.position for event in (await service.list(page_token=page.next_page_token)).events] == list(
        range(101, 146)
    )


@pytest.mark.parametrize("page_size", [1, 3, 5, 7, 20, 10_000, 2**31 - 1])
async def test_every_page_size_gives_the_same_events(service: QueryUnderTest, page_size: int) -> None:
    """Also those that do not fit the frames, and those that are capped."""
    assert await service.list_all(page_size=page_size) == list(range(1, 21))


@pytest.mark.parametrize(
    ("first", "until", "expected"),
    [(0, 0, (1, 20)), (5, 0, (5, 20)), (0, 5, (1, 4)), (19, 99, (19, 20)), (9, 9, (1, 0))],
)
async def test_positions_are_half_open(
    service: QueryUnderTest, first: int, until: int, expected: tuple[int, int]
) -> None:
    """Zero means unset."""
    selection = _selection(from_position=first, until_position=until)
    assert await service.list_all(selection=selection, page_size=3) == list(range(expected[0], expected[1] + 1))


async def test_a_time_range_selects_by_timestamp(service: QueryUnderTest) -> None:
    """From the start, inclusive, to the end, exclusive, in nanoseconds."""
    start, end = Timestamp(), Timestamp()
    start.FromNanoseconds(START_NS + 1)
    end.FromNanoseconds(START_NS + 3)
    filters = event_pb2.EventFilters(time_range=event_pb2.TimeRange(start=start, end=end))
    # In each frame of these tests the timestamps begin anew.
    expected = [2, 3, 7, 8, 12, 13, 17, 18]
    assert await service.list_all(selection=_selection(filters=filters), page_size=3) == expected


async def test_pages_show_the_log_as_it_was_at_the_first(service: QueryUnderTest) -> None:
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
async def test_a_token_is_bound_to_its_query(
    service: QueryUnderTest, change: Callable[[pb.ListEventsRequest], None]
) -> None:
    """With anything else than the page size changed it is refused."""
    page = await service.list(page_size=5)
    request = pb.ListEventsRequest(page_token=page.next_page_token, page_size=5)
    change(request)
    assert (await _refused(service.list(request))).reason == "INVALID_PAGE_TOKEN"


async def test_a_token_goes_with_another_page_size_and_position_to_wait_for(service: QueryUnderTest) -> None:
    """These two belong to a page, not to the query."""
    page = await service.list(page_size=5)
    rest = await service.list(page_size=50, page_token=page.next_page_token, selection=_selection(min_position=20))
    assert [event.position for event in rest.events] == list(range(6, 21))


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "A", lambda t: "B" + t[1:], lambda _: "x", lambda _: "ü"]
)
async def test_a_token_that_was_tampered_with_is_refused(service: QueryUnderTest, change: Callable[[str], str]) -> None:
    """Cut, lengthened, changed, invented."""
    page = await service.list(page_size=5)
    assert (await _refused(service.list(page_token=change(page.next_page_token)))).reason == "INVALID_PAGE_TOKEN"


async def test_a_token_of_another_log_is_refused(service: QueryUnderTest, tmp_path: Path) -> None:
    """Positions of one log mean nothing in another."""
    async with QueryUnderTest(tmp_path / "other", log_id="TEST0002") as other:
        other.append(4)
        page = await other.list(page_size=5)
        assert page.events[0].id.startswith("evt_TEST0002")
    error = await _refused(service.list(page_size=5, page_token=page.next_page_token))
    assert error.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("by_id", [True, False])
async def test_a_read_waits_for_the_position_it_asks_for(service: QueryUnderTest, *, by_id: bool) -> None:
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


async def test_a_position_that_is_not_reached_in_time_is_told(service: QueryUnderTest) -> None:
    """With what is committed, so that the caller can decide."""
    error = await _refused(service.get(position=1, min_position=21, time_remaining=0.02))
    assert (error.reason, error.metadata["committed_position"]) == ("POSITION_NOT_REACHED", "20")
    selection = _selection(min_position=21)
    assert (await _refused(service.list(selection=selection, time_remaining=0))).reason == "POSITION_NOT_REACHED"


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(2**62, 0), (-(2**62), 0), (9_223_372_037, 0), (1, 1_000_000_000), (1, -1)]
)
async def test_times_out_of_range_are_refused_by_name(service: QueryUnderTest, seconds: int, nanos: int) -> None:
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
        ({"order": 99}, "INVALID_FIELD"),
        ({"payload_form": 99}, "INVALID_FIELD"),
        ({"selection": _selection(filters=event_pb2.EventFilters(expression="a = 1"))}, "INVALID_FILTER"),
        ({"selection": _selection(time_budget=Duration(seconds=-1))}, "INVALID_FIELD"),
    ],
)
async def test_what_cannot_be_answered_is_refused(service: QueryUnderTest, fields: dict[str, Any], reason: str) -> None:
    """Each with its own reason."""
    assert (await _refused(service.list(**fields))).reason == reason


async def test_payloads_come_as_structures_where_asked(service: QueryUnderTest) -> None:
    """Of one event and of a page."""
    form = event_pb2.PAYLOAD_FORM_STRUCT
    event = await service.get(position=7, payload_form=form)
    assert (event.payload["text"], event.HasField("payload_json")) == ("event 7", False)
    page = await service.list(payload_form=form, page_size=2)
    assert [each.payload["text"] for each in page.events] == ["event 1", "event 2"]


async def test_a_page_of_large_events_stays_small(service: QueryUnderTest) -> None:
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


async def test_damage_is_told_with_its_positions(service: QueryUnderTest) -> None:
    """Also where a client asks for one event of it."""
    name = f"segments/{1:020d}.log"
    data = service.fs.read(name)
    starts = [at for at in range(len(data)) if data.startswith(b"EVFR", at)]
    service.flip(name, starts[1] + 60)
    page = await service.list()
    assert [event.position for event in page.events] == [1, 2, 3, 4, 5]
    error = await _refused(service.list(page_token=page.next_page_token))
    assert (error.reason, error.metadata) == ("LOG_CORRUPTED", {"first_position": "6", "last_position": "10"})
    assert (await _refused(service.get(position=8))).reason == "LOG_CORRUPTED"
    assert len(await service.list_all(selection=_selection(from_position=11))) == 10


async def test_where_there_is_no_log_it_says_so(tmp_path: Path) -> None:
    """The service may run before the log exists."""
    async with QueryUnderTest(tmp_path, log_id=_LOG_ID, with_log=False) as service:
        assert (await _refused(service.list())).reason == "LOG_UNAVAILABLE"


async def test_reads_are_bounded(tmp_path: Path) -> None:
    """More than a stated number is refused, and those that run end well."""
    async with QueryUnderTest(tmp_path, log_id=_LOG_ID, calls_max=3) as service:
        service.append(4)
        with service.lookups.admitted(), service.lookups.admitted(), service.lookups.admitted():
            assert (await _refused(service.get(position=1))).reason == "TOO_MANY_REQUESTS"
            assert (await service.count()).count == 20, "the other lane is free"
        events = await asyncio.gather(*(service.get(position=n % 20 + 1) for n in range(3)))
        assert [event.position for event in events] == [1, 2, 3]


@pytest.fixture
async def sealed(service: QueryUnderTest) -> QueryUnderTest:
    """The same log with a sealed segment, a rotated one and an active one, of twenty, ten and five events."""
    service.rotate()
    service.append(2)
    service.seal()
    service.rotate()
    service.append()
    return service


_THIRD = _selection(filters=event_pb2.EventFilters(expression="payload.text LIKE '*3' OR position = 35"))


async def test_a_query_streams_what_matches_and_its_cost(sealed: QueryUnderTest) -> None:
    """In each order, over sealed and unsealed segments."""
    expected = [3, 13, 23, 33, 35]
    answer = await sealed.query(selection=_THIRD)
    assert answer.positions == expected
    assert (answer.summary.matched_events, answer.summary.partial, answer.summary.resume_token) == (5, False, "")
    assert answer.summary.snapshot_position == 35
    assert answer.summary.read_segments + answer.summary.pruned_segments == 3
    down = await sealed.query(selection=_THIRD, order=pb.EVENT_ORDER_POSITION_DESCENDING)
    assert down.positions == expected[::-1]
    # In each frame of these tests the timestamps begin anew, a nanosecond apart: 35 is the last of its frame.
    timed = await sealed.query(selection=_THIRD, order=pb.EVENT_ORDER_TIMESTAMP_ASCENDING)
    assert timed.positions == expected
    newest = await sealed.query(selection=_THIRD, order=pb.EVENT_ORDER_TIMESTAMP_DESCENDING, limit=2)
    assert newest.positions == [35, 33]


async def test_counts_agree_with_what_is_streamed(sealed: QueryUnderTest) -> None:
    """Also when it is asked again, and remembered."""
    for _ in range(2):
        assert (await sealed.count(selection=_THIRD)).count == 5
        assert (await sealed.count()).count == 35


async def test_a_scan_has_the_columns_that_were_asked_for(sealed: QueryUnderTest) -> None:
    """Whether the position is among them or not; a kind that values do not have is null."""
    columns = ["payload.text:string", "id", "payload.text:double"]
    answer = await sealed.scan(selection=_THIRD, columns=columns)
    table = pa.ipc.open_stream(answer.data).read_all()
    assert table.column_names == columns
    assert table["payload.text:string"].to_pylist() == [f"event {n}" for n in (3, 13, 23, 33, 35)]
    assert table["id"].to_pylist() == [format_event_id(_LOG_ID, n) for n in (3, 13, 23, 33, 35)]
    assert table["payload.text:double"].to_pylist() == [None] * 5
    answer = await sealed.scan(columns=["position"], order=pb.EVENT_ORDER_POSITION_DESCENDING)
    assert pa.ipc.open_stream(answer.data).read_all()["position"].to_pylist() == list(range(35, 0, -1))


async def test_sums_by_group_come_with_a_schema_and_a_summary(sealed: QueryUnderTest) -> None:
    """Also where nothing matches; every message but the ends says how far it is."""
    asked = pb.AggregateRequest(selection=_THIRD, group_by=["payload.text:text"])
    answer = await sealed.aggregate(asked)
    assert {row["payload.text:text"]: row["count"] for row in answer.rows} == {
        f"event {n}": 1 for n in (3, 13, 23, 33, 35)
    }
    assert all(set(row) == {"payload.text:text", "count"} for row in answer.rows)
    assert answer.summary.matched_events == 5
    assert answer.until[-1] == 36
    assert answer.until == sorted(answer.until)
    asked = pb.AggregateRequest(selection=_selection(filters=event_pb2.EventFilters(expression="type = 'never'")))
    nothing = await sealed.aggregate(asked)
    assert (nothing.rows, nothing.summary.matched_events, nothing.summary.partial) == ([], 0, False)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"group_by": ["nonsense"]}, "group_by[0]"),
        ({"group_by": ["type", "id"]}, "group_by[1]"),
        ({"group_by": ["metadata.tags"]}, "group_by[0]"),
        ({"group_by": ["type", "type"]}, "group_by"),
        ({"group_by": [f"payload.f{n}" for n in range(9)]}, "group_by"),
        ({"time_bucket": Duration(nanos=999_999)}, "time_bucket"),
        ({"time_bucket": Duration(seconds=-5)}, "time_bucket"),
        ({"time_bucket": Duration(seconds=400 * 86_400)}, "time_bucket"),
        ({"value_field": "type"}, "value_field"),
        ({"value_field": "payload.a.."}, "value_field"),
        ({"by_value": True}, "by_value"),
        ({"value_field": "payload.n", "value_error": 0.01}, "value_error"),
        ({"value_field": "payload.n", "by_value": True, "value_error": 0.2}, "value_error"),
        ({"value_field": "payload.n", "by_value": True, "value_error": 1e-17}, "value_error"),
        ({"value_field": "payload.n", "by_value": True, "value_error": -0.01}, "value_error"),
        ({"value_field": "payload.n", "by_value": True, "value_error": float("nan")}, "value_error"),
    ],
)
async def test_sums_that_cannot_be_are_refused_by_name(service: QueryUnderTest, fields: Any, named: str) -> None:
    """Before anything is read."""
    refusal = await _refused(service.aggregate(pb.AggregateRequest(**fields)))
    assert refusal.reason == "INVALID_FIELD"
    assert isinstance(refusal, EventValidationException)
    assert refusal.violations[0].field == named


async def test_groups_of_long_texts_come_in_messages_that_a_client_takes(service: QueryUnderTest) -> None:
    """Each in one piece, however many it takes."""
    texts = [f"{number}" * 700_000 for number in range(1, 8)]
    assert service.writer is not None
    service.writer.append(frame_of(21, [payload(text) for text in texts]))
    asked = pb.AggregateRequest(selection=pb.EventSelection(from_position=21), group_by=["payload.text:text"])
    answer = await service.aggregate(asked)
    assert sorted(row["payload.text:text"] for row in answer.rows) == texts
    assert max(answer.sizes) < 4 * 1024 * 1024


async def test_very_long_payloads_are_searched_in_bounded_memory(service: QueryUnderTest) -> None:
    """Sealed and not: DuckDB would take gigabytes to parse two thousand of them at once."""
    assert service.writer is not None
    for number in range(0, 1_200, 40):
        texts = [payload(f"{number + row:04}{'x' * 100_000}") for row in range(40)]
        service.writer.append(frame_of(service.writer.last_position + 1, texts))
    filters = event_pb2.EventFilters(expression="payload.text LIKE '*7x*'")
    asked = pb.EventSelection(filters=filters, from_position=21)
    for sealed in (False, True):
        if sealed:
            service.rotate()
            service.seal()
        assert (await service.count(selection=asked)).count == 120
        assert len((await service.query(selection=asked)).events) == 120
        groups = await service.aggregate(pb.AggregateRequest(selection=asked, group_by=["payload.text:text"]))
        assert len(groups.rows) == 120
        scanned = await service.scan(selection=asked, columns=["payload.text:string"])
        assert pa.ipc.open_stream(scanned.data).read_all().num_rows == 120


async def test_an_export_has_every_event_once(sealed: QueryUnderTest) -> None:
    """As lines of JSON, in order."""
    answer = await sealed.export(format="json")
    assert [json.loads(line)["id"] for line in answer.data.splitlines()] == [
        format_event_id(_LOG_ID, n) for n in range(1, 36)
    ]


async def test_an_explanation_says_what_is_read_and_why(sealed: QueryUnderTest) -> None:
    """Of each segment; nothing of the filter's values is in the SQL."""
    found = await sealed.explain(expression="type = 'never.was' AND payload.text = 'secret'")
    assert [(each.first_position, each.last_position, each.read) for each in found.segments] == [
        (1, 20, False),
        (21, 30, True),
        (31, 35, True),
    ]
    assert "type" in found.segments[0].why
    assert "secret" not in found.sql
    assert found.tree.startswith("AND")
    assert found.normalized_expression == "type = 'never.was' AND payload.text = 'secret'"


async def test_a_call_out_of_time_can_be_gone_on_from(sealed: QueryUnderTest) -> None:
    """Each part gets somewhere; together they are the whole."""
    selection = _selection(time_budget=Duration(nanos=1))
    found, token, calls = [], "", 0
    while True:
        answer = await sealed.query(selection=selection, resume_token=token)
        found += answer.positions
        calls += 1
        token = answer.summary.resume_token
        assert answer.summary.partial == bool(token)
        if not token:
            break
        assert answer.summary.partial_reason == "DEADLINE"
    assert found == list(range(1, 36))
    assert calls > 1


async def test_a_query_survives_sealing_and_rotation_between_its_steps(sealed: QueryUnderTest) -> None:
    """What was a .log when it began may be sealed when it gets there."""
    context: Any = FakeContext(None)
    stream = sealed.servicer.query(pb.QueryRequest(), context)
    found = [event.position for event in pb.QueryResponse.FromString(await anext(stream)).events]
    sealed.seal()
    sealed.rotate()
    sealed.append()
    sealed.seal()
    async for message in stream:
        found += [event.position for event in pb.QueryResponse.FromString(message).events]
    assert found == list(range(1, 36))


async def test_a_call_that_is_given_up_stops_its_work(sealed: QueryUnderTest) -> None:
    """The lane is free again, and nothing runs in it."""
    gave_up = asyncio.create_task(sealed.count())
    await asyncio.sleep(0)
    gave_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gave_up
    running = sealed.registry.registry.get_sample_value("eventlog_query_running_steps", {"lane": "searches"})
    admitted = sealed.registry.registry.get_sample_value("eventlog_query_calls", {"lane": "searches"})
    assert (running, admitted) == (0, 0)
    assert (await sealed.count()).count == 35
