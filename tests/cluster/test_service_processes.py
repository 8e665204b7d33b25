"""Services as processes: they start, end with one clear line where they cannot, and stop."""

import os
import signal
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import orjson
import pytest
from eventlog.v1 import analysis_service_pb2, stream_service_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from shared.rpc.channel import connect_sync

pytestmark = pytest.mark.cluster

SERVICES = {
    "stream_service": ("streaming", stream_service_pb2.DESCRIPTOR.services_by_name["StreamService"]),
    "analysis_service": ("analysis", analysis_service_pb2.DESCRIPTOR.services_by_name["AnalysisService"]),
}
TIMEOUT_S = 30
RSS_MB_MAX = 150


class Process:
    """A service as a process of its own, with what it logged."""

    def __init__(self, service: str, config: Path) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", service, "--config", str(config)],
            stderr=subprocess.PIPE,
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
            text=True,
        )
        self._new: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.log = ""

    def _read(self) -> None:
        for line in self.popen.stderr:
            self._new.put(line)
        self._new.put(None)

    def wait_for(self, event: str) -> dict:
        """The first new log line with this event; fails if the process ends without one."""
        while (line := self._new.get(timeout=TIMEOUT_S)) is not None:
            self.log += line
            if line.startswith("{") and (parsed := orjson.loads(line))["event"].startswith(event):
                return parsed
        raise AssertionError(f"ended without {event!r}: {self.log}")

    def end(self) -> int:
        """The exit code, once the process has ended by itself; its log is complete then."""
        code = self.popen.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        while (line := self._new.get(timeout=TIMEOUT_S)) is not None:
            self.log += line
        return code

    def kill(self) -> None:
        """End it if it still runs."""
        self.popen.kill()
        self.popen.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        self.popen.stderr.close()


@contextmanager
def started(service: str, config: Path):
    """A process of the service, killed at the end if it still runs."""
    process = Process(service, config)
    try:
        yield process
    finally:
        process.kill()


def config_file(tmp_path: Path, service: str, listen: str = "127.0.0.1:0", metrics: str = "127.0.0.1:0") -> Path:
    """A configuration with these addresses."""
    section = SERVICES[service][0]
    path = tmp_path / f"{listen.replace(':', '_')}.yaml"
    path.write_text(
        f"events:\n  {section}:\n    listen: {listen}\n    metrics_listen: {metrics}\n    grace: 5s\n"
        f"  replay: {{checkpoint_dir: {tmp_path}/checkpoints}}\n"
    )
    return path


def rss_mb(process: Process) -> float:
    """Resident memory of the process."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("service", list(SERVICES))
def test_service_serves_and_drains(service, tmp_path):
    """Health, reflection and metrics work, with little memory; SIGTERM ends it with code 0."""
    descriptor = SERVICES[service][1]
    with started(service, config_file(tmp_path, service)) as process:
        serving = process.wait_for("serving")
        assert serving["service"] == service
        with connect_sync(serving["address"]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", descriptor.full_name):
                answer = health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            assert descriptor.full_name in ProtoReflectionDescriptorDatabase(channel).get_services()
        with urllib.request.urlopen(f"http://{serving['metrics_address']}/metrics", timeout=TIMEOUT_S) as page:
            assert f'eventlog_service_info{{service="{service}"}}' in page.read().decode()
        assert rss_mb(process) <= RSS_MB_MAX
        process.popen.send_signal(signal.SIGTERM)
        assert process.end() == 0
        assert '"event":"stopped"' in process.log


def test_port_in_use_ends_with_one_clear_line(tmp_path):
    """A second service on either port exits with code 1, names the address, and shows no traceback."""
    with started("stream_service", config_file(tmp_path, "stream_service")) as first:
        serving = first.wait_for("serving")
        for key, listen, metrics in (
            ("address", serving["address"], "127.0.0.1:0"),
            ("metrics_address", "127.0.0.1:0", serving["metrics_address"]),
        ):
            config = config_file(tmp_path, "analysis_service", listen, metrics)
            with started("analysis_service", config) as second:
                assert second.end() == 1
                lines = [orjson.loads(line) for line in second.log.splitlines()]
                assert [line["level"] for line in lines] == ["critical"]
                assert serving[key] in lines[0]["event"]
                assert "Traceback" not in second.log


def test_wrong_configuration_ends_with_one_clear_line(tmp_path):
    """An unknown key is named, with code 1 and without a traceback."""
    config = tmp_path / "wrong.yaml"
    config.write_text("events:\n  streaming:\n    listn: 127.0.0.1:0\n")
    with started("stream_service", config) as process:
        assert process.end() == 1
        (line,) = [orjson.loads(line) for line in process.log.splitlines()]
        assert "listn" in line["event"]
        assert "traceback" not in line


def test_second_signal_does_not_cut_the_drain(tmp_path):
    """SIGINT drains as SIGTERM does, and more signals change nothing."""
    with started("stream_service", config_file(tmp_path, "stream_service")) as process:
        process.wait_for("serving")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            process.popen.send_signal(number)
        assert process.end() == 0
        assert process.log.count('"event":"draining"') == 1
