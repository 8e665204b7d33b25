"""Half-open connections: the packets of both sides vanish and nobody is told. Everyone notices, and nothing is lost."""

import asyncio
import contextlib
from time import monotonic

import pytest

from shared.client import EventReplay, EventStreamer, ReplayOptions, ReplayPace
from shared.config import EventConfig, StreamingConfig
from tests.support.cluster import CALL_S_MAX, free_address, metrics, wait_until
from tests.support.silent_proxy import SilentProxy
from tests.support.stream_reader import StreamReader, Subscribe, log, subscribe

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


@pytest.mark.parametrize("durable", [False, True])
async def test_a_subscriber_notices_and_resumes(cluster, durable):
    """Each time the connection goes dead the client makes another within two heartbeats; events come once, in order."""
    with SilentProxy(cluster.stream.address) as proxy:
        config = EventConfig(streaming=StreamingConfig(listen=proxy.address))
        async with EventStreamer(config) as streamer:
            subscriber = await streamer.subscribe("watcher", durable=durable)
            async with contextlib.aclosing(streamer.stream("watcher")) as events:
                last = await asyncio.to_thread(log, cluster, 5)
                found = [(await anext(events)).position for _ in range(5)]
                for attempt in (1, 2):
                    proxy.swallow()
                    begun_s = monotonic()
                    # Given while nothing passes: only another connection brings them.
                    last = await asyncio.to_thread(log, cluster, 5)
                    async with asyncio.timeout(CALL_S_MAX):
                        found += [(await anext(events)).position for _ in range(5)]
                    assert monotonic() - begun_s < 2 * HEARTBEAT_S + LATE_S
                    assert subscriber.statistics.resumptions == attempt
        assert found == list(range(1, last + 1))
        assert proxy.connections == 3


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
            wait_until(lambda: metrics(cluster.ingest)[PUBLISH_FAILURES] > failures, "ingest notices")
            published = metrics(cluster.stream)[PUBLISHED]
            wait_until(lambda: log(cluster) and metrics(cluster.stream)[PUBLISHED] > published, "it is published again")
            reader.wait_for(log(cluster))
            assert reader.positions == list(range(1, reader.positions[-1] + 1))
