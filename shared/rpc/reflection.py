"""Server reflection, so that grpcurl and its like can list, describe and call without the protos.

Served under its two names, v1alpha and v1, whose messages are the same on the wire.
Invariant: a reflection stream that a client keeps open ends when the service drains.
"""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any, cast

from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from shared.rpc.call import Context
from shared.rpc.drain import Drain

DESCRIPTOR = cast("ServiceDescriptor", reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"])
NAMES = (DESCRIPTOR.full_name, "grpc.reflection.v1.ServerReflection")


class ReflectionServicer:
    """Describes the services given, from the descriptors that are loaded into the process."""

    def __init__(self, services: Sequence[str], drain: Drain) -> None:
        self._reflection = reflection.aio.ReflectionServicer(services)
        self._drain = drain

    async def server_reflection_info(
        self, requests: AsyncIterable[reflection_pb2.ServerReflectionRequest], context: Context
    ) -> AsyncIterator[Any]:
        """Answer each request: lists of services, files of descriptors."""
        until_drain = self._drain.until_begun(requests)
        answers = cast("AsyncIterable[Any]", self._reflection.ServerReflectionInfo(until_drain, context))
        async for response in answers:
            yield response
