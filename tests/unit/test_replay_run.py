"""One replay: what it gives, in which order, and how it ends, with history that is read in pieces, late, or failing."""

import asyncio
from contextlib import aclosing

import numpy as np
import pytest

from shared.clock import SystemClock
from shared.columns.encoded_events import EncodedEvents, read_answer
from shared.errors import EventException, LogCorrupted
from stream_service import read_ahead, replay_run
from stream_service.read_ahead import ReadAhead
from stream_service.replay_checkpoint import ReplayCheckpoint
from stream_service.replay_run import Beat, Delivery, Ending, Progress, ReplayPlan, ReplayRun
from tests.support.encoded import answer, batch

SECOND = 1_000_000_000


def history(*batches, error=None):
    """A source of these batches, each from the position asked for; then the error, if there is one."""

    async def read(position):
        for events in batches:
            start = int(events.positions.searchsorted(position))
            if start < len(events):
                yield events.slice(start, len(events))
        if error is not None:
            raise error

    return read


def replay(source, *, until=100, heartbeat_s=60.0, **plan):
    settings = {"from_position": 1, "until_position": until, "speed": 0.0} | plan
    return ReplayRun(ReplayPlan(**settings), source, SystemClock(), heartbeat_s=heartbeat_s)


async def all_of(run):
    async with aclosing(run.messages()) as messages:
        return [message async for message in messages]


def positions_of(messages):
    return [int(each) for message in messages if isinstance(message, Delivery) for each in message.events.positions]


async def test_unpaced_replay_gives_what_history_has_as_it_is():
    """Unpaced, each batch of history is given whole, and the replay ends complete, behind its end."""
    batches = [batch(2, 3, 5), batch(9)]
    run = replay(history(*batches))
    messages = await all_of(run)
    assert [message.events for message in messages[:-1]] == batches
    assert [message.resume_position for message in messages[:-1]] == [6, 10]
    assert messages[-1] == Ending("COMPLETED", 100)
    assert run.passed == Progress(99, int(batches[-1].timestamps_ns[-1]))


async def test_replay_without_events_is_complete():
    """Where nothing matches, the replay ends at its end."""
    assert await all_of(replay(history())) == [Ending("COMPLETED", 100)]


async def test_fast_replay_gives_everything_in_order():
    """Paced, what is due together goes together, and nothing is missing or twice."""
    everything = range(1, 400)
    run = replay(history(batch(*everything[:150]), batch(*everything[150:])), speed=1000.0, until=400)
    assert positions_of(await all_of(run)) == list(everything)


async def test_large_batches_are_split_into_messages(monkeypatch):
    """A batch with more bytes than a message may have is given in several, an event larger than that alone."""
    monkeypatch.setattr(replay_run, "DELIVERY_BYTES_MAX", 250)
    answered = answer(range(1, 9), [10, 10, 300, 10, 10, 10, 10, 300])
    events = read_answer(answered.SerializeToString())[0]
    messages = await all_of(replay(history(events)))
    assert positions_of(messages) == list(range(1, 9))
    given = [message.events for message in messages[:-1]]
    assert all(len(each.data) <= 250 or len(each) == 1 for each in given)
    assert b"".join(each.data for each in given) == events.data
    assert len(given) < 8


async def test_rate_limit_splits_batches():
    """With a limit, a batch is given in pieces, all of it."""
    run = replay(history(batch(*range(1, 101))), events_per_second_max=1000.0)
    messages = await all_of(run)
    assert positions_of(messages) == list(range(1, 101))
    assert len(messages) > 5


async def test_capped_gap_is_not_waited_for():
    """A gap of a century between two events costs no more than gap_max."""
    events = batch(1, 2)
    far = EncodedEvents(events.data, events.positions, np.array([0, 2**62]), events.recorded_ns)
    run = replay(history(far), speed=1.0, gap_max_ns=10_000_000)
    assert positions_of(await all_of(run)) == [1, 2]


async def test_error_of_history_ends_the_replay_behind_what_came_before():
    """The error is raised after what was read before it, and an Ending that names its reason and where to resume."""
    run = replay(history(batch(1, 2, 3), error=LogCorrupted("bad")))
    async with aclosing(run.messages()) as messages:
        assert positions_of([await anext(messages)]) == [1, 2, 3]
        assert await anext(messages) == Ending("LOG_CORRUPTED", 4)
        with pytest.raises(LogCorrupted):
            await anext(messages)


async def test_paused_replay_beats_and_goes_on():
    """While paused it only shows that it lives; told to go on it gives the rest at once."""
    run = replay(history(batch(1, 2, 3)), heartbeat_s=0.01)
    run.change(paused=True)
    async with aclosing(run.messages()) as messages:
        assert [await anext(messages) for _ in range(3)] == [Beat(1)] * 3
        run.change(paused=False)
        assert positions_of([await anext(messages)]) == [1, 2, 3]


async def test_change_of_speed_takes_effect_while_it_waits():
    """A replay that waits for an event of next century gives it at once when it becomes unpaced."""
    events = batch(1, 2)
    far = EncodedEvents(events.data, events.positions, np.array([0, 2**62]), events.recorded_ns)
    run = replay(history(far), speed=1.0)
    async with aclosing(run.messages()) as messages:
        assert positions_of([await anext(messages)]) == [1]
        asyncio.get_running_loop().call_soon(lambda: run.change(speed=0.0))
        assert positions_of([await anext(messages)]) == [2]


async def test_speed_given_while_the_first_events_are_taken_counts_from_the_last_of_them():
    """An unpaced replay that gets a speed while its first batch is taken does not go through that batch again."""
    events, more = batch(1, 2), batch(3)
    far = EncodedEvents(events.data, events.positions, np.array([0, 2**61]), events.recorded_ns)
    near = EncodedEvents(more.data, more.positions, np.array([2**61 + 10_000_000]), more.recorded_ns)
    run = replay(history(far, near))
    async with aclosing(run.messages()) as messages:
        assert positions_of([await anext(messages)]) == [1, 2]
        run.change(speed=1.0)
        assert positions_of([await anext(messages)]) == [3]


async def test_replay_that_is_told_to_end_says_where_to_resume():
    """Ended from outside, in the middle of a wait, it gives an Ending with the reason and raises it."""
    run = replay(history(batch(1)), heartbeat_s=0.01)
    run.change(paused=True)
    async with aclosing(run.messages()) as messages:
        assert await anext(messages) == Beat(1)
        run.end(EventException("over", reason="SERVER_DRAINING"))
        assert await anext(messages) == Ending("SERVER_DRAINING", 1)
        with pytest.raises(EventException, match="over"):
            await anext(messages)


async def test_what_was_not_taken_is_not_passed():
    """The position passed moves when the consumer asks for what comes after, never before."""
    run = replay(history(batch(1, 2), batch(3)))
    async with aclosing(run.messages()) as messages:
        await anext(messages)
        assert run.passed.position == 0
        await anext(messages)
        assert run.passed.position == 2


async def test_read_ahead_gives_up_a_reading_that_waits_and_goes_on_behind_it(monkeypatch):
    """Where the replay takes nothing, the reading is closed; later it is begun anew, without a loss or a repetition."""
    monkeypatch.setattr(read_ahead, "READ_AHEAD_BYTES_MAX", 1)
    monkeypatch.setattr(read_ahead, "STALL_S_MAX", 0.0)
    read = history(*(batch(position) for position in range(1, 50)))
    begun, closed = [], asyncio.Event()

    async def source(position):
        begun.append(position)
        async with aclosing(read(position)) as batches:
            try:
                async for events in batches:
                    yield events
            finally:
                closed.set()

    changed = asyncio.Event()
    taken = []
    async with ReadAhead(source, 1, changed) as ahead:
        await closed.wait()
        while not ahead.exhausted:
            changed.clear()
            events = ahead.take()
            if events is None:
                await changed.wait()
            else:
                taken += events.positions.tolist()
    assert taken == list(range(1, 50))
    assert begun == sorted(set(begun))
    assert len(begun) > 1


async def test_checkpoint_saves_behind_and_at_the_end():
    """While the replay runs, what is saved was passed a moment before; save_now saves where it is, and only forward."""
    run = replay(history(batch(1, 2, 3)))
    saved = []

    async def save(progress):
        saved.append(progress.position)

    async with ReplayCheckpoint(run, save, failures=None) as checkpoint:
        await all_of(run)
        await checkpoint.save_now()
        await checkpoint.save_now()
    assert saved == [99]
