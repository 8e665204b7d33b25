"""What a watcher of the log may rely on, through crashes and stalls of every service: after etcd's watch properties.

Ordered: events come in the order of positions. Unique: none comes twice within an ephemeral subscription. Complete: from
its start on, none is missing. Filter-exact: what matches comes, and nothing else. Resumable: all of that across breaks.
Durable subscriptions: nothing is skipped, chains keep their order, what was stored as done does not come again.
"""

import asyncio
import collections
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading

import grpc
import pytest
from eventlog.v1 import event_pb2, ingest_service_pb2

from shared.client import EventStreamer, SlowConsumerPolicy, StartAt
from shared.config import EventConfig, StreamingConfig
from shared.filters.event_filter import EventFilter
from tests.support.cluster import CALL_S_MAX, metrics, read_all, wait_until
from tests.support.stream_reader import log

pytestmark = pytest.mark.cluster

# More for a long run: EVENTLOG_WATCH_ROUNDS=100, and EVENTLOG_WATCH_SEED to repeat one.
ROUNDS = int(os.environ.get("EVENTLOG_WATCH_ROUNDS", "5"))
STREAMING = {"heartbeat_interval": "500ms", "buffer_bytes_max": "1MiB"}
STALL_S = 2.0
# A program that subscribes and reads.
SUBSCRIBER = """
import sys
from eventlog.v1 import stream_service_pb2 as pb
from eventlog.v1.stream_service_pb2_grpc import StreamServiceStub
from shared.rpc.channel import connect_sync
for _ in StreamServiceStub(connect_sync(sys.argv[1])).Subscribe(pb.SubscribeRequest()):
    pass
"""


class Producer:
    """Logs chains of events until it is told to stop, whatever becomes of the service."""

    def __init__(self, cluster, seed):
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        number = 0
        while not self._stop.is_set():
            events = []
            for _ in range(self._chance.choice((1, 5, 40))):
                number += 1
                chain = f"chain {self._chance.randrange(12)}"
                kind = self._chance.choice(("watch.a", "watch.b"))
                payload = f'{{"n":{number}}}'
                events.append(event_pb2.NewEvent(type=kind, correlation_id=chain, payload_json=payload))
            with contextlib.suppress(grpc.RpcError):
                self._cluster.appends.LogBatch(ingest_service_pb2.LogBatchRequest(events=events), timeout=5)
            self._stop.wait(0.01)


class Watcher:
    """One subscription, and everything it gave."""

    def __init__(self, cluster, name, **subscription):
        config = EventConfig(streaming=StreamingConfig(listen=cluster.stream.address))
        self.name = name
        self.events = []
        self._streamer = EventStreamer(config)
        self._subscription = subscription

    async def watch(self):
        """Take events until cancelled; then hang up."""
        async with self._streamer as streamer:
            await streamer.subscribe(self.name, start=StartAt(earliest=True), **self._subscription)
            async with contextlib.aclosing(streamer.stream(self.name)) as events:
                async for event in events:
                    self.events.append(event)

    @property
    def positions(self):
        """Positions in the order in which they came."""
        return [event.position for event in self.events]

    async def until_at(self, position):
        """Wait until it has got an event at or behind a position."""
        async with asyncio.timeout(2 * CALL_S_MAX):
            while not self.events or max(self.positions[-50:]) < position:
                await asyncio.sleep(0.02)


async def disturb(cluster, chance):
    """Kill or stall one of the services for a moment."""
    service = chance.choice(cluster.services)
    await asyncio.sleep(chance.uniform(0.2, 1.0))
    if chance.random() < 0.3:
        os.kill(service.pid, signal.SIGSTOP)
        await asyncio.sleep(STALL_S)
        os.kill(service.pid, signal.SIGCONT)
    else:
        await asyncio.to_thread(service.kill)
        await asyncio.sleep(chance.uniform(0, 0.5))
        await asyncio.to_thread(service.start)


@pytest.mark.timeout(180 + 20 * ROUNDS)
async def test_watch_properties_through_crashes(make_cluster):
    """Through random kills and stalls of the three services every promise to every kind of watcher holds."""
    seed = int(os.environ.get("EVENTLOG_WATCH_SEED") or random.randrange(2**32))
    print(f"EVENTLOG_WATCH_SEED={seed}")
    chance = random.Random(seed)
    with make_cluster(with_stream=True, streaming=STREAMING) as cluster:
        filters = EventFilter().build_filter(type_pattern="*.a", expression="payload.n > 10")
        lossless = {"policy": SlowConsumerPolicy.CATCH_UP}
        everything, filtered = (
            Watcher(cluster, "all", **lossless),
            Watcher(cluster, "some", filters=filters, **lossless),
        )
        worker = Watcher(cluster, "worker", durable=True)
        team = [Watcher(cluster, "team", durable=True, consumer=f"member {number}") for number in range(2)]
        watchers = [everything, filtered, worker, *team]
        tasks = [asyncio.create_task(watcher.watch()) for watcher in watchers]
        with Producer(cluster, seed):
            for _ in range(ROUNDS):
                await disturb(cluster, chance)
        last = await asyncio.to_thread(log, cluster, 60, event_type="end.a")
        for watcher in (everything, filtered, worker):
            await watcher.until_at(last)
        async with asyncio.timeout(CALL_S_MAX):
            while len({*team[0].positions, *team[1].positions}) < last:
                await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
        recorded = await asyncio.to_thread(read_all, cluster)
    check_ephemeral(everything, [event.position for event in recorded])
    matching = [e.position for e in recorded if e.type.endswith(".a") and int(e.payload_json[5:-1]) > 10]
    check_ephemeral(filtered, matching)
    check_durable([worker], recorded)
    check_durable(team, recorded)


def check_ephemeral(watcher, expected):
    """Ordered, unique, complete, filter-exact."""
    assert watcher.positions == expected


def check_durable(watchers, recorded):
    """Nothing is skipped, and each consumer is given each chain in order, apart from what comes again."""
    assert {position for watcher in watchers for position in watcher.positions} == {e.position for e in recorded}
    for watcher in watchers:
        chains = collections.defaultdict(list)
        for event in watcher.events:
            if event.position not in chains[event.correlation_id]:
                chains[event.correlation_id].append(event.position)
        assert all(positions == sorted(positions) for positions in chains.values())


def test_the_service_notices_a_stopped_subscriber(make_cluster):
    """A subscriber that is stopped, and so reads and answers nothing, is given up in about two heartbeats."""
    with make_cluster(with_stream=True, streaming={"heartbeat_interval": "1s"}) as cluster:
        arguments = [sys.executable, "-c", SUBSCRIBER, cluster.stream.address]
        with subprocess.Popen(arguments) as child:
            try:
                wait_for_subscribers(cluster, 1)
                child.send_signal(signal.SIGSTOP)
                wait_for_subscribers(cluster, 0)
            finally:
                child.kill()


async def test_a_subscriber_notices_a_stopped_service(make_cluster):
    """A subscriber takes a service that is stopped for dead after two heartbeats, and goes on where it was."""
    with make_cluster(with_stream=True, streaming={"heartbeat_interval": "500ms"}) as cluster:
        config = EventConfig(streaming=StreamingConfig(listen=cluster.stream.address))
        async with EventStreamer(config) as streamer:
            subscriber = await streamer.subscribe("watcher")
            async with contextlib.aclosing(streamer.stream("watcher")) as events:
                taking = asyncio.ensure_future(anext(events))
                os.kill(cluster.stream.pid, signal.SIGSTOP)
                try:
                    async with asyncio.timeout(CALL_S_MAX):
                        while not subscriber.statistics.resumptions:
                            await asyncio.sleep(0.02)
                finally:
                    os.kill(cluster.stream.pid, signal.SIGCONT)
                last = await asyncio.to_thread(log, cluster)
                async with asyncio.timeout(CALL_S_MAX):
                    assert (await taking).position == last


def wait_for_subscribers(cluster, count):
    """Wait until so many are connected."""
    wait_until(lambda: metrics(cluster.stream)["eventlog_stream_subscribers"] == count, f"{count} are connected")
