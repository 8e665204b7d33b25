"""Services as processes of a test: started, killed, started again, and never left behind."""

from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2

from tests.support.fake_ingest import wait_until
from tests.support.service_process import LINES_MAX, ServiceDiedError, ServiceProcess

# Says what it does and then, by its configuration, serves, fails, hangs or starts a child.
STAND_IN = """
import json, os, signal, subprocess, sys, threading
from concurrent import futures
import grpc
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

settings = yaml.safe_load(open(sys.argv[2]))["events"]
stopped = threading.Event()
if settings.get("hangs"):
    print("hanging", file=sys.stderr, flush=True)
    stopped.wait(60)
if settings.get("fails"):
    sys.exit("no such luck")
if settings.get("child"):
    child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait(60)"])
    print(json.dumps({"event": "child", "pid": child.pid}), file=sys.stderr, flush=True)
for number in range(settings.get("lines", 0)):
    print("line", number, file=sys.stderr)
servicer = health.HealthServicer()
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
server = grpc.server(futures.ThreadPoolExecutor(2))
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
line = {"event": "serving", "address": f"127.0.0.1:{port}", "metrics_address": "127.0.0.1:1"}
line["variable"] = os.environ.get("EVENTLOG__TEST__VALUE")
print(json.dumps(line), file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
stopped.wait(60)
print("drained", file=sys.stderr, flush=True)
server.stop(0).wait()
sys.exit(7)
"""


@pytest.fixture
def stand_in(tmp_path):
    """Make a service of the stand-in's code, with settings."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)

    def make(**arguments):
        return ServiceProcess("stand_in", tmp_path, **arguments)

    return make


def serves(service):
    with grpc.insecure_channel(service.address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING


def lives(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_service_serves_until_it_is_terminated(stand_in):
    """Inside the with it serves; SIGTERM lets it drain and gives its exit code and last words."""
    with stand_in() as service:
        assert serves(service)
        assert service.metrics_address == "127.0.0.1:1"
        assert service.startup_s > 0
        assert 1 < service.rss_mb() <= service.tree_rss_mb() < 1000
        assert service.terminate() == 7
        assert not service.running
        assert service.lines[-1] == "drained"


def test_killed_service_starts_again(stand_in):
    """kill gives it no chance to drain; start makes a new process from the same configuration."""
    with stand_in() as service:
        first = service.pid
        service.kill()
        assert not service.running
        assert "drained" not in service.lines
        service.start()
        assert service.pid != first
        assert serves(service)
        second = service.pid
    assert not lives(second)


def test_service_gets_its_settings_and_only_the_variables_given(stand_in, monkeypatch, tmp_path):
    """Settings reach it as a file, EVENTLOG__ variables only where the test gives them."""
    monkeypatch.setenv("EVENTLOG__TEST__VALUE", "from the shell")
    with stand_in(settings={"storage": {"base_path": "here"}}) as service:
        assert service.records("serving")[0]["variable"] is None
        written = yaml.safe_load((tmp_path / "stand_in.yaml").read_text())
        assert written == {"events": {"storage": {"base_path": "here"}}}
    with stand_in(environ={"EVENTLOG__TEST__VALUE": "given"}) as service:
        assert service.records("serving")[0]["variable"] == "given"


def test_real_services_get_free_ports(tmp_path):
    """Addresses that a test does not name are chosen by the system; those it names stay."""
    service = ServiceProcess("stream_service", tmp_path, settings={"streaming": {"listen": "127.0.0.1:5"}})
    assert service._settings == {"streaming": {"listen": "127.0.0.1:5", "metrics_listen": "127.0.0.1:0"}}


def test_service_that_fails_to_start_says_why(stand_in):
    """What it wrote is in the error."""
    with pytest.raises(ServiceDiedError, match=r"(?s)exit code 1.*no such luck"), stand_in(settings={"fails": True}):
        pass


def test_service_that_does_not_serve_in_time_is_ended(stand_in):
    """A hanging start raises with what was written, and nothing is left."""
    service = stand_in(settings={"hangs": True}, start_timeout_s=2.0)
    with pytest.raises(ServiceDiedError, match=r"(?s)in time.*hanging"):
        service.start()
    assert not service.running


def test_child_of_a_killed_service_lives_on_until_close(stand_in):
    """A crash leaves children behind, as in life; the end of the with does not."""
    with stand_in(settings={"child": True}) as service:
        child = service.wait_for_record("child")["pid"]
        service.kill()
        assert lives(child)
    wait_until(lambda: not lives(child))


def test_lines_are_bounded(stand_in):
    """A talkative service fills neither the pipe nor our memory."""
    with stand_in(settings={"lines": LINES_MAX + 50}) as service:
        lines = service.lines
        assert len(lines) == LINES_MAX
        assert lines[0] == "line 51"


def test_waiting_for_a_record_that_never_comes_raises(stand_in):
    """The wait ends at its deadline, or when the process has ended."""
    with stand_in() as service:
        with pytest.raises(ServiceDiedError, match="no such record"):
            service.wait_for_record("no such record", timeout_s=0.05)
        service.kill()
        with pytest.raises(ServiceDiedError, match="exit code -9"):
            service.wait_for_record("no such record", timeout_s=10)
