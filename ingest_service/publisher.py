"""Pushes committed frames to the stream service, without ever holding up an append.

    appending thread --offer--> [waiting frames] --event loop--> stream service

The stream service may be slow, down or gone: frames wait up to WAITING_BYTES_MAX, then all that wait are dropped
and only their last position is sent. It sees by the positions what it missed, and reads that from history.

Invariants: offer does not block and raises nothing; frames go out in the order of their positions, each at most
once; a request says up to which position everything was sent or dropped. What waits while there is no connection
is dropped too: history gives it in larger pieces.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ingest_service.metrics import IngestMetrics
from shared.clock import Clock
from shared.errors import EventException
from shared.log.frame import EncodedFrame
from shared.log.types import Position

WAITING_BYTES_MAX = 32 * 1024 * 1024
REQUEST_BYTES_MAX = 1024 * 1024
# How long nothing is sent before a request without a frame shows that we live, and up to where the log goes.
IDLE_S_MAX = 1.0
ANSWER_S_MAX = 10.0
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 2.0

_log = logging.getLogger(__name__)


class PublishStream(Protocol):
    """A connection to the stream service."""

    async def send(self, frames: bytes, passed_position: int, *, timeout_s: float) -> int:
        """Send whole frames, or none, and return what is known there. Raises EventException.

        passed_position: everything up to it was sent or will not be.
        """


Connect = Callable[[], AbstractAsyncContextManager[PublishStream]]


class Publisher:
    """Sends frames to the stream service. offer may be called from any thread; the rest belongs to the event loop."""

    def __init__(self, connect: Connect, clock: Clock, metrics: IngestMetrics, *, last_position: Position) -> None:
        self._connect = connect
        self._clock = clock
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._offered: deque[EncodedFrame] = deque()
        self._waiting: deque[EncodedFrame] = deque()
        self._bytes = 0
        self._passed = last_position
        self._woken = asyncio.Event()
        self._wake_scheduled = False

    def offer(self, frame: EncodedFrame) -> None:
        """Take a committed frame. Frames come in order, from one thread at a time."""
        self._offered.append(frame)
        if not self._wake_scheduled:
            self._wake_scheduled = True
            self._loop.call_soon_threadsafe(self._collect)

    async def run(self) -> None:
        """Send until cancelled."""
        failures = 0
        while True:
            began_s = self._clock.monotonic_s()
            try:
                async with self._connect() as stream:
                    await self._send_all(stream)
            except EventException as error:
                self._metrics.publish_failures.inc()
                if self._clock.monotonic_s() - began_s > _RETRY_MAX_S:
                    failures = 0
                if failures == 0:
                    _log.warning("cannot publish to the stream service; it reads history", extra={"error": str(error)})
                failures += 1
            await asyncio.sleep(min(_RETRY_FIRST_S * 2 ** min(failures, 10), _RETRY_MAX_S))

    def _collect(self) -> None:
        """Move what was offered to what waits, and keep it bounded."""
        # First: what is offered from here on schedules another run.
        self._wake_scheduled = False
        while self._offered:
            frame = self._offered.popleft()
            self._waiting.append(frame)
            self._bytes += frame.header.length
        if self._bytes > WAITING_BYTES_MAX:
            self._drop_waiting()
        self._woken.set()

    def _drop_waiting(self) -> None:
        self._metrics.unpublished_frames.inc(len(self._waiting))
        self._passed = self._waiting[-1].header.positions.last
        self._waiting.clear()
        self._bytes = 0

    async def _send_all(self, stream: PublishStream) -> None:
        if self._waiting:
            self._drop_waiting()
        while True:
            await stream.send(self._take(), self._passed, timeout_s=ANSWER_S_MAX)
            self._woken.clear()
            if not self._waiting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S_MAX):
                        await self._woken.wait()

    def _take(self) -> bytes:
        """The frames of the next request."""
        pieces: list[bytes] = []
        size = 0
        while self._waiting and (not size or size + self._waiting[0].header.length <= REQUEST_BYTES_MAX):
            frame = self._waiting.popleft()
            pieces += frame.pieces
            size += frame.header.length
            self._passed = frame.header.positions.last
        self._bytes -= size
        return b"".join(pieces)
