"""A stream service beside a cluster, and what tests ask of its replays over gRPC."""

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
from eventlog.v1 import event_pb2, ingest_service_pb2, stream_service_pb2
from eventlog.v1.stream_service_pb2_grpc import StreamServiceStub

from shared.client import EventLogger, LoggerOptions
from shared.config import EventConfig
from shared.events import ExactEvent
from shared.events.document import parse_document
from shared.rpc.remote_error import RemoteError, from_rpc_error
from tests.support.cluster import CALL_S_MAX, Cluster
from tests.support.service_process import ServiceProcess

START_S = 1_700_000_000


class Streams:
    """A stream service that reads history from a cluster. The stub belongs to the process that runs now."""

    def __init__(self, cluster: Cluster, directory: Path, replay: Mapping[str, Any]) -> None:
        settings = {
            "query": {"listen": cluster.query.address},
            "streaming": {"query_address": cluster.query.address},
            "replay": {"checkpoint_dir": str(directory / "checkpoints")} | dict(replay),
        }
        self.cluster = cluster
        self.checkpoints = directory / "checkpoints"
        self.service = ServiceProcess("stream_service", directory, settings=settings)

    @property
    def stub(self) -> StreamServiceStub:
        """StreamService of the process that runs now."""
        return StreamServiceStub(self.cluster.channel(self.service))


@contextmanager
def streams(cluster: Cluster, directory: Path, **replay: Any) -> Iterator[Streams]:
    """Run a stream service. replay: its section of the configuration."""
    running = Streams(cluster, directory, replay)
    with running.service:
        yield running
    print("--- stream", *running.service.lines[-30:], sep="\n")


@dataclass
class Replayed:
    """What came of a replay, in the order in which it came."""

    started: stream_service_pb2.ReplayStarted | None = None
    events: list[event_pb2.Event] = field(default_factory=list)
    # When the batch of each event came, by the monotonic clock.
    arrived_s: list[float] = field(default_factory=list)
    heartbeats: list[stream_service_pb2.Heartbeat] = field(default_factory=list)
    closing: stream_service_pb2.Closing | None = None
    error: RemoteError | None = None

    @property
    def positions(self) -> list[int]:
        """Positions of the events."""
        return [event.position for event in self.events]

    def take(self, message: stream_service_pb2.ReplayResponse) -> None:
        """Take in one message; fail where it comes when it must not."""
        kind = message.WhichOneof("message")
        assert (self.started is None) == (kind == "started"), f"{kind} out of turn"
        assert self.closing is None, f"{kind} after closing"
        if kind == "started":
            self.started = message.started
        elif kind == "events":
            assert message.events.events, "a batch is not empty"
            assert message.events.resume_position == message.events.events[-1].position + 1
            self.events += message.events.events
            self.arrived_s += [monotonic()] * len(message.events.events)
        elif kind == "heartbeat":
            self.heartbeats.append(message.heartbeat)
        else:
            self.closing = message.closing


def replay(stub: StreamServiceStub, *, deadline_s: float = CALL_S_MAX, **fields: Any) -> Replayed:
    """Run a Replay to its end. As fast as it goes, unless a speed is given."""
    request = stream_service_pb2.ReplayRequest(**({"speed": 0.0} | fields))
    return replayed(stub.Replay(request, timeout=deadline_s))


def replay_session(stub: StreamServiceStub, session_id: str, **fields: Any) -> Replayed:
    """Run a ReplaySession to its end. As fast as it goes, unless a speed is given."""
    request = stream_service_pb2.ReplaySessionRequest(**({"session_id": session_id, "speed": 0.0} | fields))
    return replayed(stub.ReplaySession(request, timeout=CALL_S_MAX))


def replayed(messages: Iterable[stream_service_pb2.ReplayResponse]) -> Replayed:
    """Take in all messages, and the error that they end with; fail where they are not what they promise."""
    found = Replayed()
    try:
        for message in messages:
            found.take(message)
    except grpc.RpcError as error:
        found.error = from_rpc_error(error)
    assert found.positions == sorted(set(found.positions)), "events are out of order, or come twice"
    return found


def log_events(cluster: Cluster, events: Sequence[event_pb2.NewEvent]) -> int:
    """Log events in batches; returns the first position."""
    first = 0
    for at in range(0, len(events), 5_000):
        request = ingest_service_pb2.LogBatchRequest(events=events[at : at + 5_000])
        answer = cluster.appends.LogBatch(request, timeout=CALL_S_MAX)
        first = first or answer.first_position
    return first


def numbered(count: int, *, every_ms: float = 1.0, **fields: Any) -> list[event_pb2.NewEvent]:
    """Events {"n": 0}, {"n": 1}, …, one every so many milliseconds from START_S on."""
    events = []
    for number in range(count):
        event = event_pb2.NewEvent(**({"type": "replay.test", "payload_json": f'{{"n":{number}}}'} | fields))
        event.timestamp.FromNanoseconds(START_S * 10**9 + round(number * every_ms * 1e6))
        events.append(event)
    return events


def real_events(file: Path) -> list[ExactEvent]:
    """The events of a file of real data."""
    with gzip.open(file) as lines:
        return [parse_document(line) for line in lines]


def log_real(cluster: Cluster, events: Sequence[ExactEvent]) -> None:
    """Log events in bulk, as somebody does who imports old ones."""
    with EventLogger(EventConfig(), LoggerOptions(address=cluster.ingest.address)) as logger:
        for at in range(0, len(events), 5_000):
            logger.log_batch(events[at : at + 5_000])
