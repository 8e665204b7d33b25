"""Half-open connections: the packets of both sides vanish and nobody is told. Everyone notices, and nothing is lost."""

import asyncio
import contextlib
from time import monotonic

import pytest
from eventlog.v1 import stream_service_pb2

from shared.client import EventReplay, EventStreamer, ReplayOptions, ReplayPace
from shared.client.attempts import is_passing
from shared.client.stream_connection import StreamConnection, answered
from shared.config import EventConfig, StreamingConfig
from shared.rpc.remote_error import RemoteError
from tests.support.cluster import CALL_S_MAX, free_address, metrics, wait_until
from tests.support.silent_proxy import SilentProxy
from tests.support.stream_reader import StreamReader, Subscribe, log, status_of, subscribe

pytestmark = pytest.mark.cluster

HEARTBEAT_S = 1.0
STREAMING = {"heartbeat_interval": f"{HEARTBEAT_S:g}s"}
# What a busy machine may take longer, to do what it is time for.
LATE_S = 3.0
SUBSCRIBERS = "eventlog_stream_subscribers"
PUBLISH_FAILURES = "eventlog_ingest_publish_failures_total"
PUBLISHED = "eventlog_stream_publish_lag_seconds_count"


@pytest.fixture
def cluster(make_cluster):
    """A cluster with a short heartbeat."""
    with make_cluster(with_stream=True, streaming=STREAMING) as cluster:
        yield cluster


def test_the_service_notices_a_subscriber_whose_packets_vanish(cluster):
    """Within two heartbeats the service has given up a subscriber that it does not hear of any more."""
    with SilentProxy(cluster.stream.address) as proxy, StreamReader(proxy.address, Subscribe()) as reader:
        wait_until(lambda: metrics(cluster.stream)[SUBSCRIBERS] == 1, "it is connected")
        proxy.swallow()
        begun_s = monotonic()
        wait_until(lambda: metrics(cluster.stream)[SUBSCRIBERS] == 0, "it is given up")
        assert monotonic() - begun_s < 2 * HEARTBEAT_S + LATE_S
        assert not reader.ended


async def test_subscribers_notice_and_resume(cluster):
    """Each time the connection goes dead the client makes another within two heartbeats.

    All subscriptions of the client go on over it: events come once, in order, and acknowledgements arrive.
    """
    names = {"ephemeral": False, "durable": True}
    with SilentProxy(cluster.stream.address) as proxy:
        config = EventConfig(streaming=StreamingConfig(listen=proxy.address))
        async with EventStreamer(config) as streamer, contextlib.AsyncExitStack() as stack:
            subscribers = [await streamer.subscribe(name, durable=durable) for name, durable in names.items()]
            streams = [await stack.enter_async_context(contextlib.aclosing(streamer.stream(name))) for name in names]
            found = [[], []]
            for attempt in range(3):
                begun_s = monotonic()
                if attempt:
                    proxy.swallow()
                last = await asyncio.to_thread(log, cluster, 5)
                async with asyncio.timeout(CALL_S_MAX):
                    for number, positions in enumerate(await asyncio.gather(*map(next_five, streams))):
                        found[number] += positions
                assert monotonic() - begun_s < 2 * HEARTBEAT_S + LATE_S
                assert all(subscriber.statistics.resumptions >= attempt for subscriber in subscribers)
        assert found == [list(range(1, last + 1))] * 2
    # The last event was not asked to be followed by another; hanging up has sent the rest.
    assert status_of(cluster, "durable").checkpoint_position == last - 1


async def test_calls_over_a_connection_that_is_given_up_fail(cluster):
    """A call under way, when another finds the connection dead, fails as over a broken one; cancelling it cancels."""
    request = stream_service_pb2.ListSubscriptionsRequest()
    with SilentProxy(cluster.stream.address) as proxy:
        connection = StreamConnection(proxy.address)
        await answered(connection.calls.ListSubscriptions(request, timeout=CALL_S_MAX))
        proxy.swallow()
        failing, cancelled = (
            asyncio.create_task(answered(connection.calls.ListSubscriptions(request, timeout=CALL_S_MAX)))
            for _ in range(2)
        )
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await connection.give_up(connection.calls)
        with pytest.raises(RemoteError) as caught:
            await failing
        assert is_passing(caught.value)
        assert not (await answered(connection.calls.ListSubscriptions(request, timeout=CALL_S_MAX))).subscriptions
        await connection.close()


async def next_five(events):
    """Positions of the next five events."""
    return [(await anext(events)).position for _ in range(5)]


async def test_a_replay_notices_and_resumes(cluster):
    """A replay that hears nothing any more goes on over another connection, behind what its program was given."""
    last = await asyncio.to_thread(log, cluster, 40)
    with SilentProxy(cluster.stream.address) as proxy:
        config = EventConfig(streaming=StreamingConfig(listen=proxy.address))
        async with EventReplay(config, ReplayOptions(silence_s_max=HEARTBEAT_S)) as replay:
            found = []
            async for event in replay.replay_from(None, speed=0.0, pace=ReplayPace(events_per_second_max=20.0)):
                found.append(event.position)
                if event.position == 3:
                    proxy.swallow()
        assert found == list(range(1, last + 1))
        assert proxy.connections == 2


def test_publishing_goes_on_over_another_connection(make_cluster):
    """Where what ingest publishes vanishes, subscribers get it from history, and soon it is published again."""
    stream_address = free_address()
    with SilentProxy(stream_address) as proxy:
        settings = {"streaming": STREAMING | {"listen": stream_address}, "ingest": {"publish_to": proxy.address}}
        with make_cluster(with_stream=True, **settings) as cluster, subscribe(cluster) as reader:
            reader.wait_for(log(cluster))
            wait_until(lambda: metrics(cluster.stream)[PUBLISHED] > 0, "events are published")
            failures = metrics(cluster.ingest)[PUBLISH_FAILURES]
            proxy.swallow()
            reader.wait_for(log(cluster, 5))
            wait_until(lambda: metrics(cluster.ingest)[PUBLISH_FAILURES] > failures, "ingest notices", CALL_S_MAX)
            published = metrics(cluster.stream)[PUBLISHED]
            wait_until(
                lambda: log(cluster) and metrics(cluster.stream)[PUBLISHED] > published, "it goes on", CALL_S_MAX
            )
            reader.wait_for(log(cluster))
            assert reader.positions == list(range(1, reader.positions[-1] + 1))
