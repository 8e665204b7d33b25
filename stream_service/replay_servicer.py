"""The replays of StreamService over gRPC: translates, and puts a replay together from its parts."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from eventlog.v1 import stream_service_pb2

from shared.clock import Clock
from shared.columns.encoded_events import EncodedEvents
from shared.rpc.call import Context
from shared.rpc.page_tokens import decode_page_token, encode_page_token
from shared.rpc.service import raw_response
from stream_service import replay_wire as wire
from stream_service.query_history import Extent, QueryHistory, Selection
from stream_service.read_ahead import Source
from stream_service.replay_bounds import resolve
from stream_service.replay_checkpoint import ReplayCheckpoint
from stream_service.replay_metrics import ReplayMetrics
from stream_service.replay_run import Delivery, Ending, Progress, ReplayPlan, ReplayRun
from stream_service.request_checks import check_name, check_start, invalid
from stream_service.running_replays import RunningReplay, RunningReplays
from stream_service.saved_positions import SavedPosition, SavedPositions
from stream_service.session_events import SessionEvents, read_together

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
_LIST = b"ListPositions"
_LIST_KEY = blake2b(b"saved replay positions", digest_size=32).digest()

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayLimits:
    """What the configuration allows; see the section `replay`."""

    max_speed: float
    max_replays: int
    heartbeat_interval: float
    session_cache_size: int


class ReplayServicer:
    """Serves Replay, ReplaySession, ControlReplay and the saved positions. Belongs to one event loop."""

    def __init__(
        self,
        history: QueryHistory,
        positions: SavedPositions,
        clock: Clock,
        metrics: ReplayMetrics,
        limits: ReplayLimits,
    ) -> None:
        self._history = history
        self._sessions = SessionEvents(history, cache_size=limits.session_cache_size)
        self._positions = positions
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._replays = RunningReplays(limits.max_replays, metrics)
        # One thread: positions are saved one after the other.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="positions")

    async def close(self) -> None:
        """End every replay with SERVER_DRAINING and its resume position; returns when all have ended."""
        await self._replays.close()

    def release(self) -> None:
        """End the thread of the saved positions, when nothing is served any more."""
        self._disk.shutdown(wait=True, cancel_futures=True)

    @raw_response
    async def replay(self, request: stream_service_pb2.ReplayRequest, context: Context) -> AsyncIterator[bytes]:
        """Replay history at a chosen speed."""
        del context
        check_start(request.start)
        if request.checkpoint_name:
            check_name("checkpoint_name", request.checkpoint_name)
        with self._replays.admitted():
            if request.start.checkpoint:
                request = wire.with_saved(request, await self._load(request.start.checkpoint))
            asked = wire.replay_asked(request, speed_max=self._limits.max_speed)
            extent, plan, selection = await self._prepare(asked)

            def source(position: int) -> AsyncGenerator[EncodedEvents, None]:
                return self._history.read(selection.following(position))

            async with aclosing(self._run(plan, source, extent, asked.filters, request.checkpoint_name)) as messages:
                async for message in messages:
                    yield message

    @raw_response
    async def replay_session(
        self, request: stream_service_pb2.ReplaySessionRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Replay the events of a session, and those related to it."""
        del context
        asked = wire.session_asked(request, speed_max=self._limits.max_speed)
        with self._replays.admitted():
            extent, plan, selection = await self._prepare(asked)
            related = request.include_related if request.HasField("include_related") else True
            selections = await self._sessions.selections(request.session_id, selection, extent, include_related=related)

            def source(position: int) -> AsyncGenerator[EncodedEvents, None]:
                return read_together(self._history, [each.following(position) for each in selections])

            async with aclosing(self._run(plan, source, extent)) as messages:
                async for message in messages:
                    yield message

    async def control_replay(
        self, request: stream_service_pb2.ControlReplayRequest, context: Context
    ) -> stream_service_pb2.ControlReplayResponse:
        """Pause, resume or change the speed of a running replay."""
        del context
        replay = self._replays.find(request.replay_id)
        speed = wire.checked_speed(request.speed, self._limits.max_speed) if request.HasField("speed") else None
        paused = request.paused if request.HasField("paused") else None
        if speed is not None or paused is not None:
            replay.run.change(speed=speed, paused=paused)
        run = replay.run
        state = wire.state_of(run.passed, replay.filters, speed=run.speed, paused=run.paused)
        return stream_service_pb2.ControlReplayResponse(state=state)

    async def save_position(
        self, request: stream_service_pb2.SavePositionRequest, context: Context
    ) -> stream_service_pb2.SavePositionResponse:
        """Save a position under a name."""
        del context
        check_name("name", request.name)
        state = wire.checked_state(request.state, speed_max=self._limits.max_speed)
        await self._save(request.name, state)
        return stream_service_pb2.SavePositionResponse()

    async def load_position(
        self, request: stream_service_pb2.LoadPositionRequest, context: Context
    ) -> stream_service_pb2.LoadPositionResponse:
        """Load the position of a name."""
        del context
        check_name("name", request.name)
        return stream_service_pb2.LoadPositionResponse(state=await self._load(request.name))

    async def list_positions(
        self, request: stream_service_pb2.ListPositionsRequest, context: Context
    ) -> stream_service_pb2.ListPositionsResponse:
        """Return one page of the saved positions, by name."""
        del context
        if request.page_size < 0:
            raise invalid("page_size", "must not be negative")
        size = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        after = str(decode_page_token(request.page_token, _LIST, key=_LIST_KEY)["after"]) if request.page_token else ""
        page = await self._on_disk(lambda: self._positions.page(after=after, count=size))
        token = "" if page.is_last else encode_page_token(_LIST, {"after": page.positions[-1].name}, key=_LIST_KEY)
        return stream_service_pb2.ListPositionsResponse(positions=map(_named, page.positions), next_page_token=token)

    async def delete_position(
        self, request: stream_service_pb2.DeletePositionRequest, context: Context
    ) -> stream_service_pb2.DeletePositionResponse:
        """Delete the position of a name."""
        del context
        check_name("name", request.name)
        await self._on_disk(lambda: self._positions.delete(request.name))
        return stream_service_pb2.DeletePositionResponse()

    async def _prepare(self, asked: wire.ReplayAsked) -> tuple[Extent, ReplayPlan, Selection]:
        extent = await self._history.extent()
        first, until = await resolve(asked.bounds, self._history, extent)
        selection = Selection(
            from_position=first, until_position=until, filters=asked.filters, payload_form=asked.payload_form
        )
        return extent, asked.plan(first, until), selection

    async def _run(
        self, plan: ReplayPlan, source: Source, extent: Extent, filters: bytes = b"", checkpoint_name: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """Run a replay that was admitted, as the messages of its stream."""
        run = ReplayRun(plan, source, self._clock, heartbeat_s=self._limits.heartbeat_interval)

        async def save(progress: Progress) -> None:
            await self._save(checkpoint_name, wire.state_of(progress, filters, speed=run.speed).SerializeToString())

        async with AsyncExitStack() as stack:
            replay_id = stack.enter_context(self._replays.running(RunningReplay(run, filters)))
            messages = await stack.enter_async_context(aclosing(run.messages()))
            checkpoint = ReplayCheckpoint(run, save, self._metrics.checkpoint_failures) if checkpoint_name else None
            if checkpoint is not None:
                await stack.enter_async_context(checkpoint)
            yield wire.started(replay_id, plan)
            async for message in messages:
                if isinstance(message, Delivery):
                    self._metrics.events.inc(len(message.events))
                elif isinstance(message, Ending):
                    self._metrics.ended.labels(message.reason).inc()
                    if checkpoint is not None:
                        await checkpoint.save_now()
                yield wire.message_of(message, plan, extent, self._clock)

    async def _save(self, name: str, state: bytes) -> None:
        now_ns = self._clock.now_ns()
        await self._on_disk(lambda: self._positions.save(name, state, saved_at_ns=now_ns))

    async def _load(self, name: str) -> stream_service_pb2.ReplayState:
        saved = await self._on_disk(lambda: self._positions.load(name))
        return stream_service_pb2.ReplayState.FromString(saved.state or b"")

    async def _on_disk(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)


def _named(saved: SavedPosition) -> stream_service_pb2.NamedPosition:
    named = stream_service_pb2.NamedPosition(name=saved.name)
    if saved.state is not None:
        named.state.MergeFromString(saved.state)
        named.saved_at.FromNanoseconds(saved.saved_at_ns)
    return named
