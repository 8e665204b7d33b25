"""The round trip of the demo: log, read back, compare, verify, seal, read again. Prints what it does."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Self

from eventlog.v1 import ingest_service_pb2_grpc

from deploy.demo.batches import EVENTS_MAX, Batches
from deploy.demo.log_report import LogReport
from deploy.demo.producer import CONNECTIONS, Acknowledged, log_all
from deploy.demo.progress import ProgressBar
from deploy.demo.read_back import Comparison, Defaults, compare_range, compare_single
from shared.rpc.channel import connect_sync

_SINGLE_READS = 100
_SEAL_S_MAX = 60.0
_TIMEOUT_S = 30.0
_MB = 1_000_000


class RoundTrip:
    """Events to the ingest service and back from the query service. Use as a context."""

    def __init__(self, ingest_address: str, query_address: str, defaults: Defaults) -> None:
        self._ingest_address = ingest_address
        self._ingest_channel = connect_sync(ingest_address)
        self._query_channel = connect_sync(query_address)
        self._report = LogReport(self._ingest_channel)
        self._defaults = defaults
        self._problems: list[str] = []
        # What was logged, and where; there is something once run() has been called.
        self.acknowledged: list[Acknowledged] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ingest_channel.close()
        self._query_channel.close()

    def run(self, sources: Sequence[Batches]) -> list[str]:
        """Take the events of all sources through everything. Returns what was wrong, in words.

        Raises grpc.RpcError where a call fails.
        """
        acknowledged = self.acknowledged = self._log(sources)
        self._log_again(acknowledged[0])
        events = sum(source.events for source in sources)
        self._compare(
            "reading everything back by range", lambda: compare_range(self._query_channel, acknowledged, self._defaults)
        )
        self._verify(events)
        self._seal()
        self._show_sizes(events, sum(source.json_bytes for source in sources))
        self._compare(
            "reading single events by id and by position",
            lambda: compare_single(self._query_channel, acknowledged, self._defaults, _SINGLE_READS),
        )
        return self._problems

    def _log(self, sources: Sequence[Batches]) -> list[Acknowledged]:
        print(f"\nlogging batches of up to {EVENTS_MAX} events over {CONNECTIONS} connections, each synced to disk:")
        print(f"  {'source':<30}{'events':>10}{'seconds':>9}{'events/s':>12}{'JSON MB/s':>11}")
        acknowledged: list[Acknowledged] = []
        total_s = 0.0
        for source in sources:
            with ProgressBar(f"  {source.name}", source.events) as bar:
                answers, elapsed_s = asyncio.run(log_all(self._ingest_address, source.requests, bar.advance))
            acknowledged += answers
            total_s += elapsed_s
            print(_rates(source.name, source.events, source.json_bytes, elapsed_s))
        events, json_bytes = (sum(getattr(source, key) for source in sources) for key in ("events", "json_bytes"))
        print(_rates("all", events, json_bytes, total_s))
        return acknowledged

    def _log_again(self, first: Acknowledged) -> None:
        stub = ingest_service_pb2_grpc.IngestServiceStub(self._ingest_channel)
        answer = stub.LogBatch(first.request, timeout=_TIMEOUT_S)
        if answer.duplicate and answer.first_position == first.answer.first_position:
            print("the first request once more: recognised by its id, nothing logged twice")
        else:
            self._problems.append(f"the first request was logged twice: {answer}")

    def _compare(self, what: str, compare: Callable[[], Comparison]) -> None:
        started = time.perf_counter()
        comparison = compare()
        elapsed_s = time.perf_counter() - started
        rate = comparison.events / elapsed_s
        verdict = f"{comparison.different:,} DIFFER" if comparison.different else "all equal, field by field"
        print(f"{what}: {comparison.events:,} events in {elapsed_s:.1f} s ({rate:,.0f}/s), {verdict}")
        self._problems += comparison.differences

    def _verify(self, events: int) -> None:
        started = time.perf_counter()
        summary = self._report.verify()
        elapsed_s = time.perf_counter() - started
        megabytes = summary.verified_bytes / _MB
        print(f"VerifyLog: {summary.verified_events:,} events, {megabytes:.1f} MB on disk in {elapsed_s:.1f} s")
        if not summary.done or summary.damage:
            self._problems.append(f"VerifyLog reports damage: {summary}")
        if summary.verified_events != events:
            self._problems.append(f"VerifyLog saw {summary.verified_events} events of {events}")

    def _seal(self) -> None:
        started = time.perf_counter()
        if self._report.seal_everything(timeout_s=_SEAL_S_MAX):
            print(f"rotated, and sealed what was open in {time.perf_counter() - started:.1f} s")
        else:
            self._problems.append(f"segments are still unsealed after {_SEAL_S_MAX:.0f} s")

    def _show_sizes(self, events: int, json_bytes: int) -> None:
        status = self._report.status()
        print(f"\nlog {status.log_id}: positions {status.first_position:,} to {status.committed_position:,} committed")
        for line in self._report.segment_table():
            print(f"  {line}")
        ratio = json_bytes / max(1, status.disk_bytes)
        sizes = f"{json_bytes / _MB:,.1f} MB as JSON lines, {status.disk_bytes / _MB:,.1f} MB on disk"
        each = status.disk_bytes / max(1, events)
        print(f"  {events:,} events: {sizes}: {ratio:.1f} to 1, {each:.1f} bytes an event\n")
        if status.last_position != events:
            self._problems.append(f"the last position is {status.last_position}, and {events} events were logged")


def _rates(name: str, events: int, json_bytes: int, elapsed_s: float) -> str:
    per_s = events / elapsed_s
    return f"  {name:<30}{events:>10,}{elapsed_s:>9.2f}{per_s:>12,.0f}{json_bytes / elapsed_s / _MB:>11,.1f}"
