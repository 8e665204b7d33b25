"""Constructs the ingest service from its configuration, and runs it."""

import asyncio
import logging
import socket
from collections.abc import Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from importlib.metadata import version

from eventlog.v1 import ingest_service_pb2, log_admin_service_pb2

from ingest_service.admin_servicer import LogAdminServicer
from ingest_service.commit_queue import GroupCommitLimits
from ingest_service.damage_register import DamageRegister
from ingest_service.enrichment import Enricher
from ingest_service.frame_builder import FrameBuilder
from ingest_service.group_commit import GroupCommit
from ingest_service.housekeeping import Housekeeping
from ingest_service.metrics import IngestMetrics
from ingest_service.publisher import Publisher
from ingest_service.request_memory import RequestMemory, load_requests
from ingest_service.servicer import BatchLimits, IngestServicer
from ingest_service.structures import StructureLine
from shared.clock import Clock, SystemClock
from shared.columns.wire import WireCodec
from shared.config import EventConfig
from shared.events.ids import new_log_id
from shared.log.file_system import LocalFileSystem
from shared.log.log_reader import LocalLogReader
from shared.log.log_writer import LocalLogWriter, RotationLimits
from shared.log.recovery import Recovered
from shared.rpc.publish_channel import publish_call
from shared.rpc.server import Server, serve_until_signalled
from shared.telemetry.metrics import Metrics

SERVICE = "ingest_service"

_log = logging.getLogger(__name__)


async def run(config: EventConfig, clock: Clock | None = None) -> None:
    """Recover the log and serve until SIGTERM; then drain, sync and give the log back. clock: None for the system's."""
    clock = clock or SystemClock()
    metrics = Metrics(SERVICE)
    ingest_metrics = IngestMetrics(metrics)
    fs = LocalFileSystem(config.storage.base_path)
    codec = WireCodec()
    async with AsyncExitStack() as stack:
        server = Server(
            service=SERVICE,
            listen=config.ingest.listen,
            metrics_listen=config.ingest.metrics_listen,
            metrics=metrics,
            clock=clock,
        )
        writer = await asyncio.to_thread(_open_writer, fs, clock, config)
        stack.callback(writer.close)
        _report(writer.recovered, ingest_metrics)
        damage = DamageRegister(ingest_metrics)
        damage.add(writer.recovered.damage)
        memory = await asyncio.to_thread(_load_memory, fs, writer.recovered, config, clock)
        builder = _builder(config, codec, memory, clock, writer)
        publisher = _publisher(config, clock, ingest_metrics, writer)
        commit = _commit(config, clock, ingest_metrics, writer, builder, publisher=publisher)
        commit.start()
        # After the drain of the server, what was accepted is committed.
        stack.push_async_callback(asyncio.to_thread, commit.stop, config.ingest.grace)
        servicer = IngestServicer(
            commit,
            codec,
            StructureLine(codec, _thread(stack, "structures")),
            metrics=ingest_metrics,
            clock=clock,
            drain=server.drain,
            log_id=writer.log_id,
            limits=BatchLimits(config.ingest.batch_events_max, config.ingest.batch_bytes_max),
        )
        maintenance = _thread(stack, "maintenance")
        admin = LogAdminServicer(
            commit,
            writer,
            LocalLogReader(fs),
            fs,
            maintenance=maintenance,
            damage=damage,
            config=config,
        )
        server.add_service(ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"], servicer)
        server.add_service(log_admin_service_pb2.DESCRIPTOR.services_by_name["LogAdminService"], admin)
        await stack.enter_async_context(server)
        beside = [_housekeeping(config, clock, ingest_metrics, fs, writer, maintenance=maintenance).run()]
        if publisher:
            beside.append(publisher.run())
        await _serve(server, beside, grace_s=config.ingest.grace)


async def _serve(server: Server, beside: Sequence[Coroutine[None, None, None]], *, grace_s: float) -> None:
    """Serve until a signal, with what runs beside that until then."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each) for each in beside]
        server.set_serving("", serving=True)
        await serve_until_signalled(server, grace_s=grace_s)
        for task in running:
            task.cancel()


def _thread(stack: AsyncExitStack, name: str) -> Executor:
    """A thread that does one thing at a time, until the stack is left; what it has not begun by then is not done."""
    thread = ThreadPoolExecutor(1, thread_name_prefix=name)
    stack.callback(thread.shutdown, wait=False, cancel_futures=True)
    return thread


def _open_writer(fs: LocalFileSystem, clock: Clock, config: EventConfig) -> LocalLogWriter:
    rotation = config.storage.rotation
    return LocalLogWriter(
        fs,
        clock,
        limits=RotationLimits(
            bytes_max=rotation.max_size,
            raw_bytes_max=rotation.max_raw_size,
            age_max_s=rotation.max_age,
            events_max=rotation.max_events,
        ),
        free_bytes_min=config.storage.min_free_bytes,
        new_log_id=new_log_id(),
    )


def _publisher(config: EventConfig, clock: Clock, metrics: IngestMetrics, writer: LocalLogWriter) -> Publisher | None:
    address = config.ingest.publish_to
    if not address:
        return None
    return Publisher(lambda: publish_call(address, writer.log_id), clock, metrics, last_position=writer.last_position)


def _commit(
    config: EventConfig,
    clock: Clock,
    metrics: IngestMetrics,
    writer: LocalLogWriter,
    builder: FrameBuilder,
    *,
    publisher: Publisher | None,
) -> GroupCommit:
    metrics.buffered_bytes_max.set(config.ingest.buffered_bytes_max)
    metrics.committed_position.set(writer.last_position)
    return GroupCommit(
        writer,
        builder,
        clock,
        metrics,
        GroupCommitLimits(config.ingest.frame_bytes_max, config.ingest.buffered_bytes_max),
        loop=asyncio.get_running_loop(),
        on_committed=publisher.offer if publisher else None,
    )


def _housekeeping(
    config: EventConfig,
    clock: Clock,
    metrics: IngestMetrics,
    fs: LocalFileSystem,
    writer: LocalLogWriter,
    *,
    maintenance: Executor,
) -> Housekeeping:
    return Housekeeping(
        fs,
        clock,
        metrics,
        config.storage,
        maintenance=maintenance,
        log_id=writer.log_id,
        request_id_horizon_s=config.ingest.request_id_horizon,
        request_ids_max=config.ingest.request_ids_max,
    )


def _load_memory(fs: LocalFileSystem, recovered: Recovered, config: EventConfig, clock: Clock) -> RequestMemory:
    memory = RequestMemory(requests_max=config.ingest.request_ids_max, horizon_s=config.ingest.request_id_horizon)
    load_requests(memory, fs, recovered, now_s=clock.monotonic_s())
    return memory


def _builder(
    config: EventConfig, codec: WireCodec, memory: RequestMemory, clock: Clock, writer: LocalLogWriter
) -> FrameBuilder:
    enricher = Enricher(
        codec,
        host=config.ingest.host or socket.gethostname(),
        version=config.ingest.version or version("eventlog"),
    )
    return FrameBuilder(
        enricher,
        memory,
        clock,
        last_position=writer.last_position,
        recorded_at=writer.recovered.last_recorded_at,
    )


def _report(recovered: Recovered, metrics: IngestMetrics) -> None:
    metrics.recovered_torn_bytes.set(recovered.torn_bytes)
    if recovered.torn_bytes:
        _log.warning(
            "cut a torn tail; the unacknowledged bytes are in quarantine",
            extra={"torn_bytes": recovered.torn_bytes, "files": recovered.quarantined},
        )
    for damage in recovered.damage:
        _log.error(
            "committed positions are damaged",
            extra={
                "first_position": damage.positions.first,
                "last_position": damage.positions.last,
                "file": damage.file,
                "problem": damage.problem,
            },
        )
    _log.info("recovered the log", extra={"log_id": recovered.log_id, "last_position": recovered.last_position})
