"""Logs prepared requests over several connections at once."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import grpc.aio
from eventlog.v1 import ingest_service_pb2, ingest_service_pb2_grpc

from shared.rpc.channel import ChannelLimits

CONNECTIONS = 4
_CALLS_IN_FLIGHT = 4
_TIMEOUT_S = 30.0
# Without this, channels of one process to one address share a connection.
_OPTIONS = (*ChannelLimits().options(), ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A request and what the log answered."""

    request: ingest_service_pb2.LogBatchRequest
    answer: ingest_service_pb2.LogBatchResponse


async def log_all(
    address: str, requests: list[ingest_service_pb2.LogBatchRequest], on_progress: Callable[[int], None]
) -> tuple[list[Acknowledged], float]:
    """Log every request, and return the answers with the seconds that it took, connecting not included.

    on_progress: called with the number of events acknowledged by each answer.
    Raises grpc.RpcError where a request is refused.
    """
    acknowledged: list[Acknowledged] = []
    waiting = iter(requests)
    channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(CONNECTIONS)]
    try:
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for channel in channels:
                stub = ingest_service_pb2_grpc.IngestServiceStub(channel)
                for _ in range(_CALLS_IN_FLIGHT):
                    tasks.create_task(_log(stub, waiting, acknowledged, on_progress))
        return acknowledged, time.perf_counter() - started
    finally:
        for channel in channels:
            await channel.close()


async def _log(
    stub: "ingest_service_pb2_grpc.IngestServiceAsyncStub",
    waiting: Iterator[ingest_service_pb2.LogBatchRequest],
    acknowledged: list[Acknowledged],
    on_progress: Callable[[int], None],
) -> None:
    for request in waiting:
        answer = await stub.LogBatch(request, timeout=_TIMEOUT_S)
        acknowledged.append(Acknowledged(request, answer))
        on_progress(answer.count)
