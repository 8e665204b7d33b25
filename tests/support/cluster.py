"""Ingest, query and, where asked for, stream as real processes on one directory, and what tests ask of them.

    with Cluster(tmp_path, storage={"rotation": {"max_events": 1000}}) as cluster:
        answer = cluster.appends.LogBatch(request, timeout=10)
        assert read_all(cluster)[-1].position == answer.first_position

Invariants: a stub belongs to the process that runs now, so after a restart it is another one; nothing waits
without a deadline. Belongs to one thread, apart from the stubs.
"""

import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Self

import grpc
import pytest
from eventlog.v1 import event_pb2, ingest_service_pb2, log_admin_service_pb2, query_service_pb2
from eventlog.v1.ingest_service_pb2_grpc import IngestServiceStub
from eventlog.v1.log_admin_service_pb2_grpc import LogAdminServiceStub
from eventlog.v1.query_service_pb2_grpc import QueryServiceStub
from eventlog.v1.stream_service_pb2_grpc import StreamServiceStub
from prometheus_client.parser import text_string_to_metric_families

from shared.rpc.channel import connect_sync
from shared.rpc.remote_error import RemoteError, from_rpc_error
from tests.support.service_process import ServiceProcess

# Seconds that any call may take on a busy machine.
CALL_S_MAX = 30.0
PAGE_EVENTS = 10_000
_POLL_S = 0.02
_PUBLISH_BYTES = "eventlog_rpc_received_bytes_total{method=Publish,service=eventlog.v1.StreamService}"


class Cluster:
    """An ingest and a query service on one directory, and perhaps a stream service, started and ended together."""

    def __init__(
        self,
        directory: Path,
        *,
        log: Path | None = None,
        storage: Mapping[str, Any] | None = None,
        ingest: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        with_stream: bool = False,
        streaming: Mapping[str, Any] | None = None,
        replay: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        ingest_module: str = "ingest_service",
    ) -> None:
        """Prepare them; __enter__ starts them.

        directory: where the services keep what is not the log. log: the log's directory, by default below it.
        storage, ingest, query, streaming, replay: sections of the configuration. No disk space is kept in reserve
        unless storage says so. with_stream: start a stream service too; then all addresses are fixed, so that the
        services find each other again after a restart. ingest_module: what to start as the ingest service.
        """
        self.log = log or directory / "events"
        settings = {"storage": {"base_path": str(self.log), "min_free_bytes": 0} | dict(storage or {})}
        settings["ingest"] = {"publish_to": ""} | dict(ingest or {})
        settings["query"] = dict(query or {})
        self.stream: ServiceProcess | None = None
        self._publishes = True
        if with_stream:
            query_address, stream_address = free_address(), free_address()
            settings["query"] |= {"listen": query_address}
            settings["ingest"] = {"publish_to": stream_address} | dict(ingest or {})
            self._publishes = bool(settings["ingest"]["publish_to"])
            settings["streaming"] = {"listen": stream_address, "query_address": query_address} | dict(streaming or {})
            settings["replay"] = {"checkpoint_dir": str(directory / "checkpoints")} | dict(replay or {})
            self.stream = ServiceProcess("stream_service", directory / "stream", settings=settings, environ=environ)
        self.ingest = ServiceProcess(ingest_module, directory / "ingest", settings=settings, environ=environ)
        self.query = ServiceProcess("query_service", directory / "query", settings=settings, environ=environ)
        self._channels: dict[str, grpc.Channel] = {}

    def __enter__(self) -> Self:
        # Each takes a second to start, so all at once.
        starting = [threading.Thread(target=service.start) for service in self.services if service is not self.ingest]
        for thread in starting:
            thread.start()
        try:
            self.ingest.start()
        finally:
            for thread in starting:
                thread.join()
            if not all(service.running for service in self.services):
                self.close()
        assert self.query.running, "a service does not start; its output is above"
        if self.stream is not None and self._publishes:
            # Before, a subscription from now on might begin with what was logged a moment ago.
            wait_until(self._is_published_to, "ingest has found the stream service")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all services. May be called again."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        for service in self.services:
            service.close()

    def _is_published_to(self) -> bool:
        assert self.stream is not None
        return metrics(self.stream)[_PUBLISH_BYTES] > 0

    @property
    def services(self) -> list[ServiceProcess]:
        """Its processes."""
        return [service for service in (self.stream, self.query, self.ingest) if service is not None]

    @property
    def appends(self) -> IngestServiceStub:
        """IngestService of the process that runs now."""
        return IngestServiceStub(self.channel(self.ingest))

    @property
    def admin(self) -> LogAdminServiceStub:
        """LogAdminService of the process that runs now."""
        return LogAdminServiceStub(self.channel(self.ingest))

    @property
    def reads(self) -> QueryServiceStub:
        """QueryService of the process that runs now."""
        return QueryServiceStub(self.channel(self.query))

    @property
    def streams(self) -> StreamServiceStub:
        """StreamService of the process that runs now."""
        assert self.stream is not None, "this cluster has no stream service"
        return StreamServiceStub(self.channel(self.stream))

    def channel(self, service: ServiceProcess) -> grpc.Channel:
        """Return the channel to a service. It is closed with the cluster."""
        if service.address not in self._channels:
            self._channels[service.address] = connect_sync(service.address)
        return self._channels[service.address]

    def status(self) -> log_admin_service_pb2.GetLogStatusResponse:
        """What GetLogStatus says."""
        return self.admin.GetLogStatus(log_admin_service_pb2.GetLogStatusRequest(), timeout=CALL_S_MAX)

    def flush(self) -> int:
        """Wait until everything accepted is synced; returns the committed position."""
        return int(self.appends.Flush(ingest_service_pb2.FlushRequest(), timeout=CALL_S_MAX).committed_position)

    def segments(self) -> list[log_admin_service_pb2.Segment]:
        """All segments, from as many pages as there are."""
        found: list[log_admin_service_pb2.Segment] = []
        token = ""
        while True:
            request = log_admin_service_pb2.ListSegmentsRequest(page_token=token)
            answer = self.admin.ListSegments(request, timeout=CALL_S_MAX)
            found += answer.segments
            token = answer.next_page_token
            if not token:
                return found

    def rotate(self) -> log_admin_service_pb2.RotateLogResponse:
        """Close the active segment and open the next."""
        return self.admin.RotateLog(log_admin_service_pb2.RotateLogRequest(), timeout=CALL_S_MAX)

    def verify(self) -> log_admin_service_pb2.VerifyLogResponse:
        """Verify the whole log and return the summary."""
        answers = self.admin.VerifyLog(log_admin_service_pb2.VerifyLogRequest(), timeout=2 * CALL_S_MAX)
        *_, summary = answers
        assert summary.done
        return summary

    def wait_until_sealed(self, *, timeout_s: float = 60.0) -> None:
        """Wait until no rotated segment waits to be sealed."""
        wait_until(lambda: self.status().unsealed_segments == 0, "every rotated segment is sealed", timeout_s)


def free_address() -> str:
    """An address on loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@dataclass
class Refusal:
    """How a call was refused."""

    error: RemoteError = field(default_factory=lambda: RemoteError("the call has not ended"))


@contextmanager
def refused(*reasons: str) -> Iterator[Refusal]:
    """Expect a call inside to fail with one of these reasons."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    refusal.error = from_rpc_error(caught.value)
    assert refusal.error.reason in reasons, f"{refusal.error.reason}: {refusal.error}"


def failure_of(call: Callable[[], object]) -> RemoteError | None:
    """How a call fails; None where it succeeds."""
    try:
        call()
    except grpc.RpcError as error:
        return from_rpc_error(error)
    return None


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Wait for a condition. Fails where it does not come to hold in time."""
    give_up_at = monotonic() + timeout_s
    pause = threading.Event()
    while not holds():
        assert monotonic() < give_up_at, f"not within {timeout_s} s: {what}"
        pause.wait(_POLL_S)


def pages(
    cluster: Cluster, request: query_service_pb2.ListEventsRequest
) -> Iterator[query_service_pb2.ListEventsResponse]:
    """All pages of a query, by their tokens."""
    asked = query_service_pb2.ListEventsRequest()
    asked.CopyFrom(request)
    while True:
        page = cluster.reads.ListEvents(asked, timeout=CALL_S_MAX)
        yield page
        asked.page_token = page.next_page_token
        if not asked.page_token:
            return


def read_range(cluster: Cluster, from_position: int, until_position: int = 0) -> list[event_pb2.Event]:
    """Events of [from_position, until_position) through the query service; 0 is everything committed."""
    selection = query_service_pb2.EventSelection(from_position=from_position, until_position=until_position)
    request = query_service_pb2.ListEventsRequest(selection=selection, page_size=PAGE_EVENTS)
    return [event for page in pages(cluster, request) for event in page.events]


def read_all(cluster: Cluster) -> list[event_pb2.Event]:
    """The whole log through the query service. Fails where positions are not 1, 2, 3, ..."""
    events = read_range(cluster, 1)
    check_positions(events, 1)
    return events


def check_positions(events: list[event_pb2.Event], first: int) -> None:
    """Fail where the positions have a gap or the recorded times decrease."""
    positions = [event.position for event in events]
    assert positions == list(range(first, first + len(events))), "the positions have a gap"
    recorded = [(event.recorded_at.seconds, event.recorded_at.nanos) for event in events]
    assert recorded == sorted(recorded), "recorded_at decreases"


def read_around_damage(cluster: Cluster) -> tuple[list[event_pb2.Event], list[tuple[int, int]]]:
    """Read the whole log as a reader does who skips what is damaged: the events, and the damaged ranges it is told."""
    events: list[event_pb2.Event] = []
    damaged: list[tuple[int, int]] = []
    last = cluster.status().committed_position
    position = 1
    while position <= last:
        selection = query_service_pb2.EventSelection(from_position=position)
        request = query_service_pb2.ListEventsRequest(selection=selection, page_size=PAGE_EVENTS)
        try:
            for page in pages(cluster, request):
                events += page.events
                if page.events:
                    position = page.events[-1].position + 1
        except grpc.RpcError as failure:
            error = from_rpc_error(failure)
            assert (error.reason, error.code) == ("LOG_CORRUPTED", grpc.StatusCode.DATA_LOSS), error
            first_damaged, last_damaged = (int(error.metadata[f"{end}_position"]) for end in ("first", "last"))
            assert first_damaged <= position <= last_damaged, f"damage told at {position}: {error}"
            damaged.append((position, last_damaged))
            position = last_damaged + 1
        else:
            break
    return events, damaged


def get_event(cluster: Cluster, position: int, **fields: Any) -> event_pb2.Event:
    """One event by position."""
    request = query_service_pb2.GetEventRequest(position=position, **fields)
    return cluster.reads.GetEvent(request, timeout=CALL_S_MAX).event


def metrics(service: ServiceProcess) -> dict[str, float]:
    """What a service's metrics page says: value by name, with the labels in braces where there are any."""
    with urllib.request.urlopen(f"http://{service.metrics_address}/metrics", timeout=CALL_S_MAX) as page:
        text = page.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@contextmanager
def running(*targets: Callable[[], None]) -> Iterator[None]:
    """Run functions in threads beside the block; wait for their end, and raise what the first of them raised."""
    errors: list[BaseException] = []

    def run(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:  # noqa: BLE001 — raised in the test's own thread
            errors.append(error)

    with ExitStack() as stack:
        for target in targets:
            thread = threading.Thread(target=run, args=(target,))
            thread.start()
            stack.callback(thread.join)
        yield
    if errors:
        raise errors[0]
