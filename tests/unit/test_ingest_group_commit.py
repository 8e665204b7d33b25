"""The two threads between the event loop and the disk: in order, durable, whatever fails."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from ingest_service.commit_queue import GroupCommitLimits
from ingest_service.enrichment import Enricher
from ingest_service.frame_builder import Built, FrameBuilder
from ingest_service.group_commit import GroupCommit
from ingest_service.metrics import IngestMetrics
from ingest_service.pending import Acknowledgement, PendingRequest, StreamOrder
from ingest_service.request_memory import RequestMemory
from shared.clock import SystemClock
from shared.columns.wire import WireCodec
from shared.errors import BufferFull, EventException, StorageUnavailable
from shared.log.frame import EncodedFrame
from shared.telemetry.metrics import Metrics
from tests.support.builders import open_writer, read_all
from tests.support.log_requests import log_request, new_event, numbered, pending
from tests.support.memory_file_system import MemoryFileSystem

_PATIENCE_S = 20.0
_WRONG = log_request(new_event(type=""))


class _Pipeline:
    """A group commit on a disk in memory."""

    def __init__(self, buffered_bytes_max: int = 1 << 20) -> None:
        clock = SystemClock()
        self.fs = MemoryFileSystem()
        self.writer = open_writer(self.fs, clock)
        self.builder = FrameBuilder(
            Enricher(WireCodec(), host="h", version="v"),
            RequestMemory(requests_max=1000, horizon_s=10**6),
            clock,
            last_position=self.writer.last_position,
            recorded_at=self.writer.recovered.last_recorded_at,
        )
        self.commit = GroupCommit(
            self.writer,
            self.builder,
            clock,
            IngestMetrics(Metrics("ingest_service")),
            GroupCommitLimits(frame_bytes_max=1 << 16, buffered_bytes_max=buffered_bytes_max),
            loop=asyncio.get_running_loop(),
        )

    def submit(self, body: bytes, *, durable: bool = True, stream: StreamOrder | None = None) -> PendingRequest:
        """Submit a request whose answer belongs to this loop."""
        request = pending(body, durable=durable, stream=stream, answer=asyncio.get_running_loop().create_future())
        self.commit.submit(request)
        return request

    async def log(self, body: bytes, *, durable: bool = True) -> Acknowledgement:
        """Submit and wait."""
        return await _answer(self.submit(body, durable=durable))

    async def stop(self, grace_s: float = 10.0) -> None:
        """Stop off the loop, as the service does."""
        await asyncio.to_thread(self.commit.stop, grace_s)

    def payloads(self) -> list[str]:
        """What a reader finds, at gap-free positions."""
        contents = read_all(self.fs)
        assert contents.damaged == []
        assert list(contents.events) == list(range(1, len(contents.events) + 1))
        return list(contents.events.values())


class _Gate:
    """Holds every append until it is opened."""

    def __init__(self, pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = threading.Event()
        self.waiting = threading.Event()
        append = pipeline.writer.append

        def gated(frame: EncodedFrame) -> None:
            self.waiting.set()
            assert self._open.wait(_PATIENCE_S)
            append(frame)

        monkeypatch.setattr(pipeline.writer, "append", gated)

    def open(self) -> None:
        """Let everything pass from now on."""
        self._open.set()


async def _answer(request: PendingRequest) -> Acknowledgement:
    return await asyncio.wait_for(asyncio.shield(request.answer), _PATIENCE_S)


async def _until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + _PATIENCE_S
    while not (holds() or time.monotonic() > give_up_s):  # noqa: ASYNC110 — threads set no event of the loop
        await asyncio.sleep(0.002)
    assert holds()


@pytest.fixture
async def pipeline() -> AsyncIterator[_Pipeline]:
    """A started group commit. At its end nothing may wait, nor be charged."""
    made = _Pipeline()
    made.commit.start()
    yield made
    made.fs.heal()
    await made.stop()
    made.writer.close()
    assert made.commit.status().buffered_bytes == 0
    assert not any(thread.is_alive() for thread in made.commit._threads)


def _prepared(pipeline: _Pipeline) -> bool:
    return pipeline.commit._queue.last_position_of(pipeline.commit._queue.taken()) is not None


async def test_a_durable_acknowledgement_comes_after_the_sync(pipeline: _Pipeline) -> None:
    """What was acknowledged is there after the loss of all that was not synced."""
    acks = [await pipeline.log(numbered(n, 2)) for n in (1, 3, 5)]
    assert [(ack.positions.first, ack.positions.last) for ack in acks] == [(1, 2), (3, 4), (5, 6)]
    assert all(ack.durable for ack in acks)
    after = pipeline.fs.crash("nothing")
    open_writer(after).close()
    assert len(read_all(after).events) == 6


async def test_requests_that_wait_together_share_frames(pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one frame is synced, small requests gather for the next; their order is that of their submission."""
    gate = _Gate(pipeline, monkeypatch)
    requests = [pipeline.submit(numbered(n, 1)) for n in range(1, 30)]
    await _until(gate.waiting.is_set)
    gate.open()
    acks = [await _answer(request) for request in requests]
    assert [ack.positions.first for ack in acks] == list(range(1, 30))
    assert len({ack.recorded_at for ack in acks}) < 10
    assert pipeline.payloads() == [f'{{"n":{n}}}' for n in range(1, 30)]


async def test_a_wrong_request_is_refused_beside_sound_ones(pipeline: _Pipeline) -> None:
    """Its neighbours in the frame are acknowledged."""
    requests = [pipeline.submit(body) for body in (numbered(1, 1), _WRONG, numbered(2, 1))]
    assert [(await _answer(requests[at])).positions.first for at in (0, 2)] == [1, 2]
    with pytest.raises(EventException, match=r"events\[0\].type"):
        await _answer(requests[1])


@pytest.mark.parametrize("mode", ["full", "read_only"])
async def test_while_storage_fails_buffered_is_acknowledged_and_durable_waits(pipeline: _Pipeline, mode: Any) -> None:
    """The disk comes back, and so do the acknowledgements, without a restart and in order."""
    await pipeline.log(numbered(1, 1))
    pipeline.fs.mode = mode
    durable = pipeline.submit(numbered(2, 1))
    await _until(lambda: pipeline.commit.status().storage_error is not None)
    for number in range(3, 8):
        ack = await pipeline.log(numbered(number, 1), durable=False)
        assert (ack.positions.first, ack.durable) == (number, False)
    status = pipeline.commit.status()
    assert (status.committed_position, status.last_position) == (1, 7)
    assert status.buffered_bytes > 0
    assert not durable.answer.done()
    pipeline.fs.heal()
    assert (await _answer(durable)).positions.first == 2
    assert (await pipeline.log(numbered(8, 1))).durable
    assert pipeline.commit.status().storage_error is None
    assert pipeline.payloads() == [f'{{"n":{n}}}' for n in range(1, 9)]


@pytest.mark.parametrize("operation", ["append", "sync", "create", "rename", "sync_directory", "free_bytes"])
async def test_one_failed_operation_delays_an_acknowledgement_only(pipeline: _Pipeline, operation: str) -> None:
    """Whichever step of an append fails, the events are logged once, by a later try."""
    pipeline.fs.fail_next(operation, part=0.5)
    for number in range(1, 4):
        await pipeline.log(numbered(number, 1, request_id=f"r{number}"))
    assert pipeline.payloads() == [f'{{"n":{n}}}' for n in range(1, 4)]


async def test_a_full_buffer_refuses_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue behind a slow disk and a buffer before a failing one are different reasons; both empty again."""
    pipeline = _Pipeline(buffered_bytes_max=4_000)
    gate = _Gate(pipeline, monkeypatch)
    pipeline.commit.start()
    requests = [pipeline.submit(numbered(1, 1))]
    with pytest.raises(BufferFull) as slow:
        requests += [pipeline.submit(numbered(n, 1)) for n in range(2, 20)]
    assert slow.value.reason == "APPEND_QUEUE_FULL"
    gate.open()
    await pipeline.commit.flush()
    assert pipeline.commit.status().buffered_bytes == 0
    pipeline.fs.mode = "full"
    first = pipeline.submit(numbered(1, 1), durable=False)
    await _until(lambda: pipeline.commit.status().storage_error is not None)
    with pytest.raises(BufferFull) as failing:
        [pipeline.submit(numbered(n, 1), durable=False) for n in range(2, 20)]
    assert failing.value.reason == "BUFFER_FULL"
    assert "fails" in str(failing.value)
    pipeline.fs.heal()
    await _answer(first)
    await pipeline.commit.flush()
    await pipeline.log(numbered(1, 1))
    await pipeline.stop()
    pipeline.writer.close()
    assert pipeline.commit.status().buffered_bytes == 0


async def test_a_request_larger_than_the_buffer_is_taken_where_nothing_waits() -> None:
    """Otherwise it could never be logged."""
    pipeline = _Pipeline(buffered_bytes_max=100)
    pipeline.commit.start()
    assert (await pipeline.log(numbered(1, 100))).positions.last == 100
    await pipeline.stop()
    pipeline.writer.close()


async def test_a_repeat_of_what_is_not_synced_yet_waits_for_it(
    pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A durable repeat is acknowledged with the first, a buffered one at once, from memory."""
    gate = _Gate(pipeline, monkeypatch)
    first = pipeline.submit(numbered(1, 2, request_id="a"))
    await _until(gate.waiting.is_set)
    pipeline.fs.fail_next("sync")
    gate.open()
    await _until(lambda: pipeline.commit.status().storage_error is not None or first.answer.done())
    await _answer(first)
    assert (await pipeline.log(numbered(1, 2, request_id="a"), durable=False)).durable


async def test_repeats_wait_and_are_charged_while_storage_fails(pipeline: _Pipeline) -> None:
    """They are few bytes each, answered with the first, and forgotten once nobody waits for them."""
    pipeline.fs.mode = "full"
    first = pipeline.submit(numbered(1, 2, request_id="a"))
    await _until(lambda: pipeline.commit.status().storage_error is not None and _prepared(pipeline))
    alone = pipeline.commit.status().buffered_bytes
    repeats = [pipeline.submit(numbered(1, 2, request_id="a")) for _ in range(3)]
    buffered = await pipeline.log(numbered(1, 2, request_id="a"), durable=False)
    assert (buffered.positions.first, buffered.durable, buffered.duplicate) == (1, False, True)
    await _until(lambda: _prepared(pipeline))
    assert not any(request.answer.done() for request in [first, *repeats])
    charged = pipeline.commit.status().buffered_bytes - alone
    assert 0 < charged < 3 * 1024
    repeats[0].abandoned = True
    await _until(lambda: pipeline.commit.status().buffered_bytes - alone < charged)
    pipeline.fs.heal()
    acks = [await _answer(request) for request in [first, *repeats[1:]]]
    assert [(ack.positions.first, ack.durable, ack.duplicate) for ack in acks] == [
        (1, True, False),
        (1, True, True),
        (1, True, True),
    ]
    assert len(pipeline.payloads()) == 2


async def test_abandoned_requests_are_not_logged(pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose deadline passed before a frame was made does not take part in one."""
    gate = _Gate(pipeline, monkeypatch)
    first = pipeline.submit(numbered(1, 1))
    await _until(gate.waiting.is_set)
    late = [pipeline.submit(numbered(n, 1)) for n in (2, 3)]
    late[0].abandoned = True
    gate.open()
    assert (await _answer(late[1])).positions.first == 2
    await _answer(first)
    assert pipeline.payloads() == ['{"n":1}', '{"n":3}']


async def test_flush_waits_for_what_was_submitted_before(pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """It returns the committed position, and on an idle log at once."""
    assert await pipeline.commit.flush() == 0
    gate = _Gate(pipeline, monkeypatch)
    pipeline.submit(numbered(1, 3), durable=False)
    flush = asyncio.ensure_future(pipeline.commit.flush())
    await _until(gate.waiting.is_set)
    assert not flush.done()
    gate.open()
    assert await asyncio.wait_for(flush, _PATIENCE_S) == 3


async def test_flush_returns_under_load_that_does_not_end(pipeline: _Pipeline) -> None:
    """It waits for what came before it, not for a moment without anything to do."""
    done = asyncio.Event()

    async def produce() -> None:
        waiting: set[asyncio.Future[Acknowledgement]] = set()
        while not done.is_set():
            waiting |= {pipeline.submit(numbered(1, 1)).answer for _ in range(20)}
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*waiting)

    producers = [asyncio.ensure_future(produce()) for _ in range(3)]
    await _until(lambda: pipeline.commit.status().committed_position > 0)
    for _ in range(10):
        before = pipeline.commit.status().last_position
        assert await asyncio.wait_for(pipeline.commit.flush(), _PATIENCE_S) >= before
    done.set()
    await asyncio.gather(*producers)


async def test_flush_of_a_refused_request_returns(pipeline: _Pipeline) -> None:
    """A request that leads to nothing is finished too."""
    refused = pipeline.submit(_WRONG)
    assert await asyncio.wait_for(pipeline.commit.flush(), _PATIENCE_S) == 0
    with pytest.raises(EventException):
        await _answer(refused)


async def test_stop_commits_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graceful end loses nothing, and takes nothing more."""
    pipeline = _Pipeline()
    gate = _Gate(pipeline, monkeypatch)
    pipeline.commit.start()
    requests = [pipeline.submit(numbered(n, 1)) for n in range(1, 6)]
    await _until(gate.waiting.is_set)
    stopping = asyncio.ensure_future(pipeline.stop())
    await _until(lambda: pipeline.commit._queue._stopping)
    with pytest.raises(StorageUnavailable) as refused:
        pipeline.submit(numbered(9, 1))
    assert refused.value.reason == "SERVER_DRAINING"
    with pytest.raises(StorageUnavailable):
        await pipeline.commit.run_between_frames(lambda: None)
    gate.open()
    await stopping
    assert [(await _answer(request)).positions.first for request in requests] == [1, 2, 3, 4, 5]
    assert await pipeline.commit.flush() == 5
    pipeline.writer.close()


async def test_stop_gives_up_after_its_grace_while_storage_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever waits is told, also those who repeated a request; nothing is charged any more."""
    pipeline = _Pipeline()
    pipeline.commit.start()
    pipeline.fs.mode = "full"
    requests = [pipeline.submit(numbered(1, 1, request_id="a")), pipeline.submit(numbered(2, 1))]
    await _until(lambda: pipeline.commit.status().storage_error is not None and _prepared(pipeline))
    requests.append(pipeline.submit(numbered(1, 1, request_id="a")))
    await _until(lambda: _prepared(pipeline))
    flush = asyncio.ensure_future(pipeline.commit.flush())
    started_s = time.monotonic()
    await pipeline.stop(grace_s=0.05)
    assert time.monotonic() - started_s < 5
    for request in requests:
        with pytest.raises(StorageUnavailable, match="may still be committed"):
            await _answer(request)
    with pytest.raises(StorageUnavailable):
        await asyncio.wait_for(flush, _PATIENCE_S)
    assert pipeline.commit.status().buffered_bytes == 0
    assert "storage failed until the end" in caplog.text
    pipeline.writer.close()


async def test_stop_gives_up_also_while_a_frame_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that is ready only after the grace is given up like the others, and stop returns."""
    pipeline = _Pipeline()
    building, go_on = threading.Event(), threading.Event()
    build = pipeline.builder.build

    def slow(requests: Sequence[PendingRequest]) -> Built:
        building.set()
        assert go_on.wait(_PATIENCE_S)
        return build(requests)

    monkeypatch.setattr(pipeline.builder, "build", slow)
    pipeline.commit.start()
    pipeline.fs.mode = "full"
    request = pipeline.submit(numbered(1, 1))
    await _until(building.is_set)
    stopping = asyncio.ensure_future(pipeline.stop(grace_s=0))
    await _until(lambda: pipeline.commit._queue.gave_up)
    go_on.set()
    await asyncio.wait_for(stopping, _PATIENCE_S)
    with pytest.raises(StorageUnavailable):
        await _answer(request)
    assert pipeline.commit.status().buffered_bytes == 0
    pipeline.writer.close()


class _PanicError(BaseException):
    """What native libraries raise: no Exception."""


@pytest.mark.parametrize("error", [RuntimeError("a bug"), _PanicError("a panic")])
async def test_a_bug_hurts_only_the_request_that_meets_it(
    pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """Its neighbours are built without it, its stream ends, and the thread lives on."""
    build = pipeline.builder.build

    def buggy(requests: Sequence[PendingRequest]) -> Built:
        if any(b'"n":13' in request.body for request in requests):
            raise error
        return build(requests)

    monkeypatch.setattr(pipeline.builder, "build", buggy)
    gate = _Gate(pipeline, monkeypatch)
    pipeline.submit(numbered(0, 1))
    await _until(gate.waiting.is_set)
    order = StreamOrder()
    guilty = pipeline.submit(numbered(13, 1), stream=order)
    after = pipeline.submit(numbered(2, 1), stream=order)
    sound = [pipeline.submit(numbered(n, 1)) for n in (3, 4)]
    gate.open()
    assert [(await _answer(request)).positions.first for request in sound] == [2, 3]
    with pytest.raises(EventException) as caught:
        await _answer(guilty)
    assert caught.value.reason == "INTERNAL"
    with pytest.raises(EventException, match="earlier batch"):
        await _answer(after)
    assert "cannot prepare requests" in caplog.text
    assert (await pipeline.log(numbered(5, 1))).positions.first == 4


async def test_a_bug_while_appending_is_retried(pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame is not lost, and the thread lives on."""
    append = pipeline.writer.append
    errors: list[Exception] = [RuntimeError("a bug")]

    def buggy(frame: EncodedFrame) -> None:
        if errors:
            raise errors.pop()
        append(frame)

    monkeypatch.setattr(pipeline.writer, "append", buggy)
    assert (await pipeline.log(numbered(1, 1))).positions.first == 1


async def test_commands_run_between_frames(pipeline: _Pipeline) -> None:
    """Their result and their exception reach whoever asked."""
    await pipeline.log(numbered(1, 1))
    assert await pipeline.commit.run_between_frames(pipeline.writer.rotate)
    assert not await pipeline.commit.run_between_frames(pipeline.writer.rotate)

    def fail() -> None:
        raise StorageUnavailable("no")

    with pytest.raises(StorageUnavailable):
        await pipeline.commit.run_between_frames(fail)
    assert (await pipeline.log(numbered(2, 1))).positions.first == 2


async def test_a_command_nobody_waits_for_any_more_does_no_harm(
    pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that is gone before its turn is skipped; the thread lives on."""
    gate = _Gate(pipeline, monkeypatch)
    first = pipeline.submit(numbered(1, 1))
    await _until(gate.waiting.is_set)
    ran: list[int] = []
    command = asyncio.ensure_future(pipeline.commit.run_between_frames(lambda: ran.append(1)))
    await asyncio.sleep(0)
    command.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await command
    gate.open()
    await _answer(first)
    assert (await pipeline.log(numbered(2, 1))).positions.first == 2
    assert ran == []


async def test_whoever_waits_for_room_is_woken_or_forgotten(
    pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room comes with a finished request; a waiter that gave up leaves nothing behind."""
    gate = _Gate(pipeline, monkeypatch)
    pipeline.submit(numbered(1, 1))
    gone = asyncio.ensure_future(pipeline.commit.wait_for_room())
    stays = asyncio.ensure_future(pipeline.commit.wait_for_room())
    await asyncio.sleep(0)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    assert len(pipeline.commit._room_waiters) == 1
    gate.open()
    await asyncio.wait_for(stays, _PATIENCE_S)


async def test_what_fails_while_nothing_is_appended_is_only_reported(
    pipeline: _Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next append tries again."""

    def fail() -> None:
        raise StorageUnavailable("no")

    monkeypatch.setattr(pipeline.writer, "tend", fail)
    pipeline.commit._tend()
    assert "cannot look after the log" in caplog.text


@pytest.mark.parametrize("seed", range(3))
async def test_everything_acknowledged_is_in_the_log_once(pipeline: _Pipeline, seed: int) -> None:
    """Random requests, repeats and faults: acknowledged exactly, gap-free, in the order of each producer."""
    chance = random.Random(seed)

    async def produce(producer: int) -> list[str]:
        logged = []
        for number in range(25):
            name = f"{producer}-{number}"
            body = log_request(new_event(payload_json=f'{{"id":"{name}"}}'), request_id=name)
            acks = await asyncio.gather(*(pipeline.log(body) for _ in range(chance.choice([1, 1, 2]))))
            assert len({ack.positions for ack in acks}) == 1
            logged.append(f'{{"id":"{name}"}}')
            if chance.random() < 0.1:
                pipeline.fs.fail_next(chance.choice(["append", "sync", "create"]), part=chance.random())
        return logged

    logged = await asyncio.gather(*(produce(producer) for producer in range(6)))
    found = pipeline.payloads()
    assert sorted(found) == sorted(payload for producer in logged for payload in producer)
    for number, producer_logged in enumerate(logged):
        assert [payload for payload in found if payload.startswith(f'{{"id":"{number}-')] == producer_logged
