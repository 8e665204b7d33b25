"""A service as a real process, for cluster tests and benchmarks.

    with ServiceProcess("ingest_service", tmp_path, settings={"storage": {"base_path": str(log)}}) as ingest:
        channel = grpc.insecure_channel(ingest.address)
        ingest.kill()
        ingest.start()

Invariants: inside the `with` the service serves (its health says SERVING) until the test ends it; after it
nothing that it started is left, also not the children of a service that was killed. What the service writes is
read all the time, so it never waits for us, and the last LINES_MAX lines are kept. Linux only, as far as
memory is asked for.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import grpc
import yaml
from grpc_health.v1 import health_pb2

LINES_MAX = 10_000
# The section of the configuration that holds a service's addresses.
_SECTIONS = {
    "ingest_service": "ingest",
    "tests.support.clocked_ingest": "ingest",
    "query_service": "query",
    "stream_service": "streaming",
    "analysis_service": "analysis",
}
_POLL_S = 0.02


class ServiceDiedError(Exception):
    """The process ended, or did not serve in time; the message ends with what it wrote last."""


class ServiceProcess:
    """One service. Belongs to one thread."""

    def __init__(
        self,
        module: str,
        directory: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        """Prepare `python -m module`; __enter__ starts it.

        directory: its working directory, which gets the configuration file; made where it is missing.
        settings: what stands under `events:` in that file. Addresses that it leaves out are chosen by the
        system: 127.0.0.1:0. environ: variables added to the environment, for example EVENTLOG__ ones; those
        of the test's own environment are not passed on.
        """
        self.module = module
        self._directory = directory
        self._settings = _with_free_ports(module, settings or {})
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("EVENTLOG__")}
        self._environ |= environ or {}
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: deque[str] = deque(maxlen=LINES_MAX)
        self._written = threading.Condition()
        self.address = ""
        self.metrics_address = ""
        # Seconds from the start of the process until its health said SERVING.
        self.startup_s = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process, or start it again after its end, and wait until it serves.

        Raises ServiceDiedError if it ends before, or does not serve in time; then it is ended.
        """
        started_s = time.monotonic()
        self.launch()
        try:
            self._wait_until_serving(started_s + self._start_timeout_s)
        except BaseException:
            self.close()
            raise
        self.startup_s = time.monotonic() - started_s

    def launch(self) -> None:
        """Start the process and do not wait: for a test that kills it before it serves."""
        assert not self.running, f"{self.module} runs already"
        self.close()
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / f"{self.module}.yaml"
        config.write_text(yaml.safe_dump({"events": self._settings}))
        self._lines.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, "--config", str(config)],
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A group of its own, so that close can end children that outlive the service.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id, of the last process."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """The last LINES_MAX lines that it wrote, on stderr and stdout."""
        with self._written:
            return list(self._lines)

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the log records among the lines, all or those of an event."""
        records = [record for line in self.lines if (record := _record(line)) is not None]
        return [record for record in records if event is None or record.get("event") == event]

    def wait_for_record(self, event: str, *, timeout_s: float = 10.0) -> dict[str, Any]:
        """Wait for a log record of an event and return the first. Raises ServiceDiedError where none comes."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = self.records(event)
            return bool(found)

        self._wait(is_there, time.monotonic() + timeout_s, f'logged no "{event}"')
        return found[0]

    def rss_mb(self) -> float:
        """Resident memory of the process in MB, without its children."""
        return _rss_mb(self.pid)

    def tree_rss_mb(self) -> float:
        """Resident memory of the process and of all below it, in MB. Shared pages count for each."""
        return sum(_rss_mb(pid) for pid in _tree(self.pid))

    def kill(self) -> None:
        """SIGKILL the process, as a crash would: its children live on until close."""
        assert self._process is not None, "not started"
        self._process.kill()
        self._process.wait()

    def terminate(self, *, timeout_s: float = 30.0) -> int:
        """SIGTERM the process and return its exit code. Raises ServiceDiedError if it lives on, and kills it."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServiceDiedError(self._report(f"did not end within {timeout_s} s of SIGTERM")) from None
        # What it wrote last is there, unless a child of its still writes.
        self._join(2.0)
        return code

    def close(self) -> None:
        """End the process and its children, whatever state they are in. May be called again."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # The reader sees the end only when every child that inherited the pipe has ended.
        if not self._join(2.0):
            os.killpg(process.pid, signal.SIGKILL)
            assert self._join(10.0), f"a child of {self.module} cannot be ended"
        assert process.stdout is not None
        process.stdout.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._written:
                self._lines.append(line.rstrip("\n"))
                self._written.notify_all()
        with self._written:
            self._written.notify_all()

    def _join(self, timeout_s: float) -> bool:
        assert self._reader is not None
        self._reader.join(timeout_s)
        return not self._reader.is_alive()

    def _wait_until_serving(self, deadline_s: float) -> None:
        record = self.wait_for_record("serving", timeout_s=deadline_s - time.monotonic())
        self.address = str(record["address"])
        self.metrics_address = str(record.get("metrics_address", ""))
        with grpc.insecure_channel(self.address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )

            def serves() -> bool:
                try:
                    answer = check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
                except grpc.RpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            self._wait(serves, deadline_s, "its health did not say SERVING")

    def _wait(self, holds: Callable[[], bool], deadline_s: float, failure: str) -> None:
        while not holds():
            if not self.running:
                self._join(2.0)
                # It may have written what we wait for and then ended.
                if holds():
                    return
                code = None if self._process is None else self._process.returncode
                raise ServiceDiedError(self._report(f"ended with exit code {code}: {failure}"))
            if time.monotonic() > deadline_s:
                raise ServiceDiedError(self._report(f"{failure} in time"))
            with self._written:
                self._written.wait(_POLL_S)

    def _report(self, problem: str) -> str:
        last = "\n".join(f"  {line}" for line in self.lines[-30:])
        return f"{self.module}: {problem}. It wrote last:\n{last or '  nothing'}"


def _with_free_ports(module: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    completed = dict(settings)
    section = _SECTIONS.get(module)
    if section is not None:
        addresses = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"}
        completed[section] = addresses | dict(completed.get(section, {}))
    return completed


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _rss_mb(pid: int) -> float:
    """Resident memory in MB, 0 for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(fields[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def _tree(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
