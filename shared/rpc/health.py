"""The standard health service, grpc.health.v1.Health, for the services of one process and "" for all of them.

Invariants: a service is NOT_SERVING until it says otherwise; "" serves if every service does; once closed,
nothing serves again and every watch ends. (grpcio's own servicer leaves watches open at a shutdown, so that
one watching client would hold the stop of the server for the whole grace.)
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_health.v1 import health_pb2

from shared.rpc.call import Context

_OVERALL = ""


class HealthServicer:
    """Tells whether services serve. Belongs to the event loop's thread."""

    def __init__(self, services: Iterable[str]) -> None:
        self._serving = dict.fromkeys(services, False)
        self._closed = False
        self._changed = asyncio.Event()

    def set_serving(self, service: str, *, serving: bool) -> None:
        """Say whether a service, by full name, serves. Without effect once closed."""
        assert service in self._serving, f"{service} is none of {list(self._serving)}"
        self._serving[service] = serving
        self._notify()

    def close(self) -> None:
        """Answer NOT_SERVING from now on and end every watch."""
        self._closed = True
        self._notify()

    async def check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Answer the status of a service; NOT_FOUND for one that this process does not have."""
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            known = ", ".join(sorted(self._serving))
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no such service here; there are {known}")
        return health_pb2.HealthCheckResponse(status=status)

    async def watch(
        self, request: health_pb2.HealthCheckRequest, _context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answer the status of a service now and whenever it changes."""
        last: int | None = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
            last = status
            if self._closed:
                return
            await changed.wait()

    def _status(self, service: str) -> int:
        if service != _OVERALL and service not in self._serving:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        serving = all(self._serving.values()) if service == _OVERALL else self._serving[service]
        if serving and not self._closed:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
