"""A proxy that carries requests and loses answers, as a network does that breaks at the worst moment.

    with LossyProxy(service.address, random.Random(seed)) as proxy:
        connect(proxy.address)

Of each connection it hands on a random number of the answers' bytes. Then it closes the connection, or goes on
carrying requests in silence for a while. What was asked for last has been done, and nobody is told.
"""

import contextlib
import random
import socket
import threading
from collections.abc import Callable

from tests.support.tcp_proxy import TcpProxy

# Bytes of answers that pass: about what opening an HTTP/2 connection takes, and up to a dozen small answers.
_PASSED_BYTES = (100, 1_500)
_SILENCE_S = 1.0
_SILENT_SHARE = 0.3


class LossyProxy(TcpProxy):
    """Loses the answers of each connection from some place on."""

    def __init__(self, target: str, chance: random.Random) -> None:
        super().__init__(target)
        self._chance = chance

    def carry(self, client: socket.socket, service: socket.socket) -> None:
        """Carry requests, and some of the answers."""
        silence_s = _SILENCE_S if self._chance.random() < _SILENT_SHARE else 0.0
        requests = threading.Thread(target=self.pump, args=(client, service, lambda data: data))
        requests.start()
        self.pump(service, client, _first_bytes(self._chance.randint(*_PASSED_BYTES)))
        self.stopped.wait(silence_s)
        for each in (client, service):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        requests.join()


def _first_bytes(bytes_max: int) -> Callable[[bytes], bytes | None]:
    """Let whole reads pass as long as they are not more than this together."""
    passed = 0

    def becomes(data: bytes) -> bytes | None:
        nonlocal passed
        passed += len(data)
        return data if passed <= bytes_max else None

    return becomes
