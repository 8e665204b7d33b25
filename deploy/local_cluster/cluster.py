"""Starts and stops the four services, and knows which are running.

Invariants:
- `up` leaves all services serving, or none that it has started itself.
- `down` signals exactly the processes that `up` started.
- Both may be repeated. One process at a time changes a cluster; a second one waits.

The folder of the cluster holds `<service>.pid`, `<service>.log`, the log of the start before as
`<service>.log.1`, and `lock`. Services run in `root`, so relative paths of the configuration start there.
"""

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.local_cluster import processes, readiness
from deploy.local_cluster.records import Record, read_record, write_record

SERVICES = ("ingest_service", "query_service", "stream_service", "analysis_service")

START_S_MAX = 60.0
# Longer than the services' own grace, which is 10 seconds unless configured otherwise.
STOP_S_MAX = 30.0
_KILL_S_MAX = 5.0
_HEALTH_S_MAX = 2.0
_POLL_S = 0.05
_LOG_LINES_SHOWN = 20


class ClusterFailed(Exception):  # noqa: N818 — a statement, for people
    """The cluster could not be started. The message holds the last log lines of the service that failed."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A service and how it is: "serving", "not serving", or "stopped". pid is 0 where it is stopped."""

    service: str
    state: str
    address: str
    metrics_address: str
    pid: int
    log: Path


@dataclass(frozen=True, slots=True)
class Ending:
    """How a service ended: "stopped", "killed" because it did not end in time, or "was not running"."""

    service: str
    how: str


class LocalCluster:
    """The services of one configuration file. One thread may use it."""

    def __init__(self, *, root: Path, folder: Path, config: Path, services: tuple[str, ...] = SERVICES) -> None:
        """root: folder in which the services run; folder: of pid files and logs; config: YAML file."""
        self._root = root
        self._folder = folder
        self._config = config.resolve()
        self._services = services
        # Those that this process has started; the system keeps what ended until it is asked for.
        self._children: list[subprocess.Popen[bytes]] = []

    def up(self, *, timeout_s: float = START_S_MAX) -> list[ServiceState]:
        """Start what is not running, and return when all services are serving.

        Raises ClusterFailed where one ends or is not serving within the time; what was started is stopped then.
        """
        with self._locked():
            started: list[str] = []
            try:
                for service in self._services:
                    if self._running(service) is None:
                        started.append(service)
                        self._start(service)
                self._wait_until_serving(time.monotonic() + timeout_s)
            except BaseException:
                self._stop(started, STOP_S_MAX)
                raise
        return self.status()

    def down(self, *, timeout_s: float = STOP_S_MAX) -> list[Ending]:
        """Ask every service to drain and end, wait, and kill what has not ended within the time."""
        with self._locked():
            return self._stop(self._services, timeout_s)

    def status(self) -> list[ServiceState]:
        """How every service is now."""
        return [self._state(service) for service in self._services]

    def _state(self, service: str) -> ServiceState:
        record = self._running(service)
        if record is None:
            return ServiceState(service, "stopped", "", "", 0, self._log(service))
        serving = bool(record.address) and readiness.is_serving(record.address, timeout_s=_HEALTH_S_MAX)
        state = "serving" if serving else "not serving"
        pid = record.process.pid
        return ServiceState(service, state, record.address, record.metrics_address, pid, self._log(service))

    def _start(self, service: str) -> None:
        log = self._log(service)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as output:
            child = subprocess.Popen(  # noqa: S603 — the command is ours
                [sys.executable, "-m", service, "--config", str(self._config)],
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Out of the reach of Ctrl-C in the terminal: `down` is what stops it.
                start_new_session=True,
            )
        self._children.append(child)
        process = processes.identify(child.pid, service)
        if process is None:
            raise ClusterFailed(self._failure(service, f"ended with code {child.wait()} at once"))
        write_record(self._pid_file(service), Record(process))

    def _wait_until_serving(self, give_up_at: float) -> None:
        waiting = list(self._services)
        while waiting:
            waiting = [service for service in waiting if not self._is_serving(service)]
            if waiting and time.monotonic() > give_up_at:
                raise ClusterFailed(self._failure(waiting[0], "is not serving in time"))
            if waiting:
                time.sleep(_POLL_S)

    def _is_serving(self, service: str) -> bool:
        record = self._running(service)
        if record is None:
            raise ClusterFailed(self._failure(service, "ended instead of serving"))
        if not record.address:
            announced = readiness.announced_addresses(self._log(service))
            if announced is None:
                return False
            record = replace(record, address=announced[0], metrics_address=announced[1])
            write_record(self._pid_file(service), record)
        return readiness.is_serving(record.address, timeout_s=_HEALTH_S_MAX)

    def _stop(self, services: tuple[str, ...] | list[str], timeout_s: float) -> list[Ending]:
        give_up_at = time.monotonic() + timeout_s
        # All are asked before any is waited for: they drain at the same time.
        running = {service: record for service in services if (record := self._running(service))}
        for record in running.values():
            processes.terminate(record.process)
        endings = []
        for service in services:
            how = self._end(running[service].process, give_up_at) if service in running else "was not running"
            self._pid_file(service).unlink(missing_ok=True)
            endings.append(Ending(service, how))
        self._forget_ended_children()
        return endings

    def _end(self, process: processes.Process, give_up_at: float) -> str:
        how = "stopped"
        if not processes.wait_for_end(process, timeout_s=give_up_at - time.monotonic()):
            how = "killed"
            processes.kill(process)
            processes.wait_for_end(process, timeout_s=_KILL_S_MAX)
        for child in self._children:
            if child.pid == process.pid:
                child.wait(_KILL_S_MAX)
        return how

    def _forget_ended_children(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]

    def _running(self, service: str) -> Record | None:
        record = read_record(self._pid_file(service))
        return record if record and processes.is_running(record.process) else None

    def _failure(self, service: str, what: str) -> str:
        lines = readiness.last_lines(self._log(service), _LOG_LINES_SHOWN) or ["(nothing)"]
        shown = "\n".join(f"  {line}" for line in lines)
        return f"{service} {what}. The end of its log {self._log(service)}:\n{shown}"

    def _pid_file(self, service: str) -> Path:
        return self._folder / f"{service}.pid"

    def _log(self, service: str) -> Path:
        return self._folder / f"{service}.log"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as file:
            # Given back when the file is closed.
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
