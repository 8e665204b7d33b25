"""IngestService over gRPC: bytes in, acknowledgements out. Holds no rules of its own.

Requests stay bytes: all that is read of one here is its head.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from eventlog.v1 import ingest_service_pb2 as pb

from ingest_service.group_commit import GroupCommit
from ingest_service.metrics import IngestMetrics
from ingest_service.pending import Acknowledgement, PendingRequest, StreamOrder
from ingest_service.refusals import draining, unavailable
from ingest_service.structures import StructureLine
from shared.clock import Clock
from shared.columns.wire import WireCodec
from shared.errors import BufferFull, EventValidationException, FieldViolation
from shared.events.ids import format_event_id
from shared.log.types import Nanoseconds
from shared.rpc.call import Context
from shared.rpc.drain import Drain
from shared.rpc.service import raw_request, raw_response

REQUEST_ID_BYTES_MAX = 128
# A stream reads on while this many of its batches wait; then it waits too, and so does the sender.
STREAM_BATCHES_MAX = 64
# The answer must reach the client before its deadline does.
_DEADLINE_MARGIN_S = 0.1
_WAIT_MAX_S = 60.0
_DURABILITIES = frozenset(pb.Durability.values())
# Field and description where a request holds nothing to log.
_NO_EVENT = ("event", "must be set: send the event to log")
_NO_EVENTS = ("events", "is empty: send at least one event")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one request may hold."""

    events_max: int
    bytes_max: int


class IngestServicer:
    """Logs events."""

    def __init__(
        self,
        commit: GroupCommit,
        codec: WireCodec,
        structures: StructureLine,
        *,
        metrics: IngestMetrics,
        clock: Clock,
        drain: Drain,
        log_id: str,
        limits: BatchLimits,
    ) -> None:
        self._commit = commit
        self._codec = codec
        self._structures = structures
        self._metrics = metrics
        self._clock = clock
        self._drain = drain
        self._log_id = log_id
        self._limits = limits

    @raw_request
    @raw_response
    async def log(self, request: bytes, context: Context) -> bytes:
        """Log one event. The request's bytes are those of a batch of one."""
        pending = self._pending(request, when_empty=_NO_EVENT)
        if pending.head.count > 1:
            raise _invalid("event", "is given more than once: send one, or use LogBatch")
        try:
            ack = await self._acknowledged(pending, context)
        except EventValidationException as error:
            raise _about_one_event(error) from None
        answer = pb.LogResponse(
            event_id=format_event_id(self._log_id, ack.positions.first),
            position=ack.positions.first,
            durability=_durability(ack),
            duplicate=ack.duplicate,
        )
        answer.recorded_at.FromNanoseconds(ack.recorded_at)
        return answer.SerializeToString()

    @raw_request
    @raw_response
    async def log_batch(self, request: bytes, context: Context) -> bytes:
        """Log a batch, whole or not at all."""
        return self._batch_answer(await self._acknowledged(self._pending(request), context))

    @raw_request
    @raw_response
    async def log_stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Log batches as they come; answer each, in order."""
        order = StreamOrder()
        waiting: asyncio.Queue[PendingRequest | Exception | None] = asyncio.Queue(STREAM_BATCHES_MAX)
        reader = asyncio.ensure_future(self._read_stream(requests, order, waiting))
        try:
            while (pending := await waiting.get()) is not None:
                if isinstance(pending, Exception):
                    raise pending
                yield self._batch_answer(await self._streamed(pending, context))
        finally:
            # First, and for all of them at once: what is logged of a stream has no hole where some were abandoned.
            order.failed = True
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            while not waiting.empty():
                _abandon(waiting.get_nowait())

    async def flush(self, request: pb.FlushRequest, context: Context) -> pb.FlushResponse:
        """Wait until everything accepted so far is synced."""
        del request
        try:
            position = await asyncio.wait_for(self._commit.flush(), _patience_s(context))
        except TimeoutError:
            raise unavailable(self._commit.status().storage_error) from None
        return pb.FlushResponse(committed_position=position)

    async def _read_stream(
        self,
        requests: AsyncIterator[bytes],
        order: StreamOrder,
        waiting: "asyncio.Queue[PendingRequest | Exception | None]",
    ) -> None:
        try:
            async for request in self._drain.until_begun(requests):
                pending = self._pending(request)
                pending.stream = order
                if pending.head.structures:
                    pending.body = await self._structures.replace(pending.body, patient=True)
                await self._submit_when_room(pending)
                try:
                    await waiting.put(pending)
                except asyncio.CancelledError:
                    _abandon(pending)
                    raise
        except Exception as error:  # noqa: BLE001 — the stream answers what came before, then ends with it
            await waiting.put(error)
        else:
            await waiting.put(draining() if self._drain.begun else None)

    async def _submit_when_room(self, pending: PendingRequest) -> None:
        while True:
            try:
                return self._commit.submit(pending)
            except BufferFull:
                await self._commit.wait_for_room()

    async def _streamed(self, pending: PendingRequest, context: Context) -> Acknowledgement:
        # A stream without a deadline waits as long as it takes.
        patience_s = None if context.time_remaining() is None else _patience_s(context)
        try:
            ack = await asyncio.wait_for(pending.answer, patience_s)
        except TimeoutError:
            raise unavailable(self._commit.status().storage_error) from None
        self._observe(pending)
        return ack

    async def _acknowledged(self, pending: PendingRequest, context: Context) -> Acknowledgement:
        if pending.head.structures:
            pending.body = await self._structures.replace(pending.body, patient=False)
        self._commit.submit(pending)
        # Cheaper than wait_for, which makes a task's worth of objects for each call.
        expiry = asyncio.get_running_loop().call_later(_patience_s(context), self._expire, pending)
        try:
            ack = await pending.answer
        finally:
            expiry.cancel()
            pending.abandoned = True
        self._observe(pending)
        return ack

    def _observe(self, acknowledged: PendingRequest) -> None:
        self._metrics.acknowledge_seconds.observe(self._clock.monotonic_s() - acknowledged.received_s)

    def _expire(self, pending: PendingRequest) -> None:
        if not pending.answer.done():
            pending.answer.set_exception(unavailable(self._commit.status().storage_error))

    def _pending(self, request: bytes, *, when_empty: tuple[str, str] = _NO_EVENTS) -> PendingRequest:
        # Bytes first: counting the events of a large request takes the loop's time.
        if len(request) > self._limits.bytes_max:
            raise self._too_large(f"{len(request)} bytes")
        head = self._codec.read_head(request)
        if head.count > self._limits.events_max:
            raise self._too_large(f"{head.count} events")
        if head.count == 0:
            raise _invalid(*when_empty)
        if len(head.request_id.encode()) > REQUEST_ID_BYTES_MAX:
            raise _invalid("request_id", f"is longer than {REQUEST_ID_BYTES_MAX} bytes")
        if head.durability not in _DURABILITIES:
            raise _invalid("durability", f"has the unknown value {head.durability}")
        durable = head.durability != pb.DURABILITY_BUFFERED
        answer = asyncio.get_running_loop().create_future()
        return PendingRequest(request, head, durable, answer, received_s=self._clock.monotonic_s())

    def _too_large(self, size: str) -> EventValidationException:
        return EventValidationException(
            f"the request holds {size}; at most {self._limits.events_max} events in {self._limits.bytes_max} bytes "
            "may be logged together: send several batches",
            reason="BATCH_TOO_LARGE",
        )

    def _batch_answer(self, ack: Acknowledgement) -> bytes:
        answer = pb.LogBatchResponse(
            first_position=ack.positions.first,
            count=ack.positions.count,
            first_event_id=format_event_id(self._log_id, ack.positions.first),
            last_event_id=format_event_id(self._log_id, ack.positions.last),
            durability=_durability(ack),
            duplicate=ack.duplicate,
        )
        answer.recorded_at.FromNanoseconds(Nanoseconds(ack.recorded_at))
        return answer.SerializeToString()


def _durability(ack: Acknowledgement) -> "pb.Durability.ValueType":
    return pb.DURABILITY_DURABLE if ack.durable else pb.DURABILITY_BUFFERED


def _patience_s(context: Context) -> float:
    remaining = context.time_remaining()
    if remaining is None:
        return _WAIT_MAX_S
    return max(remaining - _DEADLINE_MARGIN_S, remaining / 2)


def _invalid(field: str, description: str) -> EventValidationException:
    return EventValidationException(
        f"{field} {description}", violations=[FieldViolation(field, description)], reason="INVALID_FIELD"
    )


def _about_one_event(error: EventValidationException) -> EventValidationException:
    """The same error, naming the field as the request of Log does."""
    violations = [FieldViolation(v.field.replace("events[0]", "event", 1), v.description) for v in error.violations]
    message = str(error).replace("events[0]", "event", 1)
    return EventValidationException(message, violations=violations, reason=error.reason, **error.metadata)


def _abandon(pending: PendingRequest | Exception | None) -> None:
    if isinstance(pending, PendingRequest):
        pending.abandoned = True
        # Nobody asks for this answer any more; that is not an error of the loop's.
        pending.answer.cancel()
