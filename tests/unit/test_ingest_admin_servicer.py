"""LogAdminService without a wire: status, segments, verification that mends, and what it does on a bad disk."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from eventlog.v1 import log_admin_service_pb2 as pb

from ingest_service.admin_servicer import LogAdminServicer
from ingest_service.commit_queue import CommitStatus
from ingest_service.damage_register import DamageRegister
from ingest_service.metrics import IngestMetrics
from shared.clock import SystemClock
from shared.config import EventConfig
from shared.errors import EventException, StorageUnavailable
from shared.log.file_system import LocalFileSystem
from shared.log.log_reader import LocalLogReader
from shared.log.names import QUARANTINE, SEGMENTS, log_name
from shared.log.sealing import SealOrder, seal_segment
from shared.log.types import Position
from shared.telemetry.metrics import Metrics
from tests.support.builders import LOG_ID, numbered_frame, open_writer
from tests.support.log_requests import FakeContext

_context: Any = FakeContext()


class _Commit:
    """What the servicer asks of a group commit."""

    def __init__(self) -> None:
        self.storage_error: StorageUnavailable | None = None

    def status(self) -> CommitStatus:
        return CommitStatus(Position(12), Position(15), 77, self.storage_error)

    async def run_between_frames(self, command: Callable[[], Any]) -> Any:
        return command()


class _Service:
    """An admin service over segments of one frame of three events: 1 and 4 are sealed, 7 is rotated, 10 active."""

    def __init__(self, path: Path) -> None:
        self.fs = LocalFileSystem(path)
        self.writer = open_writer(self.fs, SystemClock())
        for first in (1, 4, 7, 10):
            self.writer.append(numbered_frame(first, 3))
            if first < 10:
                self.writer.rotate()
        for first in (1, 4):
            seal_segment(self.fs, self._order(first))
        self.commit = _Commit()
        self.maintenance = ThreadPoolExecutor(1)
        self.metrics = IngestMetrics(Metrics("ingest_service"))
        commit: Any = self.commit
        self.servicer = LogAdminServicer(
            commit,
            self.writer,
            LocalLogReader(self.fs),
            self.fs,
            maintenance=self.maintenance,
            damage=DamageRegister(self.metrics),
            config=EventConfig(),
        )

    def _order(self, first: int) -> SealOrder:
        return SealOrder(
            base_path="",
            log_id=LOG_ID,
            first=first,
            until=first + 3,
            retention_default_s=1,
            retention_by_type_s={},
            promoted_paths=[],
            compress=True,
            write_index=True,
        )

    async def verify(self, **fields: Any) -> list[pb.VerifyLogResponse]:
        return [each async for each in self.servicer.verify_log(pb.VerifyLogRequest(**fields), _context)]

    async def status(self) -> pb.GetLogStatusResponse:
        return await self.servicer.get_log_status(pb.GetLogStatusRequest(), _context)

    def parquet(self, first: int) -> str:
        return f"{SEGMENTS}/{first:020d}-{first + 2:020d}.default.parquet"

    def flip(self, name: str) -> None:
        data = bytearray(self.fs.read(name))
        data[100] ^= 1
        self.fs.path(name).write_bytes(data)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[_Service]:
    """The service of these tests."""
    made = await asyncio.to_thread(_Service, tmp_path)
    yield made
    made.maintenance.shutdown()
    made.writer.close()


def _ranges(damage: Any) -> list[tuple[int, int]]:
    return [(each.first_position, each.last_position) for each in damage]


async def test_long_work_is_done_in_turn_and_keeps_nobody_from_the_status(service: _Service) -> None:
    """While verifications and rebuilds wait for each other, GetLogStatus and ListSegments answer."""
    opened = threading.Event()
    service.maintenance.submit(opened.wait, 60)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        rebuilds = [
            group.create_task(service.servicer.rebuild_index(pb.RebuildIndexRequest(), _context)) for _ in range(20)
        ]
        verifications = [group.create_task(service.verify()) for _ in range(20)]
        status = await service.status()
        listed = await service.servicer.list_segments(pb.ListSegmentsRequest(), _context)
        assert not any(task.done() for task in (*rebuilds, *verifications))
        opened.set()
    assert status.committed_position == 12
    assert len(listed.segments) == 4
    assert {task.result().rebuilt_sidecars for task in rebuilds} == {2}
    assert {task.result()[-1].verified_events for task in verifications} == {12}


async def test_the_status_tells_positions_segments_and_storage(service: _Service) -> None:
    """What an operator looks at first."""
    status = await service.status()
    assert (status.log_id, status.first_position) == (LOG_ID, 1)
    assert (status.committed_position, status.last_position, status.buffered_bytes) == (12, 15, 77)
    assert (status.sealed_segments, status.unsealed_segments) == (2, 1)
    assert status.storage_state == pb.STORAGE_STATE_HEALTHY
    assert status.disk_bytes > 0
    service.commit.storage_error = StorageUnavailable("no room", storage="full")
    assert (await service.status()).storage_state == pb.STORAGE_STATE_FULL
    service.commit.storage_error = StorageUnavailable("broken")
    status = await service.status()
    assert (status.storage_state, status.storage_error) == (pb.STORAGE_STATE_FAILING, "broken")


@pytest.mark.parametrize("page_size", [0, 1, 2, 3, 4])
async def test_segments_are_listed_by_pages(service: _Service, page_size: int) -> None:
    """Each once, in order, with its state."""
    found: list[tuple[int, int, int]] = []
    token = ""
    while True:
        request = pb.ListSegmentsRequest(page_size=page_size, page_token=token)
        page = await service.servicer.list_segments(request, _context)
        found += [(each.first_position, each.last_position, each.state) for each in page.segments]
        token = page.next_page_token
        if not token:
            break
    assert found == [
        (1, 3, pb.SEGMENT_STATE_SEALED),
        (4, 6, pb.SEGMENT_STATE_SEALED),
        (7, 9, pb.SEGMENT_STATE_ROTATED),
        (10, 12, pb.SEGMENT_STATE_ACTIVE),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"), [({"page_size": -1}, "INVALID_FIELD"), ({"page_token": "x"}, "INVALID_PAGE_TOKEN")]
)
async def test_a_wrong_listing_is_refused(service: _Service, fields: dict[str, Any], reason: str) -> None:
    """By the field that is wrong."""
    with pytest.raises(EventException) as caught:
        await service.servicer.list_segments(pb.ListSegmentsRequest(**fields), _context)
    assert caught.value.reason == reason


async def test_rotation_tells_where_the_active_segment_begins(service: _Service) -> None:
    """An empty one is not rotated again."""
    first = await service.servicer.rotate_log(pb.RotateLogRequest(), _context)
    again = await service.servicer.rotate_log(pb.RotateLogRequest(), _context)
    assert [(each.rotated, each.active_first_position) for each in (first, again)] == [(True, 13), (False, 13)]


async def test_verification_goes_segment_by_segment_and_sums_up(service: _Service) -> None:
    """Progress for each, then all of it."""
    messages = await service.verify()
    assert [each.verified_events for each in messages] == [3, 6, 9, 12, 12]
    assert [each.done for each in messages] == [False] * 4 + [True]
    assert [each.segment.first_position for each in messages[:-1]] == [1, 4, 7, 10]
    assert not any(each.damage for each in messages)


@pytest.mark.parametrize(("first", "until", "segments"), [(4, 0, [4, 7, 10]), (0, 4, [1]), (5, 8, [4, 7]), (13, 0, [])])
async def test_a_range_is_verified_by_its_segments(
    service: _Service, first: int, until: int, segments: list[int]
) -> None:
    """Those that hold a position of it."""
    messages = await service.verify(from_position=first, until_position=until)
    assert [each.segment.first_position for each in messages[:-1]] == segments


async def test_verification_mends_what_it_can(service: _Service) -> None:
    """A flipped bit is reported once, repaired on disk, and the damaged file kept."""
    whole = service.fs.read(service.parquet(4))
    service.flip(service.parquet(4))
    messages = await service.verify()
    assert _ranges(messages[1].damage) == _ranges(messages[-1].damage) == [(4, 3)]
    assert messages[-1].verified_events == 12
    assert service.fs.read(service.parquet(4)) == whole
    assert len(service.fs.list(QUARANTINE)) == 1
    assert not (await service.verify())[-1].damage


async def test_damage_is_told_where_the_disk_takes_no_repair(
    service: _Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A read-only disk does not hide what is wrong with it."""

    def refuse(_: str) -> Any:
        raise OSError(30, "Read-only file system")

    service.flip(service.parquet(4))
    monkeypatch.setattr(service.fs, "create", refuse)
    assert _ranges((await service.verify())[-1].damage) == [(4, 3)]
    assert "cannot mend a segment" in caplog.text


async def test_what_is_lost_is_reported_and_stays_known(service: _Service) -> None:
    """A frame beyond repair and a segment that is nowhere: in the answer, in the status, in the metric."""
    service.flip(log_name(Position(7)))
    for name in service.fs.list(SEGMENTS):
        if f"/{4:020d}-" in name:
            service.fs.remove(name)
    summary = (await service.verify())[-1]
    assert sorted(_ranges(summary.damage)) == [(4, 6), (7, 9)]
    assert summary.verified_events == 6
    assert _ranges((await service.status()).damage) == [(4, 6), (7, 9)]
    assert service.metrics.damaged_positions._value.get() == 6
    await service.verify()
    assert service.metrics.damaged_positions._value.get() == 6


async def test_indexes_are_rebuilt(service: _Service) -> None:
    """All of them, or only those that are missing."""
    answer = await service.servicer.rebuild_index(pb.RebuildIndexRequest(), _context)
    assert (answer.rebuilt_sidecars, answer.kept_sidecars) == (2, 0)
    service.fs.remove(service.parquet(1).replace(".parquet", ".idx"))
    answer = await service.servicer.rebuild_index(pb.RebuildIndexRequest(only_missing=True), _context)
    assert (answer.rebuilt_sidecars, answer.kept_sidecars, list(answer.damage)) == (1, 1, [])
