"""Producers for tests of the log: threads that log with each kind of call, and a ledger of what they were told.

Each event says in its payload which request it is of, its row and the number of rows, so that what is in the
log can be held against what was sent. Producers go on until they are told to stop or a call fails.
"""

import queue
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

import grpc
import orjson
from eventlog.v1 import event_pb2, ingest_service_pb2
from eventlog.v1.ingest_service_pb2_grpc import IngestServiceStub

from shared.rpc.remote_error import RemoteError, from_rpc_error
from tests.support.cluster import CALL_S_MAX, running

Message = ingest_service_pb2.LogRequest | ingest_service_pb2.LogBatchRequest | ingest_service_pb2.LogStreamRequest
Answer = ingest_service_pb2.LogResponse | ingest_service_pb2.LogBatchResponse | ingest_service_pb2.LogStreamResponse


@dataclass
class Sent:
    """One request, and what became of it: acknowledged at a position, failed, or neither yet."""

    name: str
    count: int
    durable: bool = True
    # Bytes in each event that do not compress.
    noise: int = 0
    sent_s: float = field(default_factory=monotonic)
    position: int = 0
    duplicate: bool = False
    took_s: float = 0.0
    error: RemoteError | None = None

    def payload(self, row: int) -> str:
        """Payload of one of its events."""
        filler = (
            random.Random(f"{self.name} {row}").randbytes(self.noise // 2).hex() if self.noise else "x" * (row % 50)
        )
        return f'{{"request":"{self.name}","row":{row},"of":{self.count},"filler":"{filler}"}}'

    def events(self) -> list[event_pb2.NewEvent]:
        """Its events; the same each time."""
        kinds = ("load.step", "error.load", "audit.load")
        return [
            event_pb2.NewEvent(
                type=kinds[row % 7 % 3],
                source="producer",
                correlation_id=f"chain-{self.name}",
                payload_json=self.payload(row),
            )
            for row in range(self.count)
        ]

    def batch(self) -> ingest_service_pb2.LogBatchRequest:
        """It as a LogBatchRequest, also where it was sent by another call."""
        durability = ingest_service_pb2.DURABILITY_DURABLE if self.durable else ingest_service_pb2.DURABILITY_BUFFERED
        return ingest_service_pb2.LogBatchRequest(events=self.events(), request_id=self.name, durability=durability)


@dataclass
class Ledger:
    """All requests of the producers. Safe for several threads."""

    requests: dict[str, Sent] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, name: str, count: int, *, durable: bool = True, noise: int = 0) -> Sent:
        """Enter a request that is about to be sent."""
        sent = Sent(name, count, durable, noise)
        with self.lock:
            assert name not in self.requests
            self.requests[name] = sent
        return sent

    def acknowledge(self, sent: Sent, answer: Answer) -> None:
        """Enter an acknowledgement."""
        sent.took_s = monotonic() - sent.sent_s
        sent.duplicate = answer.duplicate
        promised = answer.durability == ingest_service_pb2.DURABILITY_DURABLE
        assert promised or not sent.durable, f"{sent.name} wanted DURABLE"
        if isinstance(answer, ingest_service_pb2.LogResponse):
            sent.position = answer.position
        else:
            assert answer.count == sent.count, f"{sent.name}: {answer.count} of {sent.count} events acknowledged"
            sent.position = answer.first_position

    @property
    def acknowledged(self) -> list[Sent]:
        """Requests with an acknowledgement."""
        with self.lock:
            return [sent for sent in self.requests.values() if sent.position]

    @property
    def unanswered(self) -> list[Sent]:
        """Requests without an acknowledgement: failed, or still on their way."""
        with self.lock:
            return [sent for sent in self.requests.values() if not sent.position]

    @property
    def slowest_s(self) -> float:
        """How long the slowest acknowledgement took."""
        return max((sent.took_s for sent in self.acknowledged), default=0.0)


@dataclass
class Load:
    """Producers of one service. `stopped` tells them to end; `name` goes into the names of their requests."""

    appends: IngestServiceStub
    ledger: Ledger
    name: str
    stopped: threading.Event = field(default_factory=threading.Event)

    def batches(
        self, number: int, *, in_flight: int = 4, sizes: Sequence[int] = (1, 20, 100, 200), buffered_share: float = 0.0
    ) -> Callable[[], None]:
        """A producer that logs with LogBatch, several at a time."""

        def produce() -> None:
            chance = random.Random(f"{self.name}-{number}")
            window = threading.Semaphore(in_flight)
            failed = threading.Event()
            for index in _until(self.stopped, failed):
                if not window.acquire(timeout=CALL_S_MAX):
                    break
                durable = chance.random() >= buffered_share
                name = f"{self.name}-batch{number}-{index}"
                sent = self.ledger.open(name, chance.choice(sizes), durable=durable)
                call = self.appends.LogBatch.future(sent.batch(), timeout=CALL_S_MAX)
                call.add_done_callback(partial(self._ended, sent, window, failed))
            for _ in range(in_flight):
                assert window.acquire(timeout=2 * CALL_S_MAX), "a call did not end at its deadline"

        return produce

    def singles(self, number: int) -> Callable[[], None]:
        """A producer that logs with Log, one at a time."""

        def produce() -> None:
            for index in _until(self.stopped):
                sent = self.ledger.open(f"{self.name}-single{number}-{index}", 1)
                request = ingest_service_pb2.LogRequest(event=sent.events()[0], request_id=sent.name)
                try:
                    self.ledger.acknowledge(sent, self.appends.Log(request, timeout=CALL_S_MAX))
                except grpc.RpcError as error:
                    sent.error = from_rpc_error(error)
                    return

        return produce

    def stream(self, number: int, *, in_flight: int = 16) -> Callable[[], None]:
        """A producer that logs with one LogStream, pipelined; answers must come in the order of the requests."""

        def produce() -> None:
            chance = random.Random(f"{self.name}-stream{number}")
            order: queue.SimpleQueue[Sent] = queue.SimpleQueue()
            window = threading.Semaphore(in_flight)
            ended = threading.Event()

            def requests() -> Iterator[ingest_service_pb2.LogStreamRequest]:
                for index in _until(self.stopped, ended):
                    while not window.acquire(timeout=0.1):
                        if ended.is_set():
                            return
                    sent = self.ledger.open(f"{self.name}-stream{number}-{index}", chance.choice((1, 10, 100)))
                    order.put(sent)
                    yield ingest_service_pb2.LogStreamRequest(events=sent.events(), request_id=sent.name)

            try:
                for answer in self.appends.LogStream(requests(), timeout=2 * CALL_S_MAX):
                    self.ledger.acknowledge(order.get(timeout=CALL_S_MAX), answer)
                    window.release()
            except grpc.RpcError as error:
                problem = from_rpc_error(error)
                while not order.empty():
                    order.get().error = problem
            finally:
                ended.set()

        return produce

    @contextmanager
    def on(self, *producers: Callable[[], None]) -> Iterator[None]:
        """Run producers beside the block, and stop them at its end."""
        with running(*producers):
            try:
                yield
            finally:
                self.stopped.set()

    def _ended(self, sent: Sent, window: threading.Semaphore, failed: threading.Event, call: Any) -> None:
        try:
            self.ledger.acknowledge(sent, call.result())
        except grpc.RpcError as error:
            sent.error = from_rpc_error(error)
            failed.set()
        finally:
            window.release()


def retry(appends: IngestServiceStub, ledger: Ledger, requests: Iterable[Sent]) -> None:
    """Send requests again under their ids, and enter the acknowledgements. All must succeed."""
    calls = [(sent, appends.LogBatch.future(sent.batch(), timeout=CALL_S_MAX)) for sent in requests]
    for sent, call in calls:
        ledger.acknowledge(sent, call.result())
        sent.error = None


def found_requests(events: Iterable[event_pb2.Event]) -> dict[str, int]:
    """First position of each request in the log. Fails where one is not whole, in order, and there once."""
    found: dict[str, int] = {}
    name, row, of = "", 0, 0
    for event in events:
        said = orjson.loads(event.payload_json)
        if row == of:
            name, row, of = said["request"], 0, said["of"]
            assert name not in found, f"{name} is at {found[name]} and again at {event.position}"
            found[name] = event.position
        assert (said["request"], said["row"], said["of"]) == (name, row, of), f"{name} is cut at {event.position}"
        row += 1
    assert row == of, f"{name} is cut at the end of the log"
    return found


def check_ledger(ledger: Ledger, events: list[event_pb2.Event]) -> dict[str, int]:
    """Hold a whole log against the ledger; returns the first position of each request in it.

    Every request with a durable acknowledgement is there once, at its position, with its content; each other one
    is whole or absent; nothing else is there.
    """
    found = found_requests(events)
    for sent in ledger.acknowledged:
        if sent.durable:
            assert found.get(sent.name) == sent.position, f"{sent.name} was acknowledged at {sent.position}"
    for name, position in found.items():
        sent = ledger.requests[name]
        rows = events[position - events[0].position :][: sent.count]
        texts = [row.payload_json for row in rows]
        assert texts == [sent.payload(row) for row in range(sent.count)], f"{name} is not what was sent"
    return found


def _until(*stopped: threading.Event) -> Iterator[int]:
    number = 0
    while not any(event.is_set() for event in stopped):
        yield number
        number += 1
