"""EventStreamer against the real services: the specification's example, resumption, acknowledgement."""

import asyncio
import contextlib
import io

import pytest

from shared.client import EventStreamer, StartAt, StreamOptions
from shared.config import EventConfig, StreamingConfig
from shared.errors import EventException, EventStreamException
from shared.filters.event_filter import EventFilter
from tests.support.cluster import wait_until
from tests.support.stream_reader import log, status_of

pytestmark = pytest.mark.cluster

TIMEOUT_S = 30


@pytest.fixture(scope="module")
def shared(module_cluster):
    """A cluster for tests that only add to the log."""
    with module_cluster(with_stream=True, streaming={"heartbeat_interval": "300ms"}) as cluster:
        yield cluster


@pytest.fixture
def own(make_cluster):
    """A cluster to kill services of."""
    with make_cluster(with_stream=True, streaming={"heartbeat_interval": "300ms"}) as cluster:
        yield cluster


def config_of(cluster):
    """The configuration of a program that uses the cluster."""
    return EventConfig(streaming=StreamingConfig(listen=cluster.stream.address))


async def take(events, count):
    """The next events."""
    found = []
    async with asyncio.timeout(TIMEOUT_S):
        while len(found) < count:
            found.append(await anext(events))
    return found


async def test_event_streaming_example(shared, monkeypatch):
    """The specification's example runs as written: its filter holds, and each event is printed as it comes."""
    monkeypatch.setenv("EVENTLOG__STREAMING__LISTEN", shared.stream.address)

    async def example():
        # Subscribe to events
        streamer = EventStreamer()
        subscriber = await streamer.subscribe(
            "my_subscriber",
            filters=EventFilter().build_filter(type_pattern="pipeline.*")
        )  # fmt: skip
        assert not subscriber.durable
        subscribed.set()

        # Stream events
        async for event in streamer.stream("my_subscriber"):
            print(f"Received: {event.type} at {event.timestamp}")

    subscribed = asyncio.Event()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        task = asyncio.create_task(example())
        async with asyncio.timeout(TIMEOUT_S):
            await subscribed.wait()
        await asyncio.to_thread(log, shared, 2, event_type="hook.executed")
        await asyncio.to_thread(log, shared, 1, event_type="pipeline.started")
        await asyncio.to_thread(wait_until, lambda: "\n" in output.getvalue(), "an event is printed")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert output.getvalue().startswith("Received: pipeline.started at 20")


async def test_a_stream_is_taken_up_after_a_crash(own):
    """Through kill -9 of each of the services an ephemeral subscription gives every event once, in order."""
    async with EventStreamer(config_of(own)) as streamer:
        subscriber = await streamer.subscribe("survivor", start=StartAt(earliest=True))
        async with contextlib.aclosing(streamer.stream("survivor")) as events:
            await asyncio.to_thread(log, own, 5)
            found = await take(events, 5)
            for service in (own.stream, own.query, own.ingest):
                await asyncio.to_thread(service.kill)
                if service is not own.ingest:
                    await asyncio.to_thread(log, own, 5)
                await asyncio.to_thread(service.start)
                last = await asyncio.to_thread(log, own, 5)
                found += await take(events, last - len(found))
        assert [event.position for event in found] == list(range(1, last + 1))
        assert subscriber.statistics.resumptions >= 1
        assert subscriber.statistics.received_events == last


async def test_durable_subscription_acknowledges_as_it_goes(shared):
    """An event counts as done when the next is asked for; what was not, comes again to the next program."""
    async with EventStreamer(config_of(shared)) as streamer:
        await streamer.subscribe("worker", durable=True)
        last = await asyncio.to_thread(log, shared, 5)
        async with contextlib.aclosing(streamer.stream("worker")) as events:
            assert [event.position for event in await take(events, 3)] == [last - 4, last - 3, last - 2]
    # Closing has sent what was acknowledged: the third was given, and the fourth never asked for.
    assert status_of(shared, "worker").checkpoint_position == last - 3
    async with EventStreamer(config_of(shared)) as streamer:
        subscriber = await streamer.subscribe("worker", durable=True)
        async with contextlib.aclosing(streamer.stream("worker")) as events:
            assert [event.position for event in await take(events, 3)] == [last - 2, last - 1, last]
        assert subscriber.statistics.redelivered_events == 3


async def test_durable_subscription_survives_a_restart(own):
    """Through a crash of the stream service nothing is skipped, and what was stored as done does not come again."""
    async with EventStreamer(config_of(own)) as streamer:
        await streamer.subscribe("worker", durable=True, start=StartAt(earliest=True))
        async with contextlib.aclosing(streamer.stream("worker")) as events:
            await asyncio.to_thread(log, own, 10)
            found = await take(events, 10)
            await asyncio.to_thread(
                wait_until, lambda: status_of(own, "worker").checkpoint_position == 9, "it is stored"
            )
            await asyncio.to_thread(own.stream.kill)
            await asyncio.to_thread(own.stream.start)
            await asyncio.to_thread(log, own, 3)
            while found[-1].position < 13:
                found += await take(events, 1)
        assert {event.position for event in found} == set(range(1, 14))
        assert [event.position for event in found].count(9) == 1


async def test_acknowledging_by_hand_and_failing(shared):
    """Without automatic acknowledgement the program says itself what is done and what failed."""
    async with EventStreamer(config_of(shared)) as streamer:
        subscriber = await streamer.subscribe("by hand", durable=True, auto_acknowledge=False)
        last = await asyncio.to_thread(log, shared, 2)
        async with contextlib.aclosing(streamer.stream("by hand")) as events:
            first, second = await take(events, 2)
            await subscriber.acknowledge(second)
            await subscriber.fail(first, "not yet")
            (again,) = await take(events, 1)
            assert again.position == first.position
            await subscriber.acknowledge(again)
        assert status_of(shared, "by hand").checkpoint_position >= last


async def test_errors_are_the_programs(shared):
    """A wrong name, a second subscription of a name, and a refused request raise, and say what to do."""
    async with EventStreamer(config_of(shared)) as streamer:
        with pytest.raises(EventStreamException, match="not subscribed"):
            await anext(streamer.stream("nobody"))
        subscriber = await streamer.subscribe("once")
        with pytest.raises(EventStreamException, match="already"):
            await streamer.subscribe("once")
        with pytest.raises(EventStreamException, match="durable"):
            await subscriber.acknowledge()
        with pytest.raises(EventException, match="none such"):
            await streamer.subscribe("other", start=StartAt(checkpoint="none such"))


async def test_giving_up(shared):
    """A service that is not there is tried for as long as the options say, then the error is the program's."""
    options = StreamOptions(address="127.0.0.1:1", give_up_after_s=0.2)
    async with EventStreamer(config_of(shared), options) as streamer:
        with pytest.raises(EventException) as caught:
            await streamer.subscribe("hopeful")
    assert caught.value.reason == "DEPENDENCY_UNAVAILABLE"
