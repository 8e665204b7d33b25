"""A disk that is really full, or fails: appends wait, reads go on, and service comes back without a restart."""

import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest
from eventlog.v1 import ingest_service_pb2, log_admin_service_pb2

from tests.support.cluster import (
    CALL_S_MAX,
    Cluster,
    failure_of,
    get_event,
    metrics,
    read_all,
    refused,
    wait_until,
)
from tests.support.producers import Ledger, check_ledger, found_requests

pytestmark = pytest.mark.cluster

MIB = 1024 * 1024
BUFFERED_BYTES_MAX = MIB
LIMITS = {"buffered_bytes_max": BUFFERED_BYTES_MAX, "batch_bytes_max": MIB // 2, "grace": "5s"}
# Such a request is of about 160 KB, whatever compresses it.
EVENTS, NOISE = 20, 8_000
DEADLINE_S = 1.5


@dataclass
class Disk:
    """Where a log lies, and how to make its storage fail and be well again."""

    log: Path
    spoil: Callable[[Cluster], None]
    mend: Callable[[Cluster], None]
    state: "log_admin_service_pb2.StorageState.ValueType" = log_admin_service_pb2.STORAGE_STATE_FAILING
    storage: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def full_disk(tmp_path):
    """A file system of its own that a ballast fills to the last byte. Needs the right to mount one."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(mounted)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("this process may not mount a file system")
    ballast = mounted / "ballast"
    yield Disk(
        log=mounted / "events",
        spoil=lambda _: allocate(ballast, shutil.disk_usage(mounted).free),
        mend=lambda _: ballast.unlink(),
    )
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


@pytest.fixture
def limited_process(tmp_path):
    """A service that may not write a file beyond 4 KiB: a short write, then EFBIG, on any segment."""

    def limit(cluster, size):
        _, hard = resource.prlimit(cluster.ingest.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(cluster.ingest.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    return Disk(
        log=tmp_path / "events", spoil=lambda cluster: limit(cluster, 4096), mend=lambda cluster: limit(cluster, None)
    )


@pytest.fixture
def scarce_disk(tmp_path_factory):
    """A disk with less space free than the reserve, by a ballast."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 32 * MIB:
        pytest.skip("there is no /dev/shm with 32 MiB free")
    folder = memory / f"eventlog-test-{os.getpid()}"
    folder.mkdir()
    ballast = folder / "ballast"

    def spoil(_):
        allocate(ballast, 24 * MIB)
        # The free space is asked for a few times a second only.
        threading.Event().wait(0.5)

    yield Disk(
        log=folder / "events",
        spoil=spoil,
        mend=lambda _: ballast.unlink(),
        state=log_admin_service_pb2.STORAGE_STATE_FULL,
        storage={"min_free_bytes": shutil.disk_usage(memory).free - 12 * MIB},
    )
    shutil.rmtree(folder)


def allocate(path, size):
    """Take so many bytes of a disk."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


@pytest.fixture(params=["full_disk", "limited_process", "scarce_disk"])
def disk(request):
    return request.getfixturevalue(request.param)


def test_storage_that_fails_loses_nothing_and_comes_back(make_cluster, disk):
    """DURABLE waits or fails at its deadline, BUFFERED is taken until the buffer is full; afterwards all is there."""
    ledger = Ledger()
    with make_cluster(log=disk.log, storage=disk.storage, ingest=LIMITS) as cluster:
        pid = cluster.ingest.pid
        for number in range(3):
            log_one(cluster, ledger, f"before{number}")
        before = read_all(cluster)
        disk.spoil(cluster)
        try:
            check_durable_fails_at_its_deadline(cluster, ledger)
            patient = ledger.open("patient", EVENTS, noise=NOISE)
            waiting = cluster.appends.LogBatch.future(patient.batch(), timeout=CALL_S_MAX)
            check_status(cluster, disk)
            check_buffered_until_full(cluster, ledger)
            assert read_all(cluster) == before, "reads go on, and show what is synced"
            assert failure_of(lambda: get_event(cluster, before[-1].position)) is None
            assert not waiting.done()
        finally:
            disk.mend(cluster)
        ledger.acknowledge(patient, waiting.result())
        check_well_again(cluster, ledger)
        assert cluster.ingest.pid == pid
        assert cluster.ingest.terminate() == 0
        cluster.ingest.start()
        check_ledger(ledger, read_all(cluster))
        assert list(cluster.verify().damage) == []


def log_one(cluster, ledger, name, *, durable=True, timeout_s=CALL_S_MAX):
    sent = ledger.open(name, EVENTS, durable=durable, noise=NOISE)
    ledger.acknowledge(sent, cluster.appends.LogBatch(sent.batch(), timeout=timeout_s))
    return sent


def check_durable_fails_at_its_deadline(cluster, ledger):
    """The caller is told why, before its own deadline, and when to come again. So is one who flushes."""
    started_s = monotonic()
    with refused("STORAGE_UNAVAILABLE") as refusal:
        log_one(cluster, ledger, "impatient", timeout_s=DEADLINE_S)
    assert DEADLINE_S / 2 <= monotonic() - started_s <= DEADLINE_S
    assert refusal.error.code == grpc.StatusCode.UNAVAILABLE
    assert refusal.error.retry_delay_s
    with refused("STORAGE_UNAVAILABLE") as refusal:
        cluster.appends.Flush(ingest_service_pb2.FlushRequest(), timeout=DEADLINE_S)
    assert refusal.error.retry_delay_s


def check_status(cluster, disk):
    """Operators see that the storage fails and why, what waits, and what is committed."""
    status = cluster.status()
    assert status.storage_state == disk.state
    assert status.storage_error
    assert status.committed_position == 3 * EVENTS < status.last_position
    assert 0 < status.buffered_bytes <= status.buffered_bytes_max == BUFFERED_BYTES_MAX
    assert metrics(cluster.ingest)["eventlog_ingest_storage_failures_total"] > 0
    assert cluster.ingest.records("storage fails, appends wait in memory")


def check_buffered_until_full(cluster, ledger):
    """BUFFERED is acknowledged from memory, saying so, until the buffer is full; then the caller is told to wait."""
    for number in range(20):
        sent = ledger.open(f"buffered{number}", EVENTS, durable=False, noise=NOISE)
        try:
            answer = cluster.appends.LogBatch(sent.batch(), timeout=CALL_S_MAX)
        except grpc.RpcError:
            break
        assert answer.durability == ingest_service_pb2.DURABILITY_BUFFERED
        ledger.acknowledge(sent, answer)
    assert 2 <= number < BUFFERED_BYTES_MAX / (EVENTS * NOISE)
    for durable in (True, False):
        with refused("BUFFER_FULL") as refusal:
            log_one(cluster, ledger, f"refused {durable}", durable=durable)
        assert refusal.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.error.retry_delay_s
    assert cluster.status().buffered_bytes <= BUFFERED_BYTES_MAX


def check_well_again(cluster, ledger):
    """Everything acknowledged is there, also from memory; what was refused is not; retries are recognised."""
    wait_until(
        lambda: cluster.status().storage_state == log_admin_service_pb2.STORAGE_STATE_HEALTHY, "the storage is well"
    )
    cluster.flush()
    found = found_requests(read_all(cluster))
    buffered = [sent for sent in ledger.acknowledged if not sent.durable]
    assert {sent.name: found.get(sent.name) for sent in buffered} == {sent.name: sent.position for sent in buffered}
    assert not [name for name in found if name.startswith("refused")]
    impatient = ledger.requests["impatient"]
    answer = cluster.appends.LogBatch(impatient.batch(), timeout=CALL_S_MAX)
    assert answer.duplicate == ("impatient" in found)
    ledger.acknowledge(impatient, answer)
    assert log_one(cluster, ledger, "after").position == answer.first_position + EVENTS or answer.duplicate
    check_ledger(ledger, read_all(cluster))
    assert cluster.status().buffered_bytes == 0
    assert cluster.ingest.records("storage works again")


def test_stop_while_storage_fails_ends_in_time(make_cluster, limited_process):
    """SIGTERM with appends waiting: they are told so within the grace, and nothing acknowledged as durable is lost."""
    ledger = Ledger()
    with make_cluster(log=limited_process.log, ingest=LIMITS | {"grace": "1s"}) as cluster:
        log_one(cluster, ledger, "before")
        limited_process.spoil(cluster)
        waiting = ledger.open("waiting", EVENTS, noise=NOISE)
        call = cluster.appends.LogBatch.future(waiting.batch(), timeout=CALL_S_MAX)
        wait_until(lambda: cluster.status().storage_error, "the storage fails")
        started_s = monotonic()
        assert cluster.ingest.terminate() == 0
        assert monotonic() - started_s < 5
        error = failure_of(call.result)
        assert error is not None
        assert error.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        cluster.ingest.start()
        found = check_ledger(ledger, read_all(cluster))
        assert list(found) == ["before"]
        answer = cluster.appends.LogBatch(waiting.batch(), timeout=CALL_S_MAX)
        assert (answer.duplicate, answer.first_position) == (False, EVENTS + 1)
