"""kill -9 of ingest under load: what was acknowledged is there once, batches are whole or absent, no gap."""

import os
import random
import signal
import threading

import pytest

from tests.support.cluster import Cluster, check_positions, read_all, read_range, wait_until
from tests.support.producers import Ledger, Load, check_ledger, found_requests, retry

pytestmark = pytest.mark.cluster

# More of both for a long run: EVENTLOG_KILL_ROUNDS=500, and EVENTLOG_KILL_SEED to repeat one.
ROUNDS = int(os.environ.get("EVENTLOG_KILL_ROUNDS", "10"))
# Small enough for rotation and sealing to be under way at some of the kills.
ROTATION = {"max_events": 20_000, "max_size": "2MiB"}
# How often a restart is killed too, before it serves: in the middle of recovery, for example.
KILLED_RESTARTS = 0.4


@pytest.mark.timeout(120 + 15 * ROUNDS)
def test_kill_under_load_loses_nothing_acknowledged(make_cluster):
    """Killed at random moments, many times over, the log holds all that was acknowledged, once, and whole batches."""
    seed = int(os.environ.get("EVENTLOG_KILL_SEED") or random.randrange(2**32))
    print(f"EVENTLOG_KILL_SEED={seed}")
    chance = random.Random(seed)
    ledger = Ledger()
    with make_cluster(storage={"rotation": ROTATION}) as cluster:
        retried = 0
        for number in range(ROUNDS):
            first = cluster.flush() + 1
            kill_under_load(cluster, ledger, f"round{number}", chance)
            if chance.random() < 0.3:
                cluster.query.kill()
                cluster.query.start()
            restart(cluster, chance)
            retried += retry_unanswered(cluster, ledger, first)
        cluster.rotate()
        cluster.wait_until_sealed(timeout_s=60 + 5 * ROUNDS)
        check_whole_log(cluster, ledger)
        print(
            f"{len(ledger.requests)} requests, {retried} logged although unanswered, {len(cluster.segments())} segments"
        )


def kill_under_load(cluster: Cluster, ledger: Ledger, name: str, chance: random.Random) -> None:
    """Log with every kind of call, and kill ingest at a random moment after the first acknowledgement."""
    load = Load(cluster.appends, ledger, name)
    before = len(ledger.acknowledged)
    sizes = (1, 10, 50, 100)
    producers = [
        load.batches(0, sizes=sizes, buffered_share=0.2),
        load.batches(1, sizes=sizes),
        load.singles(0),
        load.stream(0),
        load.stream(1),
    ]
    with load.on(*producers):
        wait_until(lambda: len(ledger.acknowledged) > before, "the first acknowledgement")
        threading.Event().wait(chance.uniform(0.0, 0.6))
        cluster.ingest.kill()
    assert {sent.error.reason for sent in ledger.unanswered if sent.error} <= {"DEPENDENCY_UNAVAILABLE"}


def restart(cluster: Cluster, chance: random.Random) -> None:
    """Start ingest again, sometimes after starts that are killed at a random moment before it serves."""
    startup_s = cluster.ingest.startup_s
    while chance.random() < KILLED_RESTARTS:
        cluster.ingest.launch()
        threading.Event().wait(chance.uniform(0.3, 1.0) * startup_s)
        cluster.ingest.kill()
    cluster.ingest.start()


def retry_unanswered(cluster: Cluster, ledger: Ledger, first: int) -> int:
    """Repeat what was not answered. Duplicates are exactly those that the log held; returns how many."""
    unanswered = ledger.unanswered
    logged = found_requests(read_range(cluster, first))
    retry(cluster.appends, ledger, unanswered)
    for sent in unanswered:
        assert sent.duplicate == (sent.name in logged), f"{sent.name}: duplicate={sent.duplicate}"
        assert not sent.duplicate or sent.position == logged[sent.name], f"{sent.name} moved"
    return sum(sent.duplicate for sent in unanswered)


def check_whole_log(cluster: Cluster, ledger: Ledger) -> None:
    """Hold the whole log against what was acknowledged, and verify it."""
    cluster.flush()
    events = read_all(cluster)
    found = check_ledger(ledger, events)
    lost = [sent.name for sent in ledger.requests.values() if sent.durable and sent.name not in found]
    assert lost == []
    status = cluster.status()
    assert status.committed_position == status.last_position == len(events)
    summary = cluster.verify()
    assert list(summary.damage) == list(status.damage) == []
    assert summary.verified_events == len(events)


def test_kill_of_the_whole_group_at_rotation(make_cluster):
    """Killed together with the process that seals, again and again, it goes on sealing where it was."""
    ledger = Ledger()
    with make_cluster(storage={"rotation": {"max_events": 3_000}}) as cluster:
        for number in range(4):
            load = Load(cluster.appends, ledger, f"round{number}")
            with load.on(load.batches(0, sizes=(100,))):
                wait_until(lambda: cluster.status().unsealed_segments > 0, "a segment waits to be sealed")
                os.killpg(cluster.ingest.pid, signal.SIGKILL)
                cluster.ingest.kill()
            cluster.ingest.start()
            retry(cluster.appends, ledger, ledger.unanswered)
        cluster.wait_until_sealed()
        check_whole_log(cluster, ledger)
        check_positions(read_range(cluster, 1_500, 6_500), 1_500)
