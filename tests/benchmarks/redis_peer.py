"""Redis as a peer: XADD of the reference event to a stream, pipelined.

The event goes in as a stream's entry is meant to be, each of its fields a field of the entry; or as one opaque
field, the bytes that eventlog gets, which is cheaper for Redis and leaves the fields to whoever reads.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.benchmarks.peer_process import PeerMissingError, connect, free_port, peer_process
from tests.benchmarks.pipelined import Burst, PipelinedConnection, measure

# Redis reads at most 16 KiB of a connection in one turn of its loop, and syncs once a turn: many
# connections make that sync cover many commands.
CONNECTIONS = 64
BURST_COMMANDS = 25
_STREAM = b"events"
_PLAIN_COLUMNS = ("type", "source", "correlation_id", "payload", "host", "version", "user", "session_id")

Entry = Sequence[bytes]


def entries_of_fields(events: pa.RecordBatch) -> list[Entry]:
    """Return an entry of alternating names and values for each row of a batch with EVENT_SCHEMA."""
    columns: dict[str, list[Any]] = {name: events[name].to_pylist() for name in _PLAIN_COLUMNS}
    columns["timestamp"] = events["timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.string()).to_pylist()
    tags: list[Any] = events["tags"].to_pylist()
    columns["tags"] = [",".join(each) for each in tags]
    rows = zip(*columns.values(), strict=True)
    return [[word.encode() for pair in zip(columns, row, strict=True) for word in pair] for row in rows]


def opaque_entries(events: Sequence[bytes]) -> list[Entry]:
    """Return an entry of one field for each event."""
    return [(b"event", event) for event in events]


def redis_events_per_s(
    directory: Path, entries: Sequence[Entry], *, appendfsync: str, seconds: float, in_flight: int
) -> float:
    """Run a fresh server, add entries for some seconds, and return how many it confirmed a second.

    appendfsync: "always" or "everysec". in_flight: entries not confirmed yet, at most.
    Raises PeerMissingError where there is no redis-server.
    """
    server = shutil.which("redis-server")
    if server is None:
        raise PeerMissingError("redis-server is not on this machine; install the package redis-server or redis")
    port = free_port()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", appendfsync]
    # A rewrite of the file in the middle would be our disadvantage to count.
    command += ["--auto-aof-rewrite-percentage", "0"]
    bursts = _bursts(entries)
    with peer_process(command, directory, lambda output: True if "Ready to accept" in output else None):
        pipes = [_connection(port, bursts, start, in_flight // CONNECTIONS) for start in range(CONNECTIONS)]
        try:
            rate = measure(pipes, seconds=seconds)
        finally:
            for pipe in pipes:
                pipe.socket.close()
        _check_length(port, sum(pipe.answered for pipe in pipes))
    return rate


def _bursts(entries: Sequence[Entry]) -> list[Burst]:
    commands = [_command(b"XADD", _STREAM, b"*", *entry) for entry in entries]
    starts = range(0, len(commands) - BURST_COMMANDS + 1, BURST_COMMANDS)
    return [Burst(b"".join(commands[start : start + BURST_COMMANDS]), BURST_COMMANDS) for start in starts]


def _connection(port: int, bursts: list[Burst], start: int, answers_max: int) -> PipelinedConnection:
    # Each connection begins with another event.
    turned = bursts[start % len(bursts) :] + bursts[: start % len(bursts)]
    # An answer is the id: $15\r\n1700000000000-0\r\n
    return PipelinedConnection(connect(port), turned, answers_max, token=b"$", error=b"-ERR")


def _check_length(port: int, answered: int) -> None:
    with connect(port) as connection:
        connection.sendall(_command(b"XLEN", _STREAM))
        length = int(connection.recv(100)[1:])
    assert length == answered, f"{answered} events were confirmed, {length} are there"


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
