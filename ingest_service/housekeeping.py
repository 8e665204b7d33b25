"""What the ingest service does beside appending: seal rotated segments, mend sidecars, forget old request ids.

The directory is the list of what is to be done: a .log file that is not appended to any more waits to
be sealed. Nothing here stands in the way of an append; what fails is counted, logged and
tried again.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial

from ingest_service.metrics import IngestMetrics
from ingest_service.sealing_process import seal_in_process
from shared.clock import Clock
from shared.config import StorageConfig
from shared.log.committed_position import read_committed
from shared.log.file_system import LocalFileSystem
from shared.log.frame import FrameDamaged
from shared.log.names import QUARANTINE, SEGMENTS, list_segments, parse_requests_name
from shared.log.request_file import newest_recorded_at
from shared.log.sealing import SealOrder, SealReport
from shared.log.sidecars import rebuild_sidecars
from shared.log.types import Position

_POLL_S = 0.5
_RETRY_S = 5.0
# A process starts in half a second, which it takes to seal a few small segments; so it gets several, but ends
# again, whatever its libraries have kept of the memory.
_ORDERS_MAX = 16
# Sealing yields to the services that answer requests, until more segments than this wait for it.
_NICENESS = 10
_BACKLOG_CALM = 1
# With so many it compresses less, two fifths less time for a tenth more bytes: see decision 0005.
_BACKLOG_HURRY = 4
_NANOS = 1_000_000_000

_log = logging.getLogger(__name__)


class Housekeeping:
    """Runs beside the appends until it is cancelled."""

    def __init__(
        self,
        fs: LocalFileSystem,
        clock: Clock,
        metrics: IngestMetrics,
        storage: StorageConfig,
        *,
        maintenance: Executor,
        log_id: str,
        request_id_horizon_s: float,
        request_ids_max: int,
    ) -> None:
        """maintenance: the thread of the log's administration; two at once would write the same temporary files."""
        self._fs = fs
        self._clock = clock
        self._metrics = metrics
        self._storage = storage
        self._maintenance = maintenance
        self._log_id = log_id
        self._horizon_s = request_id_horizon_s
        self._request_ids_max = request_ids_max
        self._next_mend_s = clock.monotonic_s()
        # First positions of the segments that could not be sealed: the others are not to wait for them.
        self._failed: set[int] = set()

    async def run(self) -> None:
        """Look after the directory for ever."""
        while True:
            try:
                wait_s = await self._seal_waiting()
                await self._tidy()
            except Exception:  # noqa: BLE001 — whatever it is, the appends go on
                wait_s = _RETRY_S
                _log.exception("housekeeping failed; trying again")
            await asyncio.sleep(wait_s)

    async def _seal_waiting(self) -> float:
        """Seal the oldest segments that have not failed in this round. Returns the seconds until the next look."""
        orders = [order for order in self._seal_orders() if order.first not in self._failed]
        if not orders:
            self._failed.clear()
            return _POLL_S
        niceness = _NICENESS if len(orders) <= _BACKLOG_CALM else 0
        failed = len(self._failed)
        async with aclosing(seal_in_process(orders[:_ORDERS_MAX], niceness=niceness)) as reports:
            async for report in reports:
                self._note(report)
                await self._tidy()
        return _RETRY_S if len(self._failed) > failed else 0.0

    async def _tidy(self) -> None:
        if self._storage.index.enabled and self._clock.monotonic_s() >= self._next_mend_s:
            self._next_mend_s = self._clock.monotonic_s() + self._storage.index.rebuild_interval
            mend = partial(rebuild_sidecars, self._fs, only_missing=True)
            await asyncio.get_running_loop().run_in_executor(self._maintenance, mend)
        await asyncio.to_thread(self._forget_requests)
        await asyncio.to_thread(self._measure)

    def _seal_orders(self) -> list[SealOrder]:
        retention = self._storage.retention
        rotated = list(self._rotated())
        return [
            SealOrder(
                base_path=str(self._storage.base_path),
                log_id=self._log_id,
                first=first,
                until=until,
                retention_default_s=round(retention.default),
                retention_by_type_s={pattern: round(seconds) for pattern, seconds in retention.by_type.items()},
                promoted_paths=list(self._storage.promoted_paths),
                compress=self._storage.rotation.compress,
                write_index=self._storage.index.enabled,
                request_ids_max=self._request_ids_max,
                hurry=len(rotated) >= _BACKLOG_HURRY,
            )
            for first, until in rotated
        ]

    def _rotated(self) -> Iterator[tuple[Position, Position]]:
        """First position of each segment that is not appended to any more, and the first after it."""
        # Asked before the listing: what is not active then never will be again.
        committed = read_committed(self._fs)
        segments = list_segments(self._fs.list(SEGMENTS))
        for segment, following in itertools.zip_longest(segments, segments[1:]):
            if segment.log is None:
                continue
            if following is not None:
                yield segment.first, following.first
            elif committed is not None and segment.first < committed.active_first:
                # After a restart the next append begins another segment, right there.
                yield segment.first, committed.active_first

    def _note(self, report: SealReport) -> None:
        if report.problem:
            self._failed.add(report.first)
            self._metrics.sealing_failures.inc()
            _log.error("cannot seal a segment", extra={"first_position": report.first, "problem": report.problem})
            return
        self._metrics.sealed_segments.inc()
        self._metrics.sealing_seconds.observe(report.seconds)
        _log.info("sealed a segment", extra={"first_position": report.first, "seconds": round(report.seconds, 3)})

    def _forget_requests(self) -> None:
        """Remove request id files that lie wholly beyond the horizon."""
        oldest_ns = self._clock.now_ns() - round(self._horizon_s * _NANOS)
        for name in self._fs.list(SEGMENTS):
            # A damaged file stays until somebody has looked at it: VerifyLog reports it.
            with contextlib.suppress(FrameDamaged):
                if parse_requests_name(name) is not None and newest_recorded_at(self._fs, name) < oldest_ns:
                    self._fs.remove(name)

    def _measure(self) -> None:
        segments = list_segments(self._fs.list(SEGMENTS))
        unsealed = sum(segment.log is not None for segment in segments[:-1])
        sealed = sum(segment.is_sealed for segment in segments)
        for state, count in (("active", len(segments) - unsealed - sealed), ("rotated", unsealed), ("sealed", sealed)):
            self._metrics.segments.labels(state).set(count)
        self._metrics.disk_bytes.set(self._fs.total_bytes(SEGMENTS))
        self._metrics.free_bytes.set(self._fs.free_bytes())
        self._metrics.quarantined_files.set(len(self._fs.list(QUARANTINE)))
