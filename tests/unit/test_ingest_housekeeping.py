"""What is done beside the appends: one failure holds up nothing else, and nothing ends the service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest_service import housekeeping
from ingest_service.housekeeping import Housekeeping
from ingest_service.metrics import IngestMetrics
from shared.config import IndexConfig, StorageConfig
from shared.log.file_system import LocalFileSystem
from shared.log.log_writer import LocalLogWriter
from shared.log.names import SEGMENTS, log_name, requests_name
from shared.log.recovery import RememberedRequest
from shared.log.request_file import write_request_file
from shared.log.sealing import SealOrder, SealReport
from shared.log.types import Nanoseconds, Position, PositionRange
from shared.telemetry.metrics import Metrics
from tests.support.builders import LOG_ID, numbered_frame, open_writer
from tests.support.fake_clock import START_NS, FakeClock

_HORIZON_S = 60


class _House:
    """Housekeeping of a log of segments of one event each, the last one active."""

    def __init__(self, path: Path, *, segments: int = 4, indexed: bool = True) -> None:
        self.fs = LocalFileSystem(path)
        self.clock = FakeClock()
        self.writer: LocalLogWriter = open_writer(self.fs, self.clock)
        for first in range(1, segments + 1):
            if first > 1:
                self.writer.rotate()
            self.writer.append(numbered_frame(first, 1))
        self.metrics = IngestMetrics(Metrics("ingest_service"))
        self.maintenance = ThreadPoolExecutor(1)
        self.keeper = Housekeeping(
            self.fs,
            self.clock,
            self.metrics,
            StorageConfig(base_path=path, index=IndexConfig(enabled=indexed)),
            maintenance=self.maintenance,
            log_id=LOG_ID,
            request_id_horizon_s=_HORIZON_S,
            request_ids_max=1000,
        )
        self.tried: list[int] = []
        self.failing: set[int] = set()
        # First positions and niceness of each process, and whether it was to hurry.
        self.processes: list[tuple[list[int], int, bool]] = []

    def append_segments(self, count: int) -> None:
        """Rotate, and begin so many segments more."""
        for _ in range(count):
            self.writer.rotate()
            self.writer.append(numbered_frame(self.writer.last_position + 1, 1))

    async def seal(self, orders: Sequence[SealOrder], *, niceness: int) -> AsyncIterator[SealReport]:
        """Stands for the process that seals: the .log is gone, unless it fails."""
        self.processes.append(([order.first for order in orders], niceness, orders[0].hurry))
        for order in orders:
            self.tried.append(order.first)
            if order.first in self.failing:
                yield SealReport(order.first, 0.0, "no")
                continue
            self.fs.rename(
                f"{SEGMENTS}/{order.first:020d}.log",
                f"{SEGMENTS}/{order.first:020d}-{order.until - 1:020d}.default.parquet",
            )
            yield SealReport(order.first, 0.1, "")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_House]:
    """Housekeeping that never waits, and seals without a process."""
    made = _House(tmp_path)
    monkeypatch.setattr(housekeeping, "seal_in_process", made.seal)
    monkeypatch.setattr(housekeeping, "_POLL_S", 0)
    monkeypatch.setattr(housekeeping, "_RETRY_S", 0)
    monkeypatch.setattr(housekeeping, "rebuild_sidecars", lambda *_, **__: None)
    yield made
    made.writer.close()
    made.maintenance.shutdown()


async def _run_until(keeper: Housekeeping, holds: Callable[[], bool]) -> None:
    running = asyncio.ensure_future(keeper.run())
    async with asyncio.timeout(10):
        while not (holds() or running.done()):  # noqa: ASYNC110 — what is waited for sets no event
            await asyncio.sleep(0.001)
    assert not running.done()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_rotated_segments_are_sealed_oldest_first(house: _House) -> None:
    """The active one is left alone."""
    await _run_until(house.keeper, lambda: len(house.tried) == 3)
    assert house.tried == [1, 2, 3]


async def test_one_process_seals_what_waits(house: _House) -> None:
    """It yields to others while little waits, and hurries where much does; a process gets so many orders at most."""
    house.append_segments(14)
    await _run_until(house.keeper, lambda: len(house.tried) == 17)
    assert house.processes == [(list(range(1, 17)), 0, True), ([17], 10, False)]
    house.append_segments(2)
    await _run_until(house.keeper, lambda: len(house.tried) == 19)
    assert house.processes[2:] == [([18, 19], 0, False)]


async def test_the_last_segment_is_sealed_after_a_restart(house: _House) -> None:
    """The next append begins another one, so nothing is to be waited for; an empty one stays."""
    house.writer.close()
    house.writer = open_writer(house.fs, house.clock)
    await _run_until(house.keeper, lambda: len(house.tried) == 4)
    assert house.tried == [1, 2, 3, 4]
    house.writer.append(numbered_frame(5, 1))
    house.writer.rotate()
    house.writer.close()
    house.writer = open_writer(house.fs, house.clock)
    await _run_until(house.keeper, lambda: len(house.tried) == 5)
    assert [each for each in house.fs.list(SEGMENTS) if each.endswith(".log")] == [log_name(Position(6))]


async def test_a_segment_that_cannot_be_sealed_holds_up_no_other(house: _House) -> None:
    """It is tried again after the others."""
    house.failing = {1}
    await _run_until(house.keeper, lambda: house.tried.count(1) >= 3)
    assert house.tried[:3] == [1, 2, 3]
    assert house.tried.count(2) == house.tried.count(3) == 1


async def test_an_unexpected_error_is_logged_and_does_not_end_it(
    house: _House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Appends go on, whatever housekeeping meets."""
    errors: list[Exception] = [ValueError("a bug"), OSError("a disk")]

    def measure() -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(house.keeper, "_measure", measure)
    await _run_until(house.keeper, lambda: len(house.tried) == 3 and not errors)
    assert caplog.text.count("housekeeping failed") == 2


async def test_segments_are_counted_by_state(house: _House) -> None:
    """Active, rotated and sealed."""
    await _run_until(house.keeper, lambda: len(house.tried) >= 2)
    house.keeper._measure()
    assert house.metrics.segments.labels("active")._value.get() == 1
    sealed = house.metrics.segments.labels("sealed")._value.get()
    assert sealed + house.metrics.segments.labels("rotated")._value.get() == 3
    assert sealed >= 2


@pytest.mark.parametrize("indexed", [True, False])
async def test_old_request_ids_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, indexed: bool) -> None:
    """Beyond the horizon, whether or not there are indexes; a damaged file stays for VerifyLog to report."""
    house = await asyncio.to_thread(_House, tmp_path, segments=1, indexed=indexed)
    monkeypatch.setattr(housekeeping, "_POLL_S", 0)
    ages_s = {1: _HORIZON_S + 1, 2: _HORIZON_S, 3: 0}
    for first, age_s in ages_s.items():
        recorded_at = Nanoseconds(START_NS - age_s * 1_000_000_000)
        positions = PositionRange(Position(first), Position(first))
        write_request_file(house.fs, positions, [RememberedRequest("r", Position(first), 1, recorded_at)])
    damaged = requests_name(PositionRange(Position(9), Position(9)))
    house.fs.path(damaged).write_bytes(b"not what it was")
    gone = requests_name(PositionRange(Position(1), Position(1)))
    await _run_until(house.keeper, lambda: gone not in house.fs.list(SEGMENTS))
    left = [name for name in house.fs.list(SEGMENTS) if name.endswith(".requests")]
    assert left == [requests_name(PositionRange(Position(n), Position(n))) for n in (2, 3, 9)]
    house.writer.close()
