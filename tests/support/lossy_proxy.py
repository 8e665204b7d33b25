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
from typing import Self

# Bytes of answers that pass: about what opening an HTTP/2 connection takes, and up to a dozen small answers.
_PASSED_BYTES = (100, 1_500)
_SILENCE_S = 1.0
_SILENT_SHARE = 0.3
_CHUNK_BYTES = 65_536


class LossyProxy:
    """Listens on a port of its own while it is entered."""

    def __init__(self, target: str, chance: random.Random) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._chance = chance
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

    def _start(self, target, *arguments) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                silence_s = _SILENCE_S if self._chance.random() < _SILENT_SHARE else 0.0
                self._start(self._carry, client, self._chance.randint(*_PASSED_BYTES), silence_s)

    def _carry(self, client: socket.socket, passed_bytes: int, silence_s: float) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as service:
            client.settimeout(0.1)
            service.settimeout(0.1)
            requests = threading.Thread(target=self._pump, args=(client, service, None))
            requests.start()
            self._pump(service, client, passed_bytes)
            self._stopped.wait(silence_s)
            for each in (client, service):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            requests.join()

    def _pump(self, source: socket.socket, sink: socket.socket, bytes_max: int | None) -> None:
        """Carry bytes one way until either side closes, or so many would be passed."""
        passed = 0
        with contextlib.suppress(OSError):
            while not self._stopped.is_set():
                try:
                    data = source.recv(_CHUNK_BYTES)
                except TimeoutError:
                    continue
                passed += len(data)
                if not data or (bytes_max is not None and passed > bytes_max):
                    return
                sink.sendall(data)
