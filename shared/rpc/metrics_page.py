"""The page that Prometheus reads: GET /metrics over HTTP, from a registry, in threads of its own.

Invariants: once the context is left, nothing listens; a reader that stays silent is let go of after READ_TIMEOUT_S;
beyond READERS_MAX readers at a time, more are let go of at once.
(prometheus_client's own start_http_server has no such limit, and takes half a second to stop.)
"""

import asyncio
import socket
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Thread
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from shared.errors import EventConfigException

READ_TIMEOUT_S = 10.0
READERS_MAX = 16
_STOP_POLL_S = 0.1


class MetricsPage:
    """Serves a registry on host:port while it is entered; then `address` has the port that was bound."""

    def __init__(self, listen: str, registry: CollectorRegistry) -> None:
        self.address = listen
        self._registry = registry

    async def __aenter__(self) -> Self:
        """Listen. Raises EventConfigException where the address cannot be had."""
        host, _, port = self.address.rpartition(":")
        try:
            # In a thread: binding may ask the name service for the name of the host.
            self._server = await asyncio.to_thread(_listen, host.strip("[]"), int(port))
        except OSError as error:
            raise EventConfigException(
                f"cannot serve metrics on {self.address}: {error.strerror or error}; "
                "stop the process that uses the port, or configure another address as `metrics_listen`"
            ) from error
        self._server.set_app(make_wsgi_app(self._registry))
        self._thread = Thread(target=self._server.serve_forever, args=(_STOP_POLL_S,), daemon=True, name="metrics")
        self._thread.start()
        self.address = f"{host}:{self._server.server_port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        self._places = BoundedSemaphore(READERS_MAX)
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a reader in a thread, if there is a place."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a reader, then give its place to the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = READ_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the base's name
        """Say nothing: a scrape is no event."""


def _listen(host: str, port: int) -> WSGIServer:
    return (_Server6 if ":" in host else _Server)((host, port), _Handler)
