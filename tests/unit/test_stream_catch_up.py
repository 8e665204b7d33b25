"""Reading history for one subscriber: what is not there any more is said; what cannot be reached is waited for."""

import asyncio

import pytest

from shared.errors import EventException
from stream_service import catch_up as module
from stream_service.catch_up import DAMAGED, TRIMMED, CatchUp, Missing
from tests.support.streaming import MemoryLog, Reader, events_of, forms

TIMEOUT_S = 10


def history(*errors):
    """Reads events, after each of these errors was raised once; ranges that were asked for are noted."""
    left, asked = list(errors), []

    async def read(first, until):
        asked.append((first, until))
        if left:
            raise left.pop(0)
        yield forms.encode(events_of(first, until - first), payload_as_struct=False)

    return read, asked


async def taken(catch_up, changed, cursor, end):
    """What comes next, once something does."""
    async with asyncio.timeout(TIMEOUT_S):
        while (found := await catch_up.take(cursor, end)) is None:
            await changed.wait()
            changed.clear()
        return found


async def test_events_then_the_end():
    """The events of the range come, then that there are no more up to its end."""
    read, asked = history()
    changed = asyncio.Event()
    async with CatchUp(read, changed) as catch_up:
        found = await taken(catch_up, changed, 3, 8)
        assert (found.events.positions.tolist(), found.until) == ([3, 4, 5, 6, 7], 8)
        assert (await taken(catch_up, changed, 8, 9)).until == 8
        assert asked == [(3, 8)]


@pytest.mark.parametrize(
    ("reason", "metadata", "expected"),
    [
        ("POSITION_TRIMMED", {"first_position": 20}, Missing(20, TRIMMED)),
        ("LOG_CORRUPTED", {"first_position": 3, "last_position": 9}, Missing(10, DAMAGED)),
    ],
)
async def test_what_is_gone_is_said(reason, metadata, expected):
    """Where retention has removed events, or they are damaged, the reading says up to where."""
    read, _ = history(EventException("gone", reason=reason, **metadata))
    changed = asyncio.Event()
    async with CatchUp(read, changed) as catch_up:
        assert await taken(catch_up, changed, 3, 30) == expected


async def test_another_cursor_begins_another_reading():
    """Whoever goes back, as a subscription does whose consumers have left, is given everything from there on."""
    read, asked = history()
    changed = asyncio.Event()
    async with CatchUp(read, changed) as catch_up:
        assert (await taken(catch_up, changed, 3, 8)).until == 8
        found = await taken(catch_up, changed, 5, 8)
        assert (found.events.positions.tolist(), found.until) == ([5, 6, 7], 8)
    assert asked == [(3, 8), (5, 8)]


async def test_what_cannot_be_reached_is_tried_again(monkeypatch):
    """While the query service is away the reading is tried again, from where it was."""
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    down = [EventException("down", reason="DEPENDENCY_UNAVAILABLE") for _ in range(3)]
    read, asked = history(*down)
    changed = asyncio.Event()
    async with CatchUp(read, changed) as catch_up:
        assert (await taken(catch_up, changed, 3, 5)).until == 5
    assert asked == [(3, 5)] * 4


async def test_other_errors_end_it():
    """An error that a repetition would not mend is raised."""
    read, _ = history(EventException("wrong", reason="INVALID_FILTER"))
    changed = asyncio.Event()
    async with CatchUp(read, changed) as catch_up:
        with pytest.raises(EventException, match="wrong"):
            await taken(catch_up, changed, 3, 5)


async def test_a_subscriber_is_told_what_retention_removed():
    """One that begins in what retention removed is told the range, and goes on with the first event kept."""
    log = MemoryLog()
    log.commit_unpublished(10)
    subscriber = log.subscriber(2)
    read, _ = history(EventException("gone", reason="POSITION_TRIMMED", first_position=6))
    subscriber._catch_up._read = read
    with log.hub.place(subscriber), log.hub.delivering_to(subscriber):
        reader = Reader(log, subscriber)
        await reader.take_all()
        (dropped,) = reader.dropped()
        assert (dropped.first_position, dropped.last_position, dropped.count) == (2, 5, 0)
        assert dropped.reason == TRIMMED
        assert reader.positions() == [6, 7, 8, 9, 10]
        assert reader.kinds() == ["dropped", "events", "caught_up"]
        await reader.close()
