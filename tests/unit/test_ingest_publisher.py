"""Publishing committed frames: order, bounds, and what becomes of them while the stream service is away."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from ingest_service import publisher as module
from ingest_service.metrics import IngestMetrics
from ingest_service.publisher import Publisher
from shared.clock import SystemClock
from shared.errors import EventException
from shared.log.frame import EncodedFrame, FrameHeader
from shared.telemetry.metrics import Metrics

TIMEOUT_S = 10


class StreamService:
    """Takes what is published, unless it is down, and holds an answer back while it is slow."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, int]] = []
        self.connections = 0
        self.down = False
        self.answering = asyncio.Event()
        self.answering.set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def connect(self):
        """One connection."""
        self.connections += 1
        self._changed.set()
        yield self

    async def send(self, frames: bytes, passed_position: int, *, timeout_s: float) -> int:
        """Take frames."""
        if self.down:
            raise EventException("down")
        self.sent.append((frames, passed_position))
        self._changed.set()
        async with asyncio.timeout(timeout_s):
            await self.answering.wait()
        return passed_position

    async def until(self, holds) -> None:
        """Wait for a condition on what was taken."""
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


def frame(first: int, count: int = 1, size: int = 10) -> EncodedFrame:
    """A frame, as far as a publisher looks at it."""
    header = FrameHeader(first, count, size, 0, size, 0, 0)
    return EncodedFrame(header, (b"H%d" % first, b"B" * size))


@pytest.fixture
async def service():
    """A stream service that takes everything."""
    return StreamService()


@pytest.fixture
async def publisher(service):
    """A publisher of a log of ten events, running."""
    publisher = Publisher(service.connect, SystemClock(), IngestMetrics(Metrics("test")), last_position=10)
    task = asyncio.create_task(publisher.run())
    yield publisher
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_first_request_says_where_the_log_ends(publisher, service):
    """A new connection begins with a request without frames that passes what is committed already."""
    await service.until(lambda: service.sent)
    assert service.sent[0] == (b"", 10)


async def test_frames_go_out_in_order_and_joined(publisher, service):
    """Frames that wait while an answer is outstanding go out together, in order, in the next request."""
    service.answering.clear()
    await service.until(lambda: service.sent)
    for first in (11, 12, 13):
        publisher.offer(frame(first))
    await asyncio.sleep(0)
    service.answering.set()
    await service.until(lambda: len(service.sent) > 1)
    frames, passed = service.sent[1]
    assert frames == b"".join(b"H%d" % first + b"B" * 10 for first in (11, 12, 13))
    assert passed == 13


async def test_what_does_not_fit_is_dropped_and_passed(publisher, service, monkeypatch):
    """More than may wait is dropped as a whole; the next request passes it without sending it."""
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", 200)
    service.answering.clear()
    await service.until(lambda: service.sent)
    for first in range(11, 21):
        publisher.offer(frame(first))
    await asyncio.sleep(0)
    service.answering.set()
    await service.until(lambda: len(service.sent) > 1)
    assert service.sent[1] == (b"", 20)
    publisher.offer(frame(21))
    await service.until(lambda: service.sent[-1][1] == 21)
    assert service.sent[-1][0].startswith(b"H21")


async def test_frames_of_the_time_without_connection_are_left_to_history(publisher, service):
    """While the stream service is down offering goes on; the next connection passes what was offered meanwhile."""
    await service.until(lambda: service.sent)
    service.down = True
    publisher.offer(frame(11))
    await service.until(lambda: service.connections > 1)
    publisher.offer(frame(12))
    await asyncio.sleep(0)
    service.down = False
    await service.until(lambda: service.sent[-1][1] == 12)
    assert all(not frames for frames, _ in service.sent)


async def test_offering_from_a_thread_never_waits(publisher, service):
    """A thread may offer any number of frames while the event loop does something else."""
    service.answering.clear()
    await asyncio.to_thread(lambda: [publisher.offer(frame(first)) for first in range(11, 1011)])
    service.answering.set()
    await service.until(lambda: service.sent and service.sent[-1][1] == 1010)
