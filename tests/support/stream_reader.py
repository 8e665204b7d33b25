"""A subscriber over gRPC, read by a thread of its own, and what it was told."""

import threading
from collections.abc import Callable
from typing import Any, Self

import grpc
from eventlog.v1 import event_pb2, ingest_service_pb2, stream_service_pb2
from eventlog.v1.stream_service_pb2_grpc import StreamServiceStub

from shared.rpc.channel import ChannelLimits
from shared.rpc.remote_error import RemoteError, from_rpc_error
from tests.support.cluster import CALL_S_MAX, Cluster, wait_until

Subscribe = stream_service_pb2.SubscribeRequest
Start = stream_service_pb2.StreamStart


class StreamReader:
    """One Subscribe call on a connection of its own. Reads until it ends; may be paused before it reads at all."""

    def __init__(self, address: str, request: stream_service_pb2.SubscribeRequest, *, reads: bool = True) -> None:
        self.messages: list[stream_service_pb2.SubscribeResponse] = []
        self.error: RemoteError | None = None
        # Windows that do not grow: who does not read soon stalls the service.
        options = (*ChannelLimits().options(), ("grpc.http2.bdp_probe", 0))
        self._channel = grpc.insecure_channel(address, options=options)
        self._call = StreamServiceStub(self._channel).Subscribe(request)
        self._reads = threading.Event()
        if reads:
            self._reads.set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        if reads:
            self.wait(lambda: self.messages or self.ended, "the subscription is confirmed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def go_on(self) -> None:
        """Begin to read, after it was paused."""
        self._reads.set()

    def close(self) -> None:
        """Hang up."""
        self._reads.set()
        self._call.cancel()
        self._thread.join()
        self._channel.close()

    @property
    def ended(self) -> bool:
        """Whether the stream has ended."""
        return not self._thread.is_alive()

    @property
    def positions(self) -> list[int]:
        """Positions received."""
        return [event.position for event in self.events]

    @property
    def events(self) -> list[event_pb2.Event]:
        """Events received."""
        return [event for message in list(self.messages) for event in message.events.events]

    def of(self, kind: str) -> list[Any]:
        """What came of one kind of message."""
        return [getattr(message, kind) for message in list(self.messages) if message.HasField(kind)]

    def wait(self, holds: Callable[[], object], what: str, timeout_s: float = CALL_S_MAX) -> None:
        """Wait for a condition on what was received."""
        wait_until(holds, what, timeout_s)

    def wait_for(self, position: int) -> None:
        """Wait until an event at or behind a position has come."""
        self.wait(lambda: self.positions[-1:] >= [position], f"position {position} is received")

    def wait_ended(self) -> RemoteError:
        """Wait until the stream has ended, and return how."""
        self._thread.join(CALL_S_MAX)
        assert self.error is not None, "the stream has not ended"
        return self.error

    def _run(self) -> None:
        self._reads.wait()
        try:
            for message in self._call:
                self.messages.append(message)
        except grpc.RpcError as error:
            self.error = from_rpc_error(error)


def subscribe(cluster: Cluster, *, reads: bool = True, **fields: Any) -> StreamReader:
    """A reader of a subscription; fields are those of SubscribeRequest, and `earliest`."""
    assert cluster.stream is not None
    if fields.pop("earliest", False):
        fields["start"] = Start(earliest=True)
    return StreamReader(cluster.stream.address, Subscribe(**fields), reads=reads)


def log(cluster: Cluster, count: int = 1, *, event_type: str = "test.happened", **fields: Any) -> int:
    """Log events in one request; returns the last position."""
    events = [
        event_pb2.NewEvent(type=event_type, payload_json=f'{{"n":{number}}}', **fields) for number in range(count)
    ]
    answer = cluster.appends.LogBatch(ingest_service_pb2.LogBatchRequest(events=events), timeout=CALL_S_MAX)
    return answer.first_position + count - 1


def acknowledge(cluster: Cluster, subscription: str, **fields: Any) -> stream_service_pb2.AcknowledgeResponse:
    """Acknowledge; fields are those of AcknowledgeRequest."""
    request = stream_service_pb2.AcknowledgeRequest(subscription=subscription, **fields)
    return cluster.streams.Acknowledge(request, timeout=CALL_S_MAX)


def status_of(cluster: Cluster, subscription: str) -> stream_service_pb2.SubscriptionStatus:
    """How a subscription is doing. Fails where it is not listed."""
    answer = cluster.streams.ListSubscriptions(stream_service_pb2.ListSubscriptionsRequest(), timeout=CALL_S_MAX)
    (found,) = [status for status in answer.subscriptions if status.subscription == subscription]
    return found
