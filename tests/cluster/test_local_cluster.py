"""The cluster of one machine: it comes up whole or not at all, and only its own processes are stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local_cluster import ClusterFailed, LocalCluster, processes, readiness
from deploy.local_cluster.records import Record, read_record, write_record

ROOT = Path(__file__).parents[2]
PAIR = ("ingest_service", "query_service")

CONFIG = """\
events:
  storage: {{base_path: {folder}/events, min_free_bytes: 0}}
  ingest: {{listen: "127.0.0.1:0", metrics_listen: "127.0.0.1:0"}}
  query: {{listen: "127.0.0.1:0", metrics_listen: "127.0.0.1:0"}}
"""

STUBBORN = """\
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("started", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def make_cluster(tmp_path):
    """Make clusters that share a folder, as two commands do; the last thing is that they are stopped."""
    config = tmp_path / "eventlog.yaml"
    config.write_text(CONFIG.format(folder=tmp_path))
    made = []

    def make(services=PAIR, root=ROOT):
        made.append(LocalCluster(root=root, folder=tmp_path / "cluster", config=config, services=services))
        return made[-1]

    yield make
    for cluster in made:
        cluster.down(timeout_s=0)


@pytest.fixture
def fake_service(tmp_path):
    """Write a module that is started in place of a service; returns the folder it is in."""

    def write(text):
        (tmp_path / "fake_service.py").write_text(text)
        return tmp_path

    return write


@pytest.mark.cluster
def test_up_and_down_can_be_repeated(make_cluster):
    """A second up finds the services of the first and starts nothing; a second down stops nothing."""
    cluster = make_cluster()
    first = cluster.up()
    assert [state.state for state in first] == ["serving", "serving"]
    assert all(readiness.is_serving(state.address, timeout_s=5) for state in first)
    assert make_cluster().up() == first
    assert make_cluster().status() == first
    assert [ending.how for ending in cluster.down()] == ["stopped", "stopped"]
    assert [ending.how for ending in cluster.down()] == ["was not running", "was not running"]
    assert [state.state for state in cluster.status()] == ["stopped", "stopped"]
    assert not any(Path(f"/proc/{state.pid}").exists() for state in first)


@pytest.mark.cluster
def test_up_starts_what_was_killed(make_cluster):
    """A service that died is started again, the other one stays as it is."""
    cluster = make_cluster()
    ingest, query = cluster.up()
    process = processes.identify(query.pid, "query_service")
    assert processes.kill(process)
    assert processes.wait_for_end(process, timeout_s=10)
    states = cluster.up()
    assert states[0] == ingest
    assert states[1].state == "serving"
    assert states[1].pid != query.pid


@pytest.mark.cluster
def test_failed_start_shows_the_log_and_leaves_nothing_running(make_cluster, fake_service):
    """Where one service cannot start, up says why in its words and stops what it has started."""
    root = fake_service("import sys\nsys.exit('the flux is out of balance')\n")
    cluster = make_cluster(("fake_service",), root)
    with pytest.raises(ClusterFailed, match=r"fake_service ended[^\n]*fake_service.log:\n  the flux is out of balance"):
        cluster.up()
    assert [state.state for state in cluster.status()] == ["stopped"]


def test_service_that_never_serves_is_given_up(make_cluster, fake_service):
    """up has a deadline; the process is ended, and killed where it does not end."""
    cluster = make_cluster(("fake_service",), fake_service("import signal\nsignal.pause()\n"))
    with pytest.raises(ClusterFailed, match="fake_service is not serving in time"):
        cluster.up(timeout_s=0.2)
    assert [state.state for state in cluster.status()] == ["stopped"]


def test_process_that_does_not_drain_is_killed(make_cluster, fake_service, tmp_path):
    """down waits for the time given, then ends the process without asking, and says so."""
    root = fake_service(STUBBORN)
    cluster = make_cluster(("fake_service",), root)
    with subprocess.Popen([sys.executable, "-m", "fake_service"], cwd=root, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"started\n"
        record = Record(processes.identify(child.pid, "fake_service"))
        (tmp_path / "cluster").mkdir()
        write_record(tmp_path / "cluster" / "fake_service.pid", record)
        assert [ending.how for ending in cluster.down(timeout_s=0.2)] == ["killed"]
        assert child.wait() == -signal.SIGKILL


@pytest.mark.parametrize("change", [{"started": 1}, {"module": "ingest_service"}])
def test_process_that_took_over_a_number_is_left_alone(make_cluster, tmp_path, change):
    """A pid file whose number belongs to another process by now counts for nothing: here, it would be our own."""
    own = processes.identify(os.getpid(), "pytest")
    process = processes.Process(**{"pid": own.pid, "started": own.started, "module": own.module, **change})
    (tmp_path / "cluster").mkdir()
    write_record(tmp_path / "cluster" / "ingest_service.pid", Record(process, "127.0.0.1:1"))
    endings = make_cluster(("ingest_service",)).down()
    assert [ending.how for ending in endings] == ["was not running"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"process": {"pid": 1}}', '{"process": 5}', "1234\n"])
def test_unreadable_pid_file_counts_as_none(tmp_path, text):
    """A pid file that was cut short or written by something else stops nobody."""
    path = tmp_path / "a.pid"
    path.write_text(text)
    assert read_record(path) is None


@pytest.mark.parametrize(
    ("line", "addresses"),
    [
        ('{"event":"serving","address":"[::1]:5","metrics_address":"h:6"}', ("[::1]:5", "h:6")),
        ("2024-01-01T00:00:00Z INFO    eventlog serving address=h:5 metrics_address=h:6", ("h:5", "h:6")),
        ('{"event":"not serving yet","address":"h:5"}', None),
        ('{"event":"listening","address":"h:5"}', None),
        ("", None),
    ],
)
def test_addresses_are_read_from_the_log(tmp_path, line, addresses):
    """The line that a service announces itself with is understood in both formats of the log."""
    log = tmp_path / "log"
    log.write_text(f"first line\n{line}\n")
    assert readiness.announced_addresses(log) == addresses
