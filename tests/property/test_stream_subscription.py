"""Whatever happens to a subscription, it is ordered, unique and complete, and what it drops it counts."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_service.subscription import Policy
from tests.support.streaming import EVERYTHING, THIRD, MemoryLog, Reader

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 12)),
        st.tuples(st.just("take"), st.integers(1, 4)),
        st.tuples(st.just("miss"), st.integers(1, 5)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
    ),
    max_size=40,
)


async def run(steps, *, policy, buffer_size, filtered, committed, start, bytes_max, breaks=False):
    """Let a subscriber live through the steps, then take all, unless the connection breaks before.

    Returns the log, the first position, the reader and where to resume.
    """
    log = MemoryLog(bytes_max=bytes_max)
    log.commit_unpublished(committed)
    first = min(start, log.end)
    subscriber = log.subscriber(first, policy, buffer_size=buffer_size, tree=THIRD if filtered else EVERYTHING)
    with log.hub.place(subscriber), log.hub.delivering_to(subscriber):
        reader = Reader(log, subscriber)
        for step, count in steps:
            if step == "publish":
                log.publish(count)
            elif step == "miss":
                log.commit_unpublished(count)
            elif step == "turn":
                for _ in range(count):
                    await asyncio.sleep(0)
            else:
                for _ in range(count):
                    await reader.take()
        if not breaks:
            await reader.take_all()
        await reader.close()
    return log, first, reader, subscriber.subscription.resume_position


def check(log, first, reader, *, filtered, until=None):
    """Delivered in order, once each; with what is dropped, everything that matches; counts exact."""
    delivered = reader.positions()
    assert delivered == sorted(set(delivered))
    expected = [n for n in range(first, until or log.end) if not filtered or n % 3 == 0]
    lost = set()
    at = first
    for message in reader.told:
        for event in message.events.events:
            assert event.position >= at, "an event comes after its place was passed"
            at = event.position + 1
        if message.HasField("events"):
            assert message.events.resume_position >= at
            at = message.events.resume_position
        if message.HasField("dropped"):
            dropped = message.dropped
            assert at <= dropped.first_position <= dropped.last_position
            matching = [n for n in expected if dropped.first_position <= n <= dropped.last_position]
            assert dropped.count == len(matching)
            lost |= set(matching)
            at = dropped.last_position + 1
    assert not lost & set(delivered)
    assert sorted(lost | set(delivered)) == expected


CASES = {
    "buffer_size": st.sampled_from([1, 2, 5, 100]),
    "filtered": st.booleans(),
    "committed": st.integers(0, 30),
    "start": st.integers(1, 40),
    "bytes_max": st.sampled_from([1_500, 6_000, 1_000_000]),
}


@settings(max_examples=150)
@given(steps=STEPS, **CASES)
def test_dropping_the_oldest_counts_what_is_lost(steps, filtered, **case):
    """DROP_OLDEST: delivered and reported dropped are together everything that matches, and nothing twice."""
    log, first, reader, _ = asyncio.run(run(steps, policy=Policy.DROP_OLDEST, filtered=filtered, **case))
    check(log, first, reader, filtered=filtered)


@settings(max_examples=150)
@given(steps=STEPS, **CASES)
def test_catching_up_loses_nothing(steps, filtered, **case):
    """CATCH_UP: everything that matches is delivered, in order, once, with a buffer of one too."""
    log, first, reader, _ = asyncio.run(run(steps, policy=Policy.CATCH_UP, filtered=filtered, **case))
    check(log, first, reader, filtered=filtered)
    assert not reader.dropped()


@settings(max_examples=100)
@given(steps=STEPS, **CASES)
def test_disconnecting_says_where_to_resume(steps, filtered, **case):
    """DISCONNECT: everything up to the resume position is delivered, and nothing after it."""
    log, first, reader, _ = asyncio.run(run(steps, policy=Policy.DISCONNECT, filtered=filtered, **case))
    last = reader.told[-1]
    until = log.end
    if last.HasField("closing"):
        assert last.closing.reason == "SLOW_CONSUMER"
        until = last.closing.resume_position
    check(log, first, reader, filtered=filtered, until=until)


@settings(max_examples=150)
@given(steps=STEPS, policy=st.sampled_from(Policy), **CASES)
def test_a_broken_stream_resumes_without_loss(steps, policy, filtered, **case):
    """Wherever the connection breaks, what is before the resume position was sent or reported, all else comes after."""
    log, first, reader, resume = asyncio.run(run(steps, policy=policy, filtered=filtered, breaks=True, **case))
    check(log, first, reader, filtered=filtered, until=resume)
