"""The page that Prometheus reads: GET /metrics over HTTP, from a registry, in a thread of its own.

Invariant: once the context is left, the thread has ended and the port is free.
"""

import asyncio
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, start_http_server

from shared.errors import EventConfigException


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
            self._server, self._thread = await asyncio.to_thread(
                start_http_server, int(port), host.strip("[]"), self._registry
            )
        except OSError as error:
            raise EventConfigException(
                f"cannot serve metrics on {self.address}: {error.strerror or error}; "
                "stop the process that uses the port, or configure another address as `metrics_listen`"
            ) from error
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
