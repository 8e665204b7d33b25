"""The same fan-out on NATS: core, which keeps nothing, and JetStream with a push consumer for each subscriber.

Both run in a closed loop like ours: a publisher that is at most a window of events ahead of the slowest subscriber.
Deliveries are counted by a byte that each event holds once.
"""

import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.nats_peer import greeted, port_of, read_until, request, server_path
from tests.benchmarks.peer_process import peer_process

_STREAM, _SUBJECT = "EVENTS", "events"
_BURST_EVENTS = 100
_RECEIVE_BYTES = 1 << 18
_SILENCE_S = 30.0
_POLL_S = 0.0005
# The byte that begins each event, and is nowhere else in it.
TOKEN = b"\x01"


def nats_core_deliveries_per_s(
    directory: Path, events: Sequence[bytes], *, subscribers: int, window: int, seconds: float
) -> float:
    """Deliveries a second of NATS core to a number of subscribers. Raises PeerMissingError."""
    with _server(directory, jetstream=False) as port:
        sockets = [_subscribed(port, _SUBJECT) for _ in range(subscribers)]
        return _closed_loop(port, sockets, events, window=window, seconds=seconds)


def nats_jetstream_deliveries_per_s(
    directory: Path, events: Sequence[bytes], *, subscribers: int, window: int, seconds: float
) -> float:
    """Deliveries a second of a JetStream stream on files, through a push consumer for each. Raises PeerMissingError."""
    with _server(directory, jetstream=True) as port, greeted(port) as control:
        control.sendall(b"SUB _INBOX.control 1\r\nPING\r\n")
        read_until(control, b"PONG\r\n")
        settings = {"name": _STREAM, "subjects": [_SUBJECT], "storage": "file", "num_replicas": 1}
        assert "error" not in request(control, f"$JS.API.STREAM.CREATE.{_STREAM}", json.dumps(settings).encode())
        sockets = []
        for number in range(subscribers):
            sockets.append(_subscribed(port, f"deliver.{number}"))
            consumer = {"deliver_subject": f"deliver.{number}", "ack_policy": "none", "deliver_policy": "all"}
            body = json.dumps({"stream_name": _STREAM, "config": consumer}).encode()
            assert "error" not in request(control, f"$JS.API.CONSUMER.CREATE.{_STREAM}", body)
        return _closed_loop(port, sockets, events, window=window, seconds=seconds)


@contextmanager
def _server(directory: Path, *, jetstream: bool) -> Iterator[int]:
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "nats.conf"
    store = f'jetstream {{ store_dir: "{directory}/store", max_file_store: 50GB }}\n' if jetstream else ""
    config.write_text(f'listen: "127.0.0.1:-1"\nmax_pending: 256MB\n{store}')
    with peer_process([server_path(), "-c", str(config)], directory, port_of) as port:
        yield port


def _subscribed(port: int, subject: str) -> socket.socket:
    connection = greeted(port)
    connection.sendall(b"SUB %s 1\r\nPING\r\n" % subject.encode())
    read_until(connection, b"PONG\r\n")
    return connection


def _closed_loop(
    port: int, sockets: Sequence[socket.socket], events: Sequence[bytes], *, window: int, seconds: float
) -> float:
    bursts = [
        b"".join(
            b"PUB %s %d\r\n%s\r\n" % (_SUBJECT.encode(), len(event), event) for event in events[start:][:_BURST_EVENTS]
        )
        for start in range(0, len(events) - _BURST_EVENTS + 1, _BURST_EVENTS)
    ]
    received = [0] * len(sockets)
    with greeted(port) as publisher:
        publisher.settimeout(_SILENCE_S)
        reader = _Reader(sockets, received)
        reader.start()
        try:
            begin = time.monotonic()
            published = 0
            while time.monotonic() < begin + seconds:
                if published - min(received) < window:
                    publisher.sendall(bursts[published // _BURST_EVENTS % len(bursts)])
                    published += _BURST_EVENTS
                else:
                    time.sleep(_POLL_S)
            _wait(lambda: min(received) >= published)
            return sum(received) / (time.monotonic() - begin)
        finally:
            reader.stop()


class _Reader(threading.Thread):
    """Counts what each socket receives."""

    def __init__(self, sockets: Sequence[socket.socket], received: list[int]) -> None:
        super().__init__(name="subscribers")
        self._sockets = sockets
        self._received = received
        self._stopped = False

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, connection in enumerate(self._sockets):
                selector.register(connection, selectors.EVENT_READ, index)
            while not self._stopped:
                for key, _ in selector.select(0.1):
                    received = self._sockets[key.data].recv(_RECEIVE_BYTES)
                    self._received[key.data] += received.count(TOKEN)

    def stop(self) -> None:
        """End it and hang up."""
        self._stopped = True
        self.join()
        for connection in self._sockets:
            connection.close()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SILENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the subscribers did not get everything in {_SILENCE_S} s")
        time.sleep(_POLL_S)
