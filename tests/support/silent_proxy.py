"""A proxy whose connections can go dead without a word: the packets of both sides vanish, and both stay open.

    with SilentProxy(service.address) as proxy:
        connect(proxy.address)
        proxy.swallow()

From there on the connections that there are are dead; new ones are carried.
"""

import contextlib
import socket
import threading

from tests.support.tcp_proxy import TcpProxy


class SilentProxy(TcpProxy):
    """Carries everything, until it is told to swallow it."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        # For each connection so far, whether it is dead.
        self._dead: list[threading.Event] = []

    @property
    def connections(self) -> int:
        """How many connections were made so far."""
        return len(self._dead)

    def swallow(self) -> None:
        """Let nothing pass any more on any connection that there is, nor that one side has closed it."""
        for dead in list(self._dead):
            dead.set()

    def carry(self, client: socket.socket, service: socket.socket) -> None:
        """Carry both ways."""
        dead = threading.Event()
        self._dead.append(dead)

        def becomes(data: bytes) -> bytes | None:
            if not dead.is_set():
                return data
            return b"" if data else None

        requests = threading.Thread(target=self.pump, args=(client, service, becomes))
        requests.start()
        self.pump(service, client, becomes)
        requests.join()
        if dead.is_set():
            self.stopped.wait()
        for each in (client, service):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
