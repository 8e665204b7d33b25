"""EventReplay against the real processes: the specification's methods, control, and replays that are broken off."""

import asyncio
import contextlib
import datetime as dt

import pytest
from eventlog.v1 import event_pb2

from shared.client import EventReplay, ReplayOptions, ReplayPace
from shared.client.back_off import BackOff
from shared.config import EventConfig
from shared.errors import EventException, EventFilterException, EventStreamException, EventValidationException
from shared.events import EventFilters, ReplayState
from tests.support.replays import START_S, log_events, numbered, streams

pytestmark = pytest.mark.cluster

EVENTS = 3_000
START = dt.datetime.fromtimestamp(START_S, dt.UTC)
OPTIONS = {"back_off": BackOff(first_s=0.01, max_s=0.1), "save_every_s": 0.1}


@pytest.fixture(scope="module")
def shared(module_cluster, tmp_path_factory):
    """A stream service on a log with EVENTS events, one a millisecond, and a session behind them."""
    with module_cluster() as cluster, streams(cluster, tmp_path_factory.mktemp("stream"), max_speed=10_000) as it:
        log_events(cluster, numbered(EVENTS))
        session = [("s", "a"), ("other", "a"), (None, None), ("s", None)]
        log_events(
            cluster,
            [
                event_pb2.NewEvent(type="t", correlation_id=chain, metadata={"session_id": name} if name else {})
                for name, chain in session
            ],
        )
        yield it


def client(it, **options):
    return EventReplay(EventConfig(), ReplayOptions(address=it.service.address, **OPTIONS, **options))


def until(last):
    return ReplayPace(until_position=last + 1)


async def test_replay_from_a_time_with_a_filter_at_a_speed(shared):
    """The specification's call: events since a time that match, in order, as recorded events."""
    async with client(shared) as replay:
        filters = EventFilters(type_patterns=["replay.*"], expression="payload.n < 1100")
        found = [event async for event in replay.replay_from(START + dt.timedelta(seconds=1), filters, speed=1000.0)]
    assert [event.payload["n"] for event in found] == list(range(1000, 1100))
    assert found[0].timestamp == START + dt.timedelta(seconds=1)
    assert (found[0].position, found[0].type) == (1001, "replay.test")
    assert replay.replay_state.position == EVENTS + 4
    assert (replay.replay_state.speed, replay.replay_state.filters.expression) == (1000.0, "payload.n < 1100")


async def test_replay_session(shared):
    """A session with what is related to it, and without."""
    async with client(shared) as replay:
        found = [event.position async for event in replay.replay_session("s", speed=0.0)]
        assert found == [EVENTS + 1, EVENTS + 2, EVENTS + 4]
        found = [event.position async for event in replay.replay_session("s", include_related=False, speed=0.0)]
        assert found == [EVENTS + 1, EVENTS + 4]


async def test_position_is_saved_loaded_and_gone_on_from(shared):
    """save_position saves the last event given; load_position returns the state; the rest comes exactly."""
    async with client(shared) as replay:
        async for event in replay.replay_from(START, EventFilters(type_patterns=["replay.*"]), speed=0.0):
            if event.position == 1234:
                replay.save_position("after 1234")
                break
        state = replay.load_position("after 1234")
        filters = EventFilters(type_patterns=["replay.*"], time_range=(START, None))
        assert state == ReplayState(position=1234, timestamp=event.timestamp, filters=filters, speed=0.0)
        rest = [event.position async for event in replay.replay_from_saved("after 1234")]
    assert rest == list(range(1235, EVENTS + 1))
    assert replay.load_position("after 1234").position == EVENTS + 4


async def test_checkpoint_follows_what_the_program_is_done_with(shared):
    """With a checkpoint_name the saved position never passes the event that the program has in hand."""

    def saved_position(replay):
        with contextlib.suppress(EventStreamException):
            return replay.load_position("done").position
        return 0

    async with client(shared) as replay:
        pace = ReplayPace(until_position=EVENTS + 1, events_per_second_max=2000.0)
        async for event in replay.replay_from(None, speed=0.0, pace=pace, checkpoint_name="done"):
            # Each look takes time, and as time passes the position is saved again.
            if event.position > 100 and (saved := saved_position(replay)) > 100:
                assert saved < event.position
                break
        rest = [event.position async for event in replay.replay_from_saved("done", pace=until(EVENTS))]
    assert rest == list(range(saved + 1, EVENTS + 1))


async def test_replay_is_paused_and_sped_up(shared):
    """A paused replay gives nothing until it goes on; a change of speed takes effect at once."""
    async with client(shared) as replay:
        with pytest.raises(EventStreamException):
            await replay.pause()
        found, resumed = [], []

        def go_on():
            resumed.append(asyncio.ensure_future(replay.resume()))

        async for event in replay.replay_from(None, speed=1.0):
            found.append(event.position)
            if len(found) == 1:
                await replay.pause()
                await replay.set_speed(0.0)
                asyncio.get_running_loop().call_later(0.05, go_on)
        await resumed[0]
    assert found == list(range(1, EVENTS + 5))


async def test_killed_stream_service_is_only_a_delay(make_cluster, tmp_path):
    """kill -9 and a new start in the middle of a replay: every event comes once, in order, up to the same end."""
    with make_cluster() as cluster, streams(cluster, tmp_path / "stream") as it:
        log_events(cluster, numbered(EVENTS))
        async with client(it) as replay:
            found = []
            async for event in replay.replay_from(START, speed=1.0):
                found.append(event.position)
                if len(found) == 500:
                    it.service.kill()
                    it.service._settings["streaming"]["listen"] = it.service.address
                    await asyncio.to_thread(it.service.start)
                    log_events(cluster, numbered(10))
                    await replay.set_speed(0.0)
        assert found == list(range(1, EVENTS + 1))


async def test_silent_service_is_noticed(shared):
    """Where nothing comes for silence_s_max, the replay is taken up anew, and goes on where it was.

    At one event in 1,000 seconds, only that gives the second and the third.
    """
    async with client(shared, silence_s_max=0.2) as replay:
        pace = ReplayPace(until_position=4, events_per_second_max=0.001)
        found = [event.position async for event in replay.replay_from(None, speed=0.0, pace=pace)]
    assert found == [1, 2, 3]


async def test_errors_are_those_of_the_request(shared):
    """What is wrong with a request is raised at once, as what it is."""
    async with client(shared) as replay:
        with pytest.raises(EventFilterException):
            await anext(replay.replay_from(START, EventFilters(expression="<")))
        with pytest.raises(EventValidationException):
            await anext(replay.replay_from(START, speed=-1.0))
        with pytest.raises(EventStreamException, match="never"):
            await anext(replay.replay_from_saved("never"))


async def test_unreachable_service_is_an_error():
    """Where nobody answers, the first event raises; nothing waits for ever."""
    async with EventReplay(EventConfig(), ReplayOptions(address="127.0.0.1:1")) as replay:
        with pytest.raises(EventException) as caught:
            await anext(replay.replay_from(START))
    assert caught.value.reason == "DEPENDENCY_UNAVAILABLE"
