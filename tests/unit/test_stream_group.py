"""A group without a network: what its consumers are told, and in which order."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from shared.errors import EventException
from stream_service.catch_up import TRIMMED
from stream_service.checkpoints import Record
from stream_service.group import Group, GroupLimits, Reading
from stream_service.group_consumer import GroupConsumer, Share
from stream_service.matcher import Matcher
from stream_service.subscriber import Beat
from stream_service.subscription import CaughtUp, Closing, Dropped
from tests.support.streaming import EVERYTHING, MemoryLog

TIMEOUT_S = 10
LIMITS = GroupLimits(deliveries_max=3, acknowledge_timeout_s=30.0)


class Team:
    """A group on a log in memory."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.group = Group(Record("team", 1, 0), log.hub.ring, log.clock, LIMITS)
        self.reading = Reading(Matcher(b"", EVERYTHING, log.clock), log.history(EVERYTHING), 0, payload_as_struct=False)

    @asynccontextmanager
    async def reading_on(self):
        """Read for the consumers meanwhile."""
        with self.log.hub.watching(self.group.changed):
            task = asyncio.create_task(self.group.read_on())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])

    def join(self, name: str, *, credit: int = 100) -> "Member":
        """A consumer comes."""
        consumer = GroupConsumer(name, self.group, heartbeat_s=30.0)
        self.group.join(consumer, self.reading, credit=credit)
        return Member(consumer)


class Member:
    """Takes what one consumer is told, heartbeats aside."""

    def __init__(self, consumer: GroupConsumer) -> None:
        self.consumer = consumer
        self._messages = consumer.messages()

    async def take(self) -> list[int] | CaughtUp | Dropped | Closing:
        """The next message: positions, or what else it says."""
        async with asyncio.timeout(TIMEOUT_S):
            async for message in self._messages:
                if isinstance(message, Share):
                    return [position for parcel in message.parcels for position in parcel.positions.tolist()]
                if not isinstance(message, Beat):
                    return message
        raise AssertionError("it has ended")

    async def positions(self, last: int) -> list[int]:
        """Positions up to this one; nothing else may come."""
        found: list[int] = []
        while found[-1:] != [last]:
            taken = await self.take()
            assert isinstance(taken, list), taken
            found += taken
        return found


async def test_caught_up_comes_behind_all_of_history():
    """A consumer that may have few events at a time is told where history ends when it has got it, not before."""
    log = MemoryLog()
    log.commit_unpublished(10)
    team = Team(log)
    member = team.join("one", credit=4)
    async with team.reading_on():
        assert await member.positions(4) == [1, 2, 3, 4]
        team.group.acknowledge([], up_to=4, consumer="", failed=[], text="")
        assert await member.positions(8) == [5, 6, 7, 8]
        log.publish(2)
        team.group.acknowledge([], up_to=8, consumer="", failed=[], text="")
        assert await member.positions(12) == [9, 10, 11, 12]
        told = await member.take()
        assert isinstance(told, CaughtUp)
        assert told.position in {10, 12}


async def test_what_is_missing_is_told_in_its_place():
    """Events that are not there any more are told behind those before them, and before those behind them."""
    log = MemoryLog()
    log.commit_unpublished(10)
    team = Team(log)
    whole = team.reading.read

    async def with_a_gap(first: int, until: int):
        async for events in whole(first, min(until, 4)):
            yield events
        if first < 7:
            raise EventException("gone", reason="POSITION_TRIMMED", first_position=7)
        async for events in whole(first, until):
            yield events

    team.reading = Reading(team.reading.matcher, with_a_gap, 0, payload_as_struct=False)
    member = team.join("one", credit=2)
    async with team.reading_on():
        assert await member.positions(2) == [1, 2]
        team.group.acknowledge([1, 2], up_to=0, consumer="", failed=[], text="")
        assert await member.positions(3) == [3]
        assert await member.take() == Dropped(4, 6, 0, TRIMMED)
        assert await member.positions(7) == [7]
        team.group.acknowledge([], up_to=7, consumer="", failed=[], text="")
        assert await member.positions(9) == [8, 9]


@pytest.mark.parametrize("busy", [True, False])
async def test_overdue_events_come_again_and_stuck_consumers_go(busy):
    """An event that is left alone fails; a consumer that leaves everything alone is ended, and others get all of it."""
    log = MemoryLog()
    log.commit_unpublished(6)
    team = Team(log)
    member = team.join("one")
    async with team.reading_on():
        assert await member.positions(6) == [1, 2, 3, 4, 5, 6]
        team.group.end_overdue()
        log.clock.advance(20.0)
        if busy:
            team.group.acknowledge([4], up_to=0, consumer="", failed=[], text="")
        log.clock.advance(10.0)
        team.group.end_overdue()
        assert team.group.ledger.failures.of(1) == 1
        while isinstance(told := await member.take(), CaughtUp):
            pass
        if busy:
            assert told == [1]
            return
        assert isinstance(told, Closing)
        assert (told.error.reason, told.resume_position) == ("ACKNOWLEDGEMENT_OVERDUE", 1)
        # Leaving once it was ended changes nothing more.
        team.group.leave(member.consumer)
        other = team.join("two")
        assert await other.positions(6) == [1, 2, 3, 4, 5, 6]
        assert team.group.ledger.failures.counts == {1: 1}
