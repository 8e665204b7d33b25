"""Client channels, with the keepalive and the limits that all clients of eventlog share.

Invariant: a channel never goes through a proxy of the environment: those are for the web, and would send the
calls between the services of a cluster astray. Deadlines and retries are the caller's.
"""

from dataclasses import dataclass

import grpc


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """What a channel takes at most, in bytes of one message; the mirror of ServerLimits."""

    send_bytes_max: int = 20 * 1024 * 1024
    receive_bytes_max: int = 64 * 1024 * 1024

    def options(self) -> tuple[tuple[str, int], ...]:
        """Return the options of the gRPC channel."""
        return (
            ("grpc.max_send_message_length", self.send_bytes_max),
            ("grpc.max_receive_message_length", self.receive_bytes_max),
            ("grpc.enable_http_proxy", 0),
            # A peer that vanished is noticed within half a minute, also while the channel is idle.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            # A service that restarts is found again soon: gRPC's own back-off goes up to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # One way to retry is enough: that of the caller, which knows what may be repeated, and in which order.
            ("grpc.enable_retries", 0),
        )


def connect(address: str, *, limits: ChannelLimits | None = None, shared: bool = True) -> grpc.aio.Channel:
    """Return an asyncio channel to host:port. Connects at the first call; close it or use it as a context.

    shared: whether channels of this process to the same address may use the same connection, as they do by default.
    """
    options = (limits or ChannelLimits()).options()
    return grpc.aio.insecure_channel(
        address, options=options if shared else (*options, ("grpc.use_local_subchannel_pool", 1))
    )


def connect_sync(address: str, *, limits: ChannelLimits | None = None) -> grpc.Channel:
    """Return a synchronous channel to host:port. Connects at the first call; close it or use it as a context."""
    return grpc.insecure_channel(address, options=(limits or ChannelLimits()).options())
