"""The process that seals: real ones, on real directories."""

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path

import pytest

from ingest_service import sealing_process
from ingest_service.sealing_process import seal_in_process
from shared.log.file_system import LocalFileSystem
from shared.log.log_reader import LocalLogReader
from shared.log.names import SEALING_LOCK, SEGMENTS, list_segments, log_name
from shared.log.sealing import SealOrder
from shared.log.types import Position
from tests.support.builders import LOG_ID, numbered_frame, open_writer
from tests.support.log_reading import read_events

_PATIENCE_S = 60


class _Log:
    """Rotated segments of 10 events each, and an active one."""

    def __init__(self, path: Path, segments: int) -> None:
        self.path = path
        self.fs = LocalFileSystem(path)
        writer = open_writer(self.fs)
        for number in range(segments + 1):
            writer.append(numbered_frame(1 + 10 * number, 10))
            if number < segments:
                writer.rotate()
        writer.close()

    def orders(self) -> list[SealOrder]:
        segments = list_segments(self.fs.list(SEGMENTS))
        return [
            SealOrder(
                base_path=str(self.path),
                log_id=LOG_ID,
                first=each.first,
                until=each.first + 10,
                retention_default_s=1,
                retention_by_type_s={},
                promoted_paths=[],
                compress=True,
                write_index=True,
            )
            for each in segments[:-1]
        ]

    async def seal(self) -> list[tuple[int, str]]:
        async with asyncio.timeout(_PATIENCE_S):
            return [(each.first, each.problem) async for each in seal_in_process(self.orders(), niceness=0)]

    def positions(self) -> list[int]:
        batches = read_events(LocalLogReader(self.fs))
        return [position for batch in batches for position in batch.column("position").to_pylist()]


async def test_one_process_seals_several_segments(tmp_path: Path) -> None:
    """Each is reported, in order, and nothing is lost."""
    log = _Log(tmp_path, 3)
    assert await log.seal() == [(1, ""), (11, ""), (21, "")]
    assert [each.is_sealed for each in list_segments(log.fs.list(SEGMENTS))] == [True, True, True, False]
    assert log.positions() == list(range(1, 41))


async def test_a_segment_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    """What is wrong with it is reported, the ones behind it are sealed."""
    log = _Log(tmp_path, 3)
    # A directory stands where the sealed file is to be written.
    log.fs.path(f"{SEGMENTS}/{11:020d}-{20:020d}.default.parquet.tmp").mkdir()
    (first, second, third) = await log.seal()
    assert (first, third) == ((1, ""), (21, ""))
    assert second[0] == 11
    assert "Error" in second[1]
    assert log.positions() == list(range(1, 41))


async def test_a_process_that_cannot_begin_reports_its_first_order(tmp_path: Path) -> None:
    """As where another one, which a killed service left, is still at it."""
    log = _Log(tmp_path, 2)
    lock = log.fs.lock(SEALING_LOCK)
    ((first, problem),) = await log.seal()
    assert first == 1
    assert "BlockingIOError" in problem
    lock.release()
    assert await log.seal() == [(1, ""), (11, "")]


async def test_a_process_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is reported as not done, and stays to be done again."""
    log = _Log(tmp_path, 2)
    monkeypatch.setattr(sealing_process, "SEGMENT_S_MAX", 0.0)
    assert await log.seal() == [(1, "not done after 0 seconds")]
    assert log_name(Position(1)) in log.fs.list(SEGMENTS)
    monkeypatch.undo()
    assert await log.seal() == [(1, ""), (11, "")]


async def test_a_process_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its exit code, where it has said nothing."""
    log = _Log(tmp_path, 1)
    start = asyncio.create_subprocess_exec

    async def start_and_kill(*arguments: str, **options: int) -> asyncio.subprocess.Process:
        process = await start(*arguments, **options)
        os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_kill)
    assert await log.seal() == [(1, "exit code -9")]


async def test_nothing_is_left_where_nobody_waits_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends with the service."""
    log = _Log(tmp_path, 3)
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def start_and_note(*arguments: str, **options: int) -> asyncio.subprocess.Process:
        started.append(await start(*arguments, **options))
        return started[0]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_note)
    async with asyncio.timeout(_PATIENCE_S), aclosing(seal_in_process(log.orders(), niceness=0)) as reports:
        async for report in reports:
            assert report.first == 1
            break
    assert started[0].returncode is not None
    assert log.positions() == list(range(1, 41))
