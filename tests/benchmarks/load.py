"""The load generator: a process that logs prepared requests, a number of them in flight all the time.

    python -m tests.benchmarks.load '{"address": …}'    the fields of LoadPlan

It writes JSON lines: {"acknowledged": n} each second; at the end the fields of LoadResult, or {"error": text}.
"""

import dataclasses
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventlog.v1 import ingest_service_pb2 as pb

from tests.benchmarks.grpc_wire import UnaryConnection, WireError
from tests.benchmarks.requests import read_requests

_PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """What to log. The load ends after `seconds` or `requests_max`, whichever comes first."""

    address: str
    # Log or LogBatch.
    method: str
    # A file of write_requests, gone through again and again; all of the same number of events.
    requests_file: str
    in_flight: int
    seconds: float
    # Seconds before the measured ones.
    warm_up_s: float = 1.0
    requests_max: int | None = None


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What came of it. Rates and times are of the measured seconds, the counts of all."""

    events_per_s: float
    events: int
    last_position: int
    ack_p50_ms: float
    ack_p99_ms: float
    ack_slowest_ms: float
    # Of the generator, so that it can be seen that it is not what was measured.
    client_cpu_us_per_event: float


class LoadError(Exception):
    """A load did not go through."""


def run_load(plan: LoadPlan, *, each_second: Callable[[int], None] | None = None) -> LoadResult:
    """Run the load in a process of its own. each_second gets the number of events acknowledged so far.

    Raises LoadError if a call failed.
    """
    command = [sys.executable, "-m", "tests.benchmarks.load", json.dumps(dataclasses.asdict(plan))]
    with subprocess.Popen(command, cwd=_PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        written: dict[str, Any] = {}
        try:
            for line in process.stdout:
                written = json.loads(line)
                if "acknowledged" not in written:
                    break
                if each_second is not None:
                    each_second(written["acknowledged"])
        except BaseException:
            process.kill()
            raise
    if "error" in written:
        raise LoadError(written["error"])
    if "events_per_s" not in written:
        raise LoadError(f"the load generator ended with exit code {process.returncode}; its error is above")
    return LoadResult(**written)


def main(plan: LoadPlan) -> None:
    """Run a plan in this process and write what comes of it."""
    load = _Load(plan, read_requests(Path(plan.requests_file)))
    try:
        written = dataclasses.asdict(load.run())
    except (WireError, OSError) as error:
        written = {"error": str(error)}
    finally:
        load.connection.close()
    print(json.dumps(written), flush=True)


class _Load:
    """One run of a plan."""

    def __init__(self, plan: LoadPlan, requests: list[bytes]) -> None:
        self.plan = plan
        self.requests = requests
        self.connection = UnaryConnection(plan.address, f"/eventlog.v1.IngestService/{plan.method}")
        self.events_per_request = len(pb.LogBatchRequest.FromString(requests[0]).events)
        # By stream: when it was sent.
        self.sent: dict[int, float] = {}
        self.started = 0
        self.events = 0
        # The highest position is in one of them.
        self.last_answers: deque[bytes] = deque(maxlen=plan.in_flight)
        # Of the measured part: latencies, events, when its last answer came.
        self.latencies: list[float] = []
        self.measured_events = 0
        self.measured_until = 0.0

    def run(self) -> LoadResult:
        cpu = time.process_time()
        begin = time.perf_counter()
        measure_from = begin + self.plan.warm_up_s
        end = measure_from + self.plan.seconds
        next_report = begin + 1.0
        self._fill(end)
        while self.sent:
            for stream, answer in self.connection.wait():
                self._take(stream, answer, measure_from, end)
            self._fill(end)
            if time.perf_counter() >= next_report:
                next_report += 1.0
                print(json.dumps({"acknowledged": self.events}), flush=True)
        return self._result(measure_from, time.process_time() - cpu)

    def _fill(self, end: float) -> None:
        requests_max = sys.maxsize if self.plan.requests_max is None else self.plan.requests_max
        while len(self.sent) < self.plan.in_flight and self.started < requests_max:
            now = time.perf_counter()
            if now >= end:
                return
            request = self.requests[self.started % len(self.requests)]
            self.started += 1
            self.sent[self.connection.start(request)] = now

    def _take(self, stream: int, answer: bytes, measure_from: float, end: float) -> None:
        now = time.perf_counter()
        sent_at = self.sent.pop(stream)
        self.events += self.events_per_request
        self.last_answers.append(answer)
        if measure_from <= now < end:
            self.latencies.append(now - sent_at)
            self.measured_events += self.events_per_request
            self.measured_until = now

    def _result(self, measure_from: float, cpu: float) -> LoadResult:
        latencies = sorted(self.latencies) or [0.0]
        # A load that ran out of requests ended with its last answer.
        ran_out = self.plan.requests_max is not None and self.started >= self.plan.requests_max
        seconds = self.measured_until - measure_from if ran_out else self.plan.seconds
        return LoadResult(
            events_per_s=self.measured_events / seconds if seconds > 0 else 0.0,
            events=self.events,
            last_position=self._last_position(),
            ack_p50_ms=latencies[len(latencies) // 2] * 1e3,
            ack_p99_ms=latencies[len(latencies) * 99 // 100] * 1e3,
            ack_slowest_ms=latencies[-1] * 1e3,
            client_cpu_us_per_event=cpu / max(1, self.events) * 1e6,
        )

    def _last_position(self) -> int:
        """Highest position in the answers, which must promise that the events are synced."""
        last = 0
        for each in self.last_answers:
            if self.plan.method == "Log":
                single = pb.LogResponse.FromString(each)
                durability, position = single.durability, single.position
            else:
                batch = pb.LogBatchResponse.FromString(each)
                durability, position = batch.durability, batch.first_position + batch.count - 1
            assert durability == pb.DURABILITY_DURABLE, "an answer must promise that its events are synced"
            last = max(last, position)
        return last


if __name__ == "__main__":
    main(LoadPlan(**json.loads(sys.argv[1])))
