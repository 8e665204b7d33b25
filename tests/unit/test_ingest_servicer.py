"""Log, LogBatch, LogStream and Flush, without a wire: what is read of a request, and what is answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from eventlog.v1 import ingest_service_pb2 as pb

from ingest_service.metrics import IngestMetrics
from ingest_service.pending import Acknowledgement, PendingRequest
from ingest_service.servicer import REQUEST_ID_BYTES_MAX, STREAM_BATCHES_MAX, BatchLimits, IngestServicer
from ingest_service.structures import StructureLine
from shared.clock import SystemClock
from shared.columns.wire import WireCodec
from shared.errors import BufferFull, EventException, EventValidationException, FieldViolation, StorageUnavailable
from shared.events.ids import format_event_id
from shared.log.types import Nanoseconds, Position, PositionRange
from shared.rpc.drain import Drain
from shared.telemetry.metrics import Metrics
from tests.support.fake_clock import START_NS
from tests.support.log_requests import FakeContext, log_request, new_event, numbered

_LOG_ID = "TEST0001"
_PATIENCE_S = 10.0
_EVENTS_MAX = 100
_BYTES_MAX = 100_000
_THREAD = ThreadPoolExecutor(1)


class _Commit:
    """A group commit that answers as the test says; until then requests wait in `taken`."""

    def __init__(self) -> None:
        self.taken: list[PendingRequest] = []
        self.answering = True
        self.full = False
        self.last = 0
        self.room = asyncio.Event()

    def submit(self, request: PendingRequest) -> None:
        if self.full:
            raise BufferFull("full", reason="APPEND_QUEUE_FULL")
        self.taken.append(request)
        if self.answering:
            self.answer(request)

    def answer(self, request: PendingRequest, outcome: Exception | None = None) -> None:
        if outcome is not None:
            request.answer.set_exception(outcome)
            return
        first, self.last = self.last + 1, self.last + request.head.count
        positions = PositionRange(Position(first), Position(self.last))
        request.answer.set_result(Acknowledgement(positions, Nanoseconds(START_NS), request.durable))

    async def wait_for_room(self) -> None:
        await self.room.wait()

    async def flush(self) -> Position:
        if not self.answering:
            await asyncio.Event().wait()
        return Position(self.last)

    def status(self) -> Any:
        class Status:
            storage_error = StorageUnavailable("the disk is full")

        return Status


class _Service:
    """A servicer over it."""

    def __init__(self) -> None:
        self.commit = _Commit()
        self.drain = Drain()
        metrics = IngestMetrics(Metrics("ingest_service"))
        commit: Any = self.commit
        self.servicer = IngestServicer(
            commit,
            WireCodec(),
            StructureLine(WireCodec(), _THREAD),
            metrics=metrics,
            clock=SystemClock(),
            drain=self.drain,
            log_id=_LOG_ID,
            limits=BatchLimits(_EVENTS_MAX, _BYTES_MAX),
        )

    async def log(self, request: bytes, time_remaining: float | None = None) -> pb.LogResponse:
        context: Any = FakeContext(time_remaining)
        return pb.LogResponse.FromString(await self.servicer.log(request, context))

    async def log_batch(self, request: bytes, time_remaining: float | None = None) -> pb.LogBatchResponse:
        context: Any = FakeContext(time_remaining)
        return pb.LogBatchResponse.FromString(await self.servicer.log_batch(request, context))

    def log_stream(self, requests: AsyncIterator[bytes], time_remaining: float | None = None) -> AsyncIterator[bytes]:
        context: Any = FakeContext(time_remaining)
        return self.servicer.log_stream(requests, context)


@pytest.fixture
async def service() -> _Service:
    """A servicer whose group commit answers at once."""
    return _Service()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not holds():  # noqa: ASYNC110 — what is waited for sets no event
            await asyncio.sleep(0)


async def _requests(*bodies: bytes) -> AsyncIterator[bytes]:
    for body in bodies:
        yield body


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield numbered(1, 1)
        await asyncio.sleep(0)


async def test_a_batch_is_answered_with_positions_and_ids(service: _Service) -> None:
    """The answer has the first position, the count, both ids, the time and the promise."""
    service.commit.last = 6
    answer = await service.log_batch(numbered(1, 3))
    assert (answer.first_position, answer.count, answer.duplicate) == (7, 3, False)
    assert (answer.first_event_id, answer.last_event_id) == (format_event_id(_LOG_ID, 7), format_event_id(_LOG_ID, 9))
    assert answer.recorded_at.ToNanoseconds() == START_NS
    assert answer.durability == pb.DURABILITY_DURABLE


async def test_one_event_is_answered_with_its_id(service: _Service) -> None:
    """A request of Log has the numbers of a batch of one."""
    request = pb.LogRequest(event=new_event(), request_id="r", durability=pb.DURABILITY_BUFFERED)
    answer = await service.log(request.SerializeToString())
    assert (answer.event_id, answer.position) == (format_event_id(_LOG_ID, 1), 1)
    assert answer.durability == pb.DURABILITY_BUFFERED
    assert answer.recorded_at.ToNanoseconds() == START_NS
    assert service.commit.taken[0].head.request_id == "r"


@pytest.mark.parametrize(("durability", "durable"), [(None, True), (0, True), (1, True), (2, False)])
async def test_durable_is_the_default(service: _Service, durability: int | None, *, durable: bool) -> None:
    """Only BUFFERED is less."""
    await service.log_batch(numbered(1, 1, durability=durability))
    assert service.commit.taken[0].durable is durable


async def test_log_without_an_event_says_that_it_must_be_set(service: _Service) -> None:
    """The field is named as the request of Log has it."""
    with pytest.raises(EventValidationException, match=r"^event must be set") as caught:
        await service.log(b"")
    assert [violation.field for violation in caught.value.violations] == ["event"]
    assert caught.value.reason == "INVALID_FIELD"


@pytest.mark.parametrize(
    ("request_bytes", "reason", "field"),
    [
        (b"", "INVALID_FIELD", "events"),
        (numbered(1, 1, request_id="ä" * (REQUEST_ID_BYTES_MAX // 2 + 1)), "INVALID_FIELD", "request_id"),
        (numbered(1, 1) + b"\x18\x63", "INVALID_FIELD", "durability"),
        (b"\xff", "MALFORMED_REQUEST", None),
        (numbered(1, _EVENTS_MAX + 1), "BATCH_TOO_LARGE", None),
        (log_request(new_event(payload_json='{"a":"' + "x" * _BYTES_MAX + '"}')), "BATCH_TOO_LARGE", None),
    ],
)
async def test_a_wrong_request_is_refused_before_it_waits(
    service: _Service, request_bytes: bytes, reason: str, field: str | None
) -> None:
    """Its reason and field are named, and nothing is spent on it."""
    with pytest.raises(EventValidationException) as caught:
        await service.log_batch(request_bytes)
    assert caught.value.reason == reason
    assert [violation.field for violation in caught.value.violations] == ([field] if field else [])
    assert service.commit.taken == []


async def test_the_longest_request_id_is_taken(service: _Service) -> None:
    """The limit is inclusive, and counts bytes."""
    await service.log_batch(numbered(1, 1, request_id="ä" * (REQUEST_ID_BYTES_MAX // 2)))
    assert len(service.commit.taken) == 1


async def test_two_events_in_a_request_for_one_are_refused(service: _Service) -> None:
    """A repeated field is not silently half of what was meant."""
    with pytest.raises(EventValidationException, match="more than once"):
        await service.log(numbered(1, 2))


async def test_a_refused_event_is_named_as_the_request_names_it(service: _Service) -> None:
    """Log has no index; its reason and details stay."""
    service.commit.answering = False
    call = asyncio.ensure_future(service.log(numbered(1, 1)))
    await _until(lambda: bool(service.commit.taken))
    refusal = EventValidationException(
        "nothing was logged: events[0].type is bad", violations=[FieldViolation("events[0].type", "is bad")], extra=1
    )
    service.commit.answer(service.commit.taken[0], refusal)
    with pytest.raises(EventValidationException, match=r"nothing was logged: event\.type is bad") as caught:
        await call
    assert caught.value.violations == (FieldViolation("event.type", "is bad"),)
    assert (caught.value.reason, caught.value.metadata) == ("INVALID_EVENT", {"extra": "1"})


async def test_a_call_ends_before_its_deadline_with_the_reason(service: _Service) -> None:
    """It says that storage fails, and its request takes no part in a later frame."""
    service.commit.answering = False
    with pytest.raises(StorageUnavailable, match=r"the disk is full.*may still be committed"):
        await service.log_batch(numbered(1, 1), time_remaining=0.02)
    assert service.commit.taken[0].abandoned


async def test_a_call_that_is_cancelled_is_abandoned(service: _Service) -> None:
    """A client that went away is not waited for."""
    service.commit.answering = False
    call = asyncio.ensure_future(service.log_batch(numbered(1, 1)))
    await _until(lambda: bool(service.commit.taken))
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    assert service.commit.taken[0].abandoned


async def test_flush_answers_the_committed_position_or_the_reason(service: _Service) -> None:
    """A flush that cannot end in time says why."""
    context: Any = FakeContext(0.02)
    service.commit.last = 4
    assert (await service.servicer.flush(pb.FlushRequest(), context)).committed_position == 4
    service.commit.answering = False
    with pytest.raises(StorageUnavailable, match="the disk is full"):
        await service.servicer.flush(pb.FlushRequest(), context)


async def _collect(stream: AsyncIterator[bytes]) -> tuple[Sequence[int], Exception | None]:
    """First positions of the answers, and how the stream ended."""
    found = []
    try:
        async for answer in stream:
            found.append(pb.LogStreamResponse.FromString(answer).first_position)  # noqa: PERF401 — kept when it raises
    except EventException as error:
        return found, error
    return found, None


async def test_a_stream_answers_each_batch_in_order(service: _Service) -> None:
    """One answer a batch, in the order of the batches, then the end."""
    stream = service.log_stream(_requests(*(numbered(n, 2) for n in range(150))))
    assert await _collect(stream) == (list(range(1, 300, 2)), None)
    orders = {id(request.stream) for request in service.commit.taken}
    assert len(orders) == 1


async def test_a_stream_sends_without_waiting_for_answers(service: _Service) -> None:
    """Batches are pipelined, up to a stated number."""
    service.commit.answering = False
    stream = service.log_stream(_endless())
    first = asyncio.ensure_future(anext(stream))
    await _until(lambda: len(service.commit.taken) == STREAM_BATCHES_MAX + 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(service.commit.taken) == STREAM_BATCHES_MAX + 2
    service.commit.answer(service.commit.taken[0])
    assert pb.LogStreamResponse.FromString(await first).first_position == 1
    await stream.aclose()


async def test_a_wrong_batch_ends_the_stream_after_the_answers_before_it(service: _Service) -> None:
    """The sound ones are answered, nothing after it is even submitted."""
    stream = service.log_stream(_requests(numbered(1, 1), numbered(2, 1), b"", numbered(3, 1)))
    answers, error = await _collect(stream)
    assert answers == [1, 2]
    assert isinstance(error, EventValidationException)
    assert error.violations[0].field == "events"
    assert len(service.commit.taken) == 2


async def test_a_refused_batch_ends_the_stream(service: _Service) -> None:
    """What was submitted after it is abandoned, and its order is marked as failed."""
    service.commit.answering = False
    stream = service.log_stream(_requests(*(numbered(n, 1) for n in range(4))))
    collected = asyncio.ensure_future(_collect(stream))
    await _until(lambda: len(service.commit.taken) == 4)
    taken = service.commit.taken
    service.commit.answer(taken[0])
    service.commit.answer(taken[1], EventValidationException("no"))
    answers, error = await collected
    assert (answers, str(error)) == ([1], "no")
    order = taken[0].stream
    assert order is not None
    assert order.failed
    assert [request.abandoned for request in taken[2:]] == [True, True]
    assert all(request.answer.cancelled() for request in taken[2:])


async def test_a_stream_that_its_client_left_leaves_no_hole(service: _Service) -> None:
    """All that is not in a frame yet is abandoned, also a batch that waits for a place in the queue."""
    service.commit.answering = False
    stream = service.log_stream(_endless())
    first = asyncio.ensure_future(anext(stream))
    await _until(lambda: len(service.commit.taken) == STREAM_BATCHES_MAX + 2)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    await stream.aclose()
    assert all(request.stream is not None and request.stream.failed for request in service.commit.taken)
    assert all(request.answer.done() for request in service.commit.taken)


async def test_a_stream_waits_for_room(service: _Service) -> None:
    """A full buffer slows a stream down instead of ending it."""
    service.commit.full = True
    stream = service.log_stream(_requests(numbered(1, 1)))
    first = asyncio.ensure_future(anext(stream))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not first.done()
    service.commit.full = False
    service.commit.room.set()
    assert pb.LogStreamResponse.FromString(await first).first_position == 1
    assert [answer async for answer in stream] == []


async def test_a_stream_ends_before_its_deadline_with_the_reason(service: _Service) -> None:
    """A batch that is not synced in time ends it as it ends a call."""
    service.commit.answering = False
    _, error = await _collect(service.log_stream(_requests(numbered(1, 1)), time_remaining=0.02))
    assert isinstance(error, StorageUnavailable)
    assert "the disk is full" in str(error)


async def test_a_stream_ends_with_the_drain_after_its_answers(service: _Service) -> None:
    """What was sent before the shutdown is answered; then the client is told to go elsewhere."""
    sent = asyncio.Event()

    async def requests() -> AsyncIterator[bytes]:
        yield numbered(1, 1)
        sent.set()
        await asyncio.Event().wait()

    collected = asyncio.ensure_future(_collect(service.log_stream(requests())))
    await sent.wait()
    service.drain.begin()
    answers, error = await asyncio.wait_for(collected, _PATIENCE_S)
    assert answers == [1]
    assert isinstance(error, EventException)
    assert error.reason == "SERVER_DRAINING"
