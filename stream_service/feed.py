"""From published frames to the ring: in order, without a gap, whatever was lost on the way.

    Publish ──take──▶ arrivals ──pump──▶ blocks ──▶ hub
                                   └── gap: history

Frames beyond a gap wait until history has filled it. A gap wider than GAP_EVENTS_MAX is left out: subscribers read it
for themselves, as they do what is old. While nobody publishes, the query service is asked where the log ends, and all
that is new is a gap.

Invariants: the ring grows in the order of positions, each position once; what arrives is bounded in bytes: who
publishes waits. Nothing is decoded while nobody subscribes.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Protocol

import pyarrow as pa

from shared.clock import Clock
from shared.errors import EventException, EventValidationException, FieldViolation
from shared.log.frame import FrameDamaged
from shared.log.types import Position
from stream_service.arrivals import Arrivals
from stream_service.block import Block, Forms
from stream_service.hub import Hub
from stream_service.published_frames import PublishedFrame, split_frames
from stream_service.stream_metrics import StreamMetrics

GAP_EVENTS_MAX = 200_000
BLOCK_EVENTS_MAX = 4_096
# Between two rounds of messages, for each subscriber, and for each distinct filter: keeps them at some thousands of
# messages a second in all, beyond which more messages would only be smaller ones.
ROUND_S_PER_SUBSCRIBER = 0.0002
ROUND_S_PER_FILTER = 0.0002
ROUND_S_MAX = 0.1
# How often the query service is asked, while nobody publishes, where the log ends.
POLL_S = 1.0
READY_S_MAX = 5.0
FILL_S_MAX = 5.0
SILENCE_S_MAX = 3.0
# Where decoding would hold up the event loop for longer than handing it to a thread costs.
_THREAD_FRAME_BYTES = 100_000

_log = logging.getLogger(__name__)


class Log(Protocol):
    """The log as the query service tells of it."""

    async def end(self) -> tuple[Position, str]:
        """The position behind the last that is committed; the log's id, "" if unknown. Raises EventException."""

    def read(self, from_position: int, until_position: int) -> AsyncGenerator[pa.RecordBatch, None]:
        """The events of a range (EVENT_SCHEMA), in order. Raises EventException."""


class EventCodec(Protocol):
    """Makes columns of frames, and bytes of columns."""

    def decode(self, frame: bytes) -> pa.RecordBatch:
        """The events of a frame, with their positions (EVENT_SCHEMA). Raises FrameDamaged."""

    def forms(self, log_id: str) -> Forms:
        """The forms of a log's events."""


class Feed:
    """Fills the ring. take and wait_ready belong to the event loop that runs it."""

    def __init__(self, hub: Hub, log: Log, clock: Clock, codec: EventCodec, metrics: StreamMetrics) -> None:
        self._hub = hub
        self._log = log
        self._clock = clock
        self._codec = codec
        self._metrics = metrics
        self._forms: Forms | None = None
        self._log_id = ""
        self._arrivals = Arrivals()
        # The position behind the last that is known to be committed.
        self.end = Position(1)
        self._filling = False
        self._ready = asyncio.Event()
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._heard_s = float("-inf")

    async def wait_ready(self) -> None:
        """Return when it is known where the log ends. Raises EventException (DEPENDENCY_UNAVAILABLE)."""
        try:
            async with asyncio.timeout(READY_S_MAX):
                await self._ready.wait()
        except TimeoutError:
            raise EventException(
                "neither the ingest nor the query service has said yet where the log ends: try again when one is up",
                reason="DEPENDENCY_UNAVAILABLE",
            ) from None

    async def take(self, frames: bytes, log_id: str, passed_position: int) -> int:
        """Take published frames; waits for room. Returns the last position known to be committed.

        Raises EventValidationException where they are no frames, or of another log than those before.
        """
        self._identify(log_id)
        self._heard_s = self._clock.monotonic_s()
        received = split_frames(frames, self._heard_s)
        while self._arrivals.is_full:
            self._room.clear()
            await self._room.wait()
        if not self._ready.is_set():
            first = received[0].header.first_position if received else Position(passed_position + 1)
            self._begin(first)
        for frame in received:
            self._metrics.received(frame.header.recorded_at)
            self._arrivals.place(frame, filling=self._filling)
            self._note_end(Position(frame.header.positions.last + 1))
        self._note_end(Position(passed_position + 1))
        self._work.set()
        return self.end - 1

    async def run(self) -> None:
        """Pump until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll())
            while True:
                await self._work.wait()
                self._work.clear()
                await self._pump()

    def _identify(self, log_id: str) -> None:
        if self._log_id and log_id != self._log_id:
            raise EventValidationException(
                f"this service follows the log {self._log_id}, and {log_id} is published to it: restart it, or "
                "correct ingest.publish_to",
                violations=[FieldViolation("log_id", "is that of another log")],
                reason="INVALID_FIELD",
            )
        self._log_id = log_id
        self._forms = self._forms or self._codec.forms(log_id)

    def _begin(self, first: Position) -> None:
        self._arrivals.next = self.end = first
        self._hub.restart(first)
        self._ready.set()

    def _note_end(self, end: Position) -> None:
        self.end = max(self.end, end)

    async def _poll(self) -> None:
        """Ask where the log ends, as long as nobody says so."""
        while True:
            if self._clock.monotonic_s() - self._heard_s > SILENCE_S_MAX:
                with suppress(EventException):
                    end, log_id = await self._log.end()
                    if log_id:
                        self._identify(log_id)
                    if not self._ready.is_set():
                        self._begin(end)
                    self._note_end(end)
                    self._work.set()
            await asyncio.sleep(POLL_S)

    async def _pump(self) -> None:
        while True:
            if self._arrivals:
                await self._publish_arrivals()
            elif self._arrivals.next < self.end:
                await self._fill_gap()
            else:
                return
            self._arrivals.close_up()
            await asyncio.sleep(self._round_s())

    def _round_s(self) -> float:
        round_s = self._hub.members * ROUND_S_PER_SUBSCRIBER + self._hub.filters * ROUND_S_PER_FILTER
        return min(round_s, ROUND_S_MAX)

    async def _publish_arrivals(self) -> None:
        """Make one round of what came since the last."""
        frames = self._arrivals.take(BLOCK_EVENTS_MAX)
        self._room.set()
        if not self._hub.members:
            self._hub.restart(Position(frames[-1].header.positions.last + 1))
            return
        try:
            if sum(len(frame.data) for frame in frames) > _THREAD_FRAME_BYTES:
                blocks = await asyncio.to_thread(self._blocks, frames)
            else:
                blocks = self._blocks(frames)
        except FrameDamaged:
            _log.exception("a published frame is damaged; subscribers read history instead")
            self._hub.restart(Position(frames[-1].header.positions.last + 1))
            return
        for block in blocks:
            self._hub.append(block)

    def _blocks(self, frames: list[PublishedFrame]) -> list[Block]:
        first = expected = self._hub.ring.end
        batches = []
        for frame in frames:
            # History, or another connection, may have given some of it already.
            batches.append(self._codec.decode(frame.data).slice(expected - frame.header.first_position))
            expected = Position(frame.header.positions.last + 1)
        events = batches[0] if len(batches) == 1 else concatenated(batches)
        return self._cut(events, first, received_s=frames[0].received_s)

    def _cut(self, events: pa.RecordBatch, first: Position, *, received_s: float | None = None) -> list[Block]:
        """Consecutive events as blocks, their bytes made."""
        assert self._forms is not None
        blocks = []
        for start in range(0, events.num_rows, BLOCK_EVENTS_MAX):
            part = events.slice(start, BLOCK_EVENTS_MAX)
            until = Position(int(part.column("position")[-1].as_py()) + 1)
            block = Block(first, until, part, self._forms, received_s)
            block.encoded()
            blocks.append(block)
            first = until
        return blocks

    async def _fill_gap(self) -> None:
        """Read from history what is missing before those ahead, or before the end."""
        until = self._arrivals.gap_until or self.end
        if not self._hub.members or self._forms is None or until - self._arrivals.next > GAP_EVENTS_MAX:
            self._go_on_at(until)
            return
        self._filling = True
        try:
            async with asyncio.timeout(FILL_S_MAX):
                await self._read_gap(until)
        except (EventException, TimeoutError) as error:
            self._metrics.gaps.inc()
            _log.warning("cannot fill a gap; subscribers read history instead", extra={"error": str(error)})
        finally:
            self._filling = False
        if self._arrivals.next < until:
            self._go_on_at(until)

    async def _read_gap(self, until: Position) -> None:
        async with aclosing(self._log.read(self._arrivals.next, until)) as batches:
            async for events in batches:
                for block in self._cut(events, self._hub.ring.end):
                    self._hub.append(block)
                self._arrivals.next = self._hub.ring.end

    def _go_on_at(self, position: Position) -> None:
        self._hub.restart(position)
        self._arrivals.next = position


def concatenated(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema as one."""
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch
