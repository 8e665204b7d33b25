"""Raw pipelined connections: prepared bytes out, answers counted.

What a peer's server can take is measured, not what a client library costs: each connection has a number of
prepared bursts in flight all the time, and answers are counted by a byte that each holds once.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_RECEIVE_BYTES = 1 << 18
_SILENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Burst:
    """Commands that go out together."""

    data: bytes
    # Answers that come for them.
    answers: int


@dataclass(slots=True)
class PipelinedConnection:
    """A connection in use: its socket is ready for bursts, and what the server greets with has been read."""

    socket: socket.socket
    # Sent in turn, again and again.
    bursts: Sequence[Burst]
    # Answers in flight, at most.
    answers_max: int
    # A byte that each answer holds once.
    token: bytes
    # Bytes which, where an answer holds them, mean an error.
    error: bytes
    answered: int = 0
    _asked: int = 0
    _next: int = 0
    _unsent: list[memoryview] = field(default_factory=list)

    def fill(self, *, stop: bool) -> None:
        """Send bursts until the most are in flight or the socket takes no more. stop: no new ones."""
        while True:
            if not self._unsent:
                burst = self.bursts[self._next % len(self.bursts)]
                if stop or self._asked - self.answered + burst.answers > self.answers_max:
                    return
                self._next += 1
                self._asked += burst.answers
                self._unsent.append(memoryview(burst.data))
            data = self._unsent.pop()
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                self._unsent.append(data[sent:])
                return

    def receive(self) -> None:
        """Count the answers that have come."""
        received = self.socket.recv(_RECEIVE_BYTES)
        if not received:
            raise RuntimeError("the server closed the connection")
        if self.error in received:
            raise RuntimeError(f"the server refused a command: {received[:300]!r}")
        self.answered += received.count(self.token)

    @property
    def idle(self) -> bool:
        """Whether every answer has come."""
        return self.answered == self._asked and not self._unsent

    @property
    def wants_to_send(self) -> bool:
        """Whether part of a burst could not be sent yet."""
        return bool(self._unsent)


def measure(connections: Sequence[PipelinedConnection], *, seconds: float, warm_up_s: float = 1.0) -> float:
    """Return answers a second over all connections, after a warm-up. All answers have come at the end."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.socket.settimeout(0)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        begin = time.perf_counter()
        _run(selector, connections, until=begin + warm_up_s)
        warm_answers, warm_until = sum(each.answered for each in connections), time.perf_counter()
        _run(selector, connections, until=warm_until + seconds)
        answers, until = sum(each.answered for each in connections), time.perf_counter()
        _run(selector, connections, until=None)
        if answers == warm_answers:
            raise RuntimeError(f"the server confirmed nothing in {seconds} s")
        return (answers - warm_answers) / (until - warm_until)


def _run(selector: selectors.BaseSelector, connections: Sequence[PipelinedConnection], *, until: float | None) -> None:
    """Keep the connections busy until a time; None means send nothing new and wait for all answers."""
    heard_at = time.perf_counter()
    for connection in connections:
        connection.fill(stop=until is None)
    while (time.perf_counter() < until) if until is not None else not all(each.idle for each in connections):
        for key, _ in selector.select(0.1):
            heard_at = time.perf_counter()
            key.data.receive()
            key.data.fill(stop=until is None)
        for connection in connections:
            if connection.wants_to_send:
                connection.fill(stop=until is None)
        if time.perf_counter() - heard_at > _SILENCE_S:
            raise RuntimeError(f"the server has said nothing for {_SILENCE_S} s")
