"""The feed: frames in any order, lost, twice, or of another log become a ring without a hole."""

import asyncio
from contextlib import suppress

import pytest

from shared.columns.wire import WireCodec
from shared.errors import EventException, EventValidationException
from shared.telemetry.metrics import Metrics
from stream_service import arrivals
from stream_service import feed as module
from stream_service.feed import Feed
from stream_service.log_source import LogCodec
from stream_service.stream_metrics import StreamMetrics
from stream_service.subscription import Policy
from tests.support.builders import numbered_frame
from tests.support.streaming import LOG_ID, MemoryLog, Reader, events_of

TIMEOUT_S = 10


class HistoryLog:
    """The log as the query service tells of it, as far as it can be reached."""

    def __init__(self) -> None:
        self.last = 0
        self.down = False
        self.reads: list[tuple[int, int]] = []
        self.read_begun = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()

    async def end(self):
        """Where the log ends."""
        if self.down:
            raise EventException("down", reason="DEPENDENCY_UNAVAILABLE")
        return self.last + 1, LOG_ID if self.last else ""

    async def read(self, from_position, until_position):
        """A range of events, in two batches."""
        self.reads.append((from_position, until_position))
        self.read_begun.set()
        await self.reading.wait()
        if self.down:
            raise EventException("down", reason="DEPENDENCY_UNAVAILABLE")
        for first, until in ((from_position, from_position + 1), (from_position + 1, until_position)):
            if until > first:
                yield events_of(first, until - first)


class Setup:
    """A feed that runs, the log it follows, and one subscriber of everything."""

    def __init__(self) -> None:
        self.memory = MemoryLog()
        self.history = HistoryLog()
        metrics = StreamMetrics(Metrics("test"), self.memory.clock)
        self.feed = Feed(self.memory.hub, self.history, self.memory.clock, LogCodec(WireCodec()), metrics)
        self.task = asyncio.create_task(self.feed.run())
        self.subscriber = self.memory.subscriber(1, Policy.CATCH_UP)
        self.reader = Reader(self.memory, self.subscriber)

    async def publish(self, *frames, passed=None):
        """Publish frames (first, count) in one request."""
        encoded = [numbered_frame(first, count) for first, count in frames]
        data = b"".join(piece for frame in encoded for piece in frame.pieces)
        last = frames[-1][0] + frames[-1][1] - 1 if frames else 0
        return await self.feed.take(data, LOG_ID, last if passed is None else passed)

    async def until_ring_ends_at(self, end):
        """Wait until the ring has got there."""
        async with asyncio.timeout(TIMEOUT_S):
            with self.memory.hub.watching(changed := asyncio.Event()):
                while self.memory.hub.ring.end < end:
                    changed.clear()
                    await changed.wait()


@pytest.fixture
async def setup():
    """A feed with one subscriber."""
    setup = Setup()
    with setup.memory.hub.place(setup.subscriber), setup.memory.hub.delivering_to(setup.subscriber):
        yield setup
        await setup.reader.close()
    setup.task.cancel()
    with suppress(asyncio.CancelledError):
        await setup.task


async def positions(setup, until):
    """Everything that the subscriber got, once the ring ends at `until`."""
    await setup.until_ring_ends_at(until)
    await setup.reader.take_all()
    return setup.reader.positions()


async def test_frames_in_order(setup):
    """Frames that follow each other come out as they are, several in one request too."""
    assert await setup.publish((1, 3)) == 3
    await setup.publish((4, 2), (6, 1))
    assert await positions(setup, 7) == [1, 2, 3, 4, 5, 6]
    assert not setup.history.reads


async def test_repeated_and_overlapping_frames(setup):
    """A frame that is known is passed over; of one that is known in part, only the rest counts."""
    await setup.publish((1, 3))
    await setup.publish((1, 3))
    await setup.publish((2, 4))
    assert await positions(setup, 6) == [1, 2, 3, 4, 5]


async def test_a_gap_is_filled_from_history(setup):
    """Frames that were lost are read from history, once, and those behind them follow."""
    await setup.publish((1, 2))
    await setup.publish((6, 2))
    assert await positions(setup, 8) == [1, 2, 3, 4, 5, 6, 7]
    assert setup.history.reads == [(3, 6)]


async def test_frames_that_come_while_a_gap_is_filled(setup):
    """What is published meanwhile waits for the gap to be filled."""
    setup.history.reading.clear()
    await setup.publish((1, 2))
    await setup.publish((5, 1))
    await setup.history.read_begun.wait()
    await setup.publish((6, 2))
    await setup.publish((3, 1))
    setup.history.reading.set()
    assert await positions(setup, 8) == [1, 2, 3, 4, 5, 6, 7]


async def test_passed_without_a_frame_is_a_gap(setup):
    """What the publisher passed without sending it is read from history."""
    await setup.publish((1, 2))
    await setup.publish(passed=5)
    assert await positions(setup, 6) == [1, 2, 3, 4, 5]
    assert setup.history.reads == [(3, 6)]


async def test_a_gap_that_history_cannot_fill_is_left_to_subscribers(setup):
    """Where history cannot be read, the ring goes on behind the gap; subscribers read it for themselves."""
    setup.history.down = True
    await setup.publish((1, 2))
    await setup.until_ring_ends_at(3)
    await setup.reader.take_all()
    await setup.publish((6, 2))
    assert await positions(setup, 8) == [1, 2, 3, 4, 5, 6, 7]
    assert setup.reader.kinds().count("fell_behind") == 1


async def test_a_wide_gap_is_left_out(setup, monkeypatch):
    """A gap wider than the ring is worth is not read for all."""
    monkeypatch.setattr(module, "GAP_EVENTS_MAX", 10)
    await setup.publish((1, 2))
    await setup.publish((100, 2))
    await setup.until_ring_ends_at(102)
    assert not setup.history.reads
    assert setup.memory.hub.ring.first == 100


async def test_what_waits_ahead_is_bounded(setup, monkeypatch):
    """Frames ahead of a gap are forgotten where there are too many; they are a part of the gap then."""
    monkeypatch.setattr(arrivals, "AHEAD_BYTES_MAX", 1_000)
    setup.history.reading.clear()
    await setup.publish((1, 2))
    await setup.publish((5, 1))
    await setup.history.read_begun.wait()
    for first in range(6, 26):
        await setup.publish((first, 1))
    setup.history.reading.set()
    assert await positions(setup, 26) == list(range(1, 26))
    assert len(setup.history.reads) > 1


async def test_nothing_is_decoded_while_nobody_subscribes():
    """Without subscribers the ring only follows the end of the log."""
    setup = Setup()
    await setup.publish((1, 2))
    await setup.publish((3, 2))
    await setup.until_ring_ends_at(5)
    assert setup.memory.hub.ring.first == 5
    setup.task.cancel()
    with suppress(asyncio.CancelledError):
        await setup.task


async def test_the_query_service_is_asked_while_nobody_publishes(setup):
    """Without a publisher the end of the log comes from the query service, and what is new from history."""
    setup.history.last = 4
    await setup.feed.wait_ready()
    assert await setup.publish(passed=4) == 4
    await setup.until_ring_ends_at(5)


async def test_another_log_is_refused(setup):
    """Frames of another log than the one that is followed are refused."""
    await setup.publish((1, 2))
    with pytest.raises(EventValidationException, match="is published to it"):
        await setup.feed.take(b"", "ZZZZZZZZ", 2)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"x" + data, lambda data: data + b"rest"])
async def test_what_is_no_frame_is_refused(setup, damage):
    """Bytes that are not whole frames are refused."""
    data = b"".join(numbered_frame(1, 2).pieces)
    with pytest.raises(EventValidationException, match="whole frames"):
        await setup.feed.take(damage(data), LOG_ID, 2)


async def test_a_damaged_body_is_left_to_history(setup):
    """A frame whose body is damaged on the way does not stop the feed; subscribers read history instead."""
    data = bytearray(b"".join(numbered_frame(1, 2).pieces))
    data[-1] ^= 1
    await setup.feed.take(bytes(data), LOG_ID, 2)
    await setup.publish((3, 2))
    assert await positions(setup, 5) == [1, 2, 3, 4]
