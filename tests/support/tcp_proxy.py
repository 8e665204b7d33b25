"""A proxy between a client and a service, for tests of what networks do. Subclasses say what becomes of a connection.

Invariant: when its context is left, nothing of it listens, is connected or runs any more.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

_CHUNK_BYTES = 65_536
# How long a read waits before it looks whether the proxy has ended.
_LOOK_S = 0.1


class TcpProxy:
    """Listens on a port of its own while it is entered, and carries each connection in a thread of its own."""

    def __init__(self, target: str) -> None:
        """target: "host:port" of the service, which need not listen yet."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        # A blocked accept() is ended by shutdown, not by close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._threads):
            thread.join(10)
            assert not thread.is_alive()

    @property
    def stopped(self) -> threading.Event:
        """Set when the proxy ends: whoever carries a connection is to return then."""
        return self._stopped

    def carry(self, client: socket.socket, service: socket.socket) -> None:
        """Carry one connection; both sockets are closed on return."""
        raise NotImplementedError

    def pump(self, source: socket.socket, sink: socket.socket, becomes: Callable[[bytes], bytes | None]) -> None:
        """Carry one way until its end, which is carried too, or until the proxy ends.

        becomes: what is carried in the place of some bytes, of which b"" are the end; None: nothing more.
        """
        with contextlib.suppress(OSError):
            while not self._stopped.is_set():
                try:
                    data = source.recv(_CHUNK_BYTES)
                except TimeoutError:
                    continue
                carried = becomes(data)
                if carried is None:
                    return
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(carried)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as service:
            client.settimeout(_LOOK_S)
            service.settimeout(_LOOK_S)
            self.carry(client, service)
