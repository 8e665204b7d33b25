"""One subscriber at the hub: what it is told, in which order, when it is slow, when it is idle, when it ends."""

import pytest

from shared.errors import EventException
from stream_service.subscription import NEXT, Policy, Signal, State
from tests.support.streaming import THIRD, MemoryLog, Reader


@pytest.fixture
def log():
    """A log in memory."""
    return MemoryLog()


async def told(reader, count):
    """The next messages, by kind."""
    return [(await reader.take()).WhichOneof("message") for _ in range(count)]


async def test_order_of_messages_of_one_that_begins_with_history(log):
    """History, then caught_up, then live events."""
    log.commit_unpublished(6)
    subscriber = log.subscriber(1)
    with log.hub.place(subscriber), log.hub.delivering_to(subscriber):
        reader = Reader(log, subscriber)
        assert await told(reader, 3) == ["events", "events", "caught_up"]
        log.publish(2)
        assert await told(reader, 1) == ["events"]
        assert reader.positions() == list(range(1, 9))
        assert log.reads == 1
        await reader.close()


async def test_what_queues_up_comes_in_one_message(log):
    """A subscriber that falls behind gets a bigger message, not more of them."""
    subscriber = log.subscriber(1, Policy.DROP_OLDEST)
    with log.hub.place(subscriber), log.hub.delivering_to(subscriber):
        reader = Reader(log, subscriber)
        assert await told(reader, 1) == ["caught_up"]
        for _ in range(10):
            log.publish(5)
        assert await told(reader, 1) == ["events"]
        assert reader.positions() == list(range(1, 51))
        await reader.close()


async def test_subscribers_at_one_place_share_the_bytes_of_a_message(log):
    """For the same filter and place the same bytes object is sent."""
    subscribers = [log.subscriber(1), log.subscriber(1)]
    log.publish(5)
    first, second = (log.hub.builder.build(each.matcher, 1) for each in subscribers)
    assert first.data is second.data
    assert first.count == 5


async def test_a_burst_into_an_empty_buffer_is_delivered_whole(log):
    """One that waits for events is given whatever comes next, though it is more than its buffer holds."""
    subscriber = log.subscriber(1, Policy.DROP_OLDEST, buffer_size=3)
    with log.hub.place(subscriber), log.hub.delivering_to(subscriber):
        reader = Reader(log, subscriber)
        await reader.take_all()
        log.publish(100)
        await reader.take_all()
        assert reader.positions() == list(range(1, 101))
        assert not reader.dropped()
        await reader.close()


async def test_pressure_is_told_when_it_begins_and_when_it_ends(log):
    """At four fifths of its buffer a subscriber is told that it is under pressure, and when it is not any more."""
    subscriber = log.subscriber(1, Policy.DROP_OLDEST, buffer_size=10)
    with log.hub.place(subscriber), log.hub.delivering_to(subscriber):
        reader = Reader(log, subscriber)
        assert await told(reader, 1) == ["caught_up"]
        log.publish(8)
        assert await told(reader, 3) == ["heartbeat", "events", "heartbeat"]
        beats = [message.heartbeat.under_pressure for message in reader.told if message.HasField("heartbeat")]
        assert beats == [True, False]
        await reader.close()


async def test_heartbeat_when_nothing_else_was_said(log):
    """After the interval without a message comes a heartbeat that says where the subscriber is."""
    subscriber = log.subscriber(1, tree=THIRD)
    with log.hub.place(subscriber), log.hub.delivering_to(subscriber):
        reader = Reader(log, subscriber)
        await reader.take_all()
        log.publish(2)
        log.clock.advance(5.1)
        subscriber.changed.set()
        assert await told(reader, 1) == ["heartbeat"]
        beat = reader.told[-1].heartbeat
        assert (beat.head_position, beat.resume_position, beat.lag_events) == (2, 1, 2)
        await reader.take_all()
        log.clock.advance(5.1)
        subscriber.changed.set()
        assert await told(reader, 1) == ["heartbeat"]
        assert reader.told[-1].heartbeat.resume_position == 3
        await reader.close()


async def test_closing_says_why_and_where(log):
    """Ended from outside, the last message names the reason and where to resume; nothing comes after it."""
    subscriber = log.subscriber(1)
    with log.hub.place(subscriber), log.hub.delivering_to(subscriber):
        reader = Reader(log, subscriber)
        log.publish(3)
        await reader.take_all()
        log.publish(3)
        subscriber.end(EventException("enough", reason="SERVER_DRAINING"))
        subscriber.end(EventException("more than enough"))
        assert await told(reader, 1) == ["closing"]
        assert reader.told[-1].closing.reason == "SERVER_DRAINING"
        assert reader.told[-1].closing.resume_position == 4
        assert await reader.take() is None
        await reader.close()


async def test_messages_are_bounded_in_bytes(log, monkeypatch):
    """A message is no larger than the limit, and one event goes out however large it is."""
    monkeypatch.setattr("stream_service.message_builder.MESSAGE_BYTES_MAX", 300)
    subscriber = log.subscriber(1)
    log.publish(10)
    with log.hub.place(subscriber), log.hub.delivering_to(subscriber):
        reader = Reader(log, subscriber)
        await reader.take_all()
        assert reader.positions() == list(range(1, 11))
        sizes = [message.ByteSize() for message in reader.told if message.HasField("events")]
        assert len(sizes) > 1
        assert all(size <= 320 for size in sizes)
        await reader.close()


async def test_places_are_bounded():
    """One more than allowed is refused, until a place is free."""
    log = MemoryLog(subscribers_max=1)
    first, second = log.subscriber(1), log.subscriber(1)
    with log.hub.place(first), pytest.raises(EventException) as refused, log.hub.place(second):
        pass
    assert refused.value.reason == "TOO_MANY_SUBSCRIBERS"
    with log.hub.place(second):
        assert log.hub.members == 1


async def test_a_closed_hub_admits_nobody(log):
    """After close a subscription is refused with SERVER_DRAINING."""
    await log.hub.close()
    with pytest.raises(EventException) as refused, log.hub.place(log.subscriber(1)):
        pass
    assert refused.value.reason == "SERVER_DRAINING"


def test_every_state_but_the_last_can_be_left():
    """Each state that is not closed has a way to be closed, and a closed one none to go on."""
    for state in State:
        leads = {following for (before, _, _), following in NEXT.items() if before is state}
        assert (State.CLOSED in leads) is (state is not State.CLOSED)
    assert {policy for state, signal, policy in NEXT if signal is Signal.OVERFLOWED} == set(Policy)
