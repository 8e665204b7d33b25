"""History over gRPC: complete and exact across answers that are cut short, lost connections and restarts."""

from contextlib import asynccontextmanager

import pytest
from eventlog.v1 import query_service_pb2

from shared.client.back_off import BackOff
from shared.clock import SystemClock
from shared.errors import EventException, EventFilterException, LogCorrupted
from shared.rpc.channel import connect
from shared.rpc.server import Server
from shared.telemetry.metrics import Metrics
from stream_service import query_history
from stream_service.query_history import Extent, QueryHistory, Selection
from tests.support.encoded import answer

BACK_OFF = BackOff(first_s=0.001, max_s=0.002)
WANTED = Selection(from_position=1, until_position=100)


class ScriptedQueries:
    """A query service that answers each call as the script says, and keeps what it was asked."""

    def __init__(self, *calls):
        self.calls = list(calls)
        self.asked = []

    async def query(self, request, context):
        del context
        self.asked.append((request.selection.from_position, request.resume_token))
        for step in self.calls.pop(0):
            if isinstance(step, Exception):
                raise step
            yield step

    async def list_events(self, request, context):
        del context
        step = self.calls.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def part(*positions, partial=False, token=""):
    message = answer(positions)
    message.summary.snapshot_position = 99
    message.summary.partial = partial
    message.summary.resume_token = token
    return message


def gone():
    error = EventException("draining", reason="SERVER_DRAINING")
    error.retry_delay_s = 0.001
    return error


@asynccontextmanager
async def history_of(queries):
    clock = SystemClock()
    server = Server(
        service="query_service",
        listen="127.0.0.1:0",
        metrics_listen="127.0.0.1:0",
        metrics=Metrics("query_service"),
        clock=clock,
    )
    server.add_service(query_service_pb2.DESCRIPTOR.services_by_name["QueryService"], queries)
    async with server, connect(server.address) as channel:
        yield QueryHistory(channel, clock, BACK_OFF)


async def read(history, **options):
    return [int(each) async for events in history.read(WANTED, **options) for each in events.positions]


async def test_answer_cut_short_goes_on_with_its_token():
    """A partial answer is continued where it ended, also where nothing in it matched."""
    queries = ScriptedQueries(
        [answer([1, 2]), part(partial=True, token="a")],
        [part(partial=True, token="b")],
        [answer([7]), part()],
    )
    async with history_of(queries) as history:
        assert await read(history) == [1, 2, 7]
    assert queries.asked == [(1, ""), (1, "a"), (1, "b")]


async def test_lost_answer_is_asked_for_behind_what_came():
    """After an error in the middle of an answer, the rest is asked for anew: nothing is missing or twice."""
    queries = ScriptedQueries([answer([1, 2]), gone()], [gone()], [answer([5]), gone()], [answer([9]), part()])
    async with history_of(queries) as history:
        assert await read(history) == [1, 2, 5, 9]
    assert queries.asked == [(1, ""), (3, ""), (3, ""), (6, "")]


async def test_limit_is_kept_across_answers():
    """A limit holds for all answers together, and nothing is asked for beyond it."""
    queries = ScriptedQueries([answer([1, 2]), gone()], [answer([3]), part(partial=True, token="a")])
    async with history_of(queries) as history:
        assert await read(history, limit=3) == [1, 2, 3]


async def test_error_of_the_request_is_not_retried():
    """What a repetition would not mend is raised at once, with its reason."""
    queries = ScriptedQueries([EventFilterException("wrong")])
    async with history_of(queries) as history:
        with pytest.raises(EventFilterException, match="wrong") as caught:
            await read(history)
    assert caught.value.reason == "INVALID_FILTER"


async def test_service_that_stays_away_is_given_up(monkeypatch):
    """A query service that cannot be reached for RETRY_S_MAX is an error that says so."""
    monkeypatch.setattr(query_history, "RETRY_S_MAX", 0.0)
    async with connect("127.0.0.1:1") as channel:
        history = QueryHistory(channel, SystemClock(), BACK_OFF)
        with pytest.raises(EventException) as caught:
            await read(history)
        assert caught.value.reason == "DEPENDENCY_UNAVAILABLE"
        with pytest.raises(EventException):
            await history.extent()


async def test_extent_is_that_of_the_log():
    """What is kept and what is committed, also of an empty log, and after an error that passes."""
    page = query_service_pb2.ListEventsResponse(events=answer([4]).events, snapshot_position=9)
    queries = ScriptedQueries(gone(), page, query_service_pb2.ListEventsResponse(snapshot_position=0))
    async with history_of(queries) as history:
        assert await history.extent() == Extent(4, 9, "AAAAAAAA")
        assert await history.extent() == Extent(1, 0)


async def test_damage_at_the_beginning_is_part_of_the_log():
    """Where the first event is damaged, the log begins with it: what lies behind can still be replayed."""
    damaged = LogCorrupted("damaged", first_position=3, last_position=5)
    queries = ScriptedQueries(damaged, query_service_pb2.ListEventsResponse(snapshot_position=9))
    async with history_of(queries) as history:
        assert await history.extent() == Extent(3, 9)


async def test_nothing_is_asked_for_an_empty_selection():
    """Where there can be no event, nobody is asked."""
    async with history_of(ScriptedQueries()) as history:
        empty = Selection(from_position=5, until_position=5)
        assert [events async for events in history.read(empty)] == []


async def test_answer_without_a_summary_is_not_complete():
    """An answer that ends without its summary was cut off: the rest is asked for, and nothing is taken for the end."""
    queries = ScriptedQueries([answer([1])], [answer([2]), part()])
    async with history_of(queries) as history:
        assert await read(history) == [1, 2]
