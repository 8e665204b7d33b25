"""The gRPC server of a service, with health, reflection and a metrics page, and its life until a signal.

    async with AsyncExitStack() as stack:
        server = Server(service="stream_service", listen=…, metrics_listen=…, metrics=metrics, clock=clock)
        server.add_service(DESCRIPTOR.services_by_name["StreamService"], StreamServicer(hub))
        await stack.enter_async_context(server)     # listens; health says NOT_SERVING
        server.set_serving("", serving=True)        # after recovery
        await serve_until_signalled(server, grace_s=config.grace, before_stop=hub.close)

Invariants: one address, one server (SO_REUSEPORT is off); nothing listens once the context is left; a drain takes
at most grace_s. Does not secure the ports.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from shared.clock import Clock
from shared.errors import EventConfigException
from shared.rpc.call import RpcEnvironment
from shared.rpc.drain import Drain
from shared.rpc.health import HealthServicer
from shared.rpc.metrics_page import MetricsPage
from shared.rpc.reflection import DESCRIPTOR as REFLECTION_DESCRIPTOR
from shared.rpc.reflection import NAMES as REFLECTION_NAMES
from shared.rpc.reflection import ReflectionServicer
from shared.rpc.service import service_handler
from shared.telemetry.metrics import Metrics
from shared.telemetry.rpc_metrics import RpcMetrics

_log = logging.getLogger("eventlog.server")

# Before the port is closed, calls are held until none has come for so long, and at most for so long.
_QUIET_S = 0.1
_HOLD_S_MAX = 1.0

_HEALTH_DESCRIPTOR = cast("ServiceDescriptor", health_pb2.DESCRIPTOR.services_by_name["Health"])


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server takes at most."""

    # Bytes of one request message, and of one response message.
    receive_bytes_max: int = 20 * 1024 * 1024
    send_bytes_max: int = 64 * 1024 * 1024
    # Calls at the same time on one connection; more wait at the client.
    streams_per_connection_max: int = 1000
    # Calls at the same time in all; more fail with RESOURCE_EXHAUSTED, without a reason.
    calls_max: int = 4096
    # A peer that vanished without a word, whose streams would stay for hours, is found within both together.
    keepalive_s: float = 30.0
    keepalive_answer_s: float = 10.0

    def options(self) -> tuple[tuple[str, int], ...]:
        """Return the options of the gRPC server."""
        return (
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.receive_bytes_max),
            ("grpc.max_send_message_length", self.send_bytes_max),
            ("grpc.max_concurrent_streams", self.streams_per_connection_max),
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_answer_s * 1000)),
            # The former alone does not end the connection before this, which is a minute by default.
            ("grpc.http2.ping_timeout_ms", round(self.keepalive_answer_s * 1000)),
            # Clients may ask as often as `shared.rpc.channel` does, also between calls.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        )


class Server:
    """Serves the services that are added before it is entered; then has `address` and `metrics_address`."""

    def __init__(
        self,
        *,
        service: str,
        listen: str,
        metrics_listen: str,
        metrics: Metrics,
        clock: Clock,
        limits: ServerLimits | None = None,
    ) -> None:
        self.service = service
        # The shutdown of this service; see `shared.rpc.drain`.
        self.drain = Drain()
        self.address = listen
        self.metrics_address = metrics_listen
        self._metrics = metrics
        self._clock = clock
        self._limits = limits or ServerLimits()
        self._environment = RpcEnvironment(RpcMetrics(metrics), clock, self.drain)
        self._services: dict[str, grpc.GenericRpcHandler] = {}
        self._health = HealthServicer(())
        self._stack = AsyncExitStack()
        self._grpc: grpc.aio.Server | None = None

    def add_service(
        self, descriptor: ServiceDescriptor, servicer: object, *, write_timeout_s: float | None = None
    ) -> None:
        """Serve a service; see `shared.rpc.service` for what its servicer looks like, and for write_timeout_s."""
        assert self._grpc is None, "services are added before the server is entered"
        self._services[descriptor.full_name] = service_handler(
            descriptor, servicer, self._environment, write_timeout_s=write_timeout_s
        )

    def set_serving(self, service: str, *, serving: bool) -> None:
        """Say whether a service, by full name, is ready to be called; "" means all that were added."""
        for each in [service] if service else self._services:
            self._health.set_serving(each, serving=serving)

    async def __aenter__(self) -> Self:
        """Listen. Raises EventConfigException where an address cannot be had; then nothing listens."""
        async with AsyncExitStack() as stack:
            page = await stack.enter_async_context(MetricsPage(self.metrics_address, self._metrics.registry))
            self._health = HealthServicer(self._services)
            self._grpc = grpc.aio.server(
                handlers=(*self._services.values(), *self._standard_handlers()),
                options=self._limits.options(),
                maximum_concurrent_rpcs=self._limits.calls_max,
            )
            port = _bind(self._grpc, self.address)
            stack.push_async_callback(self._grpc.stop, None)
            await self._grpc.start()
            self.address = with_port(self.address, port)
            self.metrics_address = page.address
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop at once what `stop` has not stopped before."""
        await self._stack.aclose()

    async def stop(self, *, grace_s: float, before_stop: Callable[[], Awaitable[object]] | None = None) -> None:
        """Drain: health says NOT_SERVING, before_stop ends live streams, then calls get the rest of grace_s.

        Calls that come meanwhile are told SERVER_DRAINING. Calls that are still running after grace_s are
        cancelled. A failing before_stop does not stop the stop.
        """
        assert self._grpc is not None, "the server was not entered"
        deadline_s = self._clock.monotonic_s() + grace_s
        self._health.close()
        self.drain.begin()
        if before_stop is not None:
            try:
                async with asyncio.timeout(grace_s):
                    await before_stop()
            except TimeoutError:
                _log.warning("live streams did not end within the grace", extra={"grace_s": grace_s})
            except Exception:  # noqa: BLE001 — whatever it is, the server must still stop
                _log.exception("live streams could not be ended; stopping all the same")
        # gRPC ends calls that came and were not begun at its stop as CANCELLED, without a reason (grpc/grpc#41785).
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self._left_s(deadline_s), _HOLD_S_MAX)):
                await self.drain.hold(_QUIET_S)
        stopping = asyncio.ensure_future(self._grpc.stop(self._left_s(deadline_s)))
        # Its first step tells the clients that the connections end, so who is refused now does not come again.
        await asyncio.sleep(0)
        self.drain.release()
        await stopping

    def _left_s(self, deadline_s: float) -> float:
        return max(deadline_s - self._clock.monotonic_s(), 0.0)

    def _standard_handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        listed = (*self._services, _HEALTH_DESCRIPTOR.full_name, REFLECTION_DESCRIPTOR.full_name)
        reflection = ReflectionServicer(listed, self.drain)
        # Both answer to the end: health is what says that the service drains.
        return (
            service_handler(_HEALTH_DESCRIPTOR, self._health, self._environment, drains=False),
            *(
                service_handler(REFLECTION_DESCRIPTOR, reflection, self._environment, name=name, drains=False)
                for name in REFLECTION_NAMES
            ),
        )


async def serve_until_signalled(
    server: Server, *, grace_s: float, before_stop: Callable[[], Awaitable[object]] | None = None
) -> None:
    """Say in the log where the server listens, wait for SIGTERM or SIGINT, then `stop` it.

    Call it from the main thread. More signals change nothing: grace_s bounds the drain.
    """
    addresses = {"address": server.address, "metrics_address": server.metrics_address}
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    try:
        _log.info("serving", extra=addresses)
        await signalled.wait()
        _log.info("draining", extra={"grace_s": grace_s})
        await server.stop(grace_s=grace_s, before_stop=before_stop)
        _log.info("stopped", extra=addresses)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def with_port(address: str, port: int) -> str:
    """Return host:port with the port that was really bound."""
    host, _, _ = address.rpartition(":")
    return f"{host}:{port}"


def _bind(server: grpc.aio.Server, address: str) -> int:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise EventConfigException(
            f"cannot listen on {address}: another process uses the port, or this machine has no such address; "
            "stop that process, or configure another address as `listen`"
        )
    return port
