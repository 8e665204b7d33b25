"""Constructs the query service from its configuration, and runs it."""

import contextlib
from contextlib import AsyncExitStack

from eventlog.v1 import query_service_pb2

from query_service.counting import COUNTS_MAX, CountCache
from query_service.database import Database
from query_service.exporters import ExportFormats
from query_service.lanes import Lane
from query_service.metrics import QueryMetrics
from query_service.reading import Engine
from query_service.servicer import QueryServicer
from shared.clock import SystemClock
from shared.columns.wire import WireCodec
from shared.config import EventConfig
from shared.log.file_system import LocalFileSystem
from shared.log.log_reader import LocalLogReader
from shared.log.names import SEGMENTS
from shared.log.segment_columns import ColumnReader
from shared.log.token_key import TokenKey
from shared.rpc.server import Server, serve_until_signalled
from shared.telemetry.metrics import Metrics

SERVICE = "query_service"


async def run(config: EventConfig) -> None:
    """Serve queries until SIGTERM, then drain. The log may appear later: until then reads say LOG_UNAVAILABLE."""
    clock = SystemClock()
    metrics = Metrics(SERVICE)
    query_metrics = QueryMetrics(metrics)
    fs = LocalFileSystem(config.storage.base_path)
    log = LocalLogReader(fs)
    counts: CountCache = CountCache(COUNTS_MAX)
    columns = ColumnReader(
        fs, log, tail_bytes_max=config.query.tail_bytes_max, use_sidecars=config.storage.index.enabled
    )
    _watch_caches(query_metrics, columns, counts)
    async with AsyncExitStack() as stack:
        stack.enter_context(contextlib.closing(columns))
        database = stack.enter_context(
            Database(fs.path(SEGMENTS), threads=config.query.threads, memory_bytes_max=config.query.database_bytes_max)
        )
        lanes = [_lane(name, config, query_metrics) for name in ("lookups", "searches")]
        for lane in lanes:
            stack.callback(lane.close)
        servicer = QueryServicer(
            log,
            Engine(database, columns),
            WireCodec(),
            clock,
            metrics=query_metrics,
            counts=counts,
            lookups=lanes[0],
            searches=lanes[1],
            formats=ExportFormats(),
            token_key=TokenKey(fs),
            slow_s=config.query.slow_query,
        )
        server = Server(
            service=SERVICE,
            listen=config.query.listen,
            metrics_listen=config.query.metrics_listen,
            metrics=metrics,
            clock=clock,
        )
        server.add_service(query_service_pb2.DESCRIPTOR.services_by_name["QueryService"], servicer)
        await stack.enter_async_context(server)
        server.set_serving("", serving=True)
        await serve_until_signalled(server, grace_s=config.query.grace)


def _lane(name: str, config: EventConfig, metrics: QueryMetrics) -> Lane:
    query = config.query
    return Lane(name, running_max=query.running_max, calls_max=query.calls_max, metrics=metrics.lane(name))


def _watch_caches(metrics: QueryMetrics, columns: ColumnReader, counts: CountCache) -> None:
    files = columns.files
    for name, cache in (
        ("footers", files.footers),
        ("sidecars", files.sidecars),
        ("verified", files.intact),
        ("tail", columns.blocks),
        ("tail_payloads", columns.payloads.cache),
        ("counts", counts),
    ):
        metrics.watch_cache(
            name,
            hits=lambda cache=cache: cache.hits,  # type: ignore[misc]
            misses=lambda cache=cache: cache.misses,  # type: ignore[misc]
            weight=lambda cache=cache: cache.weight,  # type: ignore[misc]
        )
