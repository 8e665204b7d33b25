"""A peer's server as a process on loopback, with its data beside ours, ended by its handle."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_START_S = 20.0


class PeerMissingError(Exception):
    """The peer is not on this machine; the message says how to get it."""


class PeerFailedError(Exception):
    """The peer did not start; the message ends with what it wrote."""


@contextmanager
def peer_process(command: Sequence[str], directory: Path, ready: Callable[[str], T | None]) -> Iterator[T]:
    """Run a server in a directory. Yields what `ready` made of its output, once that is not None."""
    directory.mkdir(parents=True, exist_ok=True)
    output = directory / "output"
    with (
        output.open("wb") as file,
        subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=file, stderr=file) as process,
    ):
        try:
            yield _wait(process, output, ready)
        finally:
            process.terminate()
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A port that is free now, for servers that cannot choose one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def connect(port: int) -> socket.socket:
    """Connect to a server on loopback; sends and receives give up after a while."""
    connection = socket.create_connection(("127.0.0.1", port), _START_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _wait(process: subprocess.Popen[bytes], output: Path, ready: Callable[[str], T | None]) -> T:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        answer = ready(output.read_text(errors="replace"))
        if answer is not None:
            return answer
        time.sleep(0.02)
    raise PeerFailedError(f"{process.args!r} did not start. It wrote:\n{output.read_text(errors='replace')[-2000:]}")
