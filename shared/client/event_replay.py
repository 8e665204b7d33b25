"""EventReplay: history again, at any speed, for asyncio.

    async with EventReplay(load_config(path)) as replay:
        async for event in replay.replay_from(start_time, speed=10.0):
            print(event.type, event.timestamp)
        replay.save_position("after the incident")

Invariants: a replay that breaks off is taken up where it was, without a loss or a repetition; a position that is saved
is never ahead of what its program was given.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

import grpc
from eventlog.v1 import stream_service_pb2
from eventlog.v1.stream_service_pb2_grpc import StreamServiceStub

from shared.client.event_messages import event_of, filters_of
from shared.client.options import reachable_address
from shared.client.replay_messages import replay_request, session_request, state_message, state_of
from shared.client.replay_options import ReplayOptions, ReplayPace
from shared.client.replay_stream import ReplayRequest, ReplayStream
from shared.client.stream_connection import StreamConnection
from shared.clock import Clock, SystemClock
from shared.config import EventConfig
from shared.errors import EventStreamException
from shared.events import EventFilters, RecordedEvent, ReplayState
from shared.rpc.channel import connect_sync
from shared.rpc.remote_error import from_rpc_error


class EventReplay:
    """Replays events. What it says of "the replay" is the one that was begun last. Belongs to one event loop."""

    def __init__(
        self, config: EventConfig, options: ReplayOptions | None = None, *, clock: Clock | None = None
    ) -> None:
        self._options = options or ReplayOptions()
        self._clock = clock or SystemClock()
        self._address = reachable_address(self._options.address or config.streaming.listen)
        self._connection = StreamConnection(self._address)
        self._stream: ReplayStream | None = None
        self._state = ReplayState()

    async def replay_from(
        self,
        start_time: dt.datetime | None,
        filters: EventFilters | None = None,
        speed: float = 1.0,
        *,
        pace: ReplayPace | None = None,
        checkpoint_name: str | None = None,
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Replay what happened since a time, in the order of positions; None for everything kept.

        speed: a multiple of the recorded pace, 0 for as fast as it goes. checkpoint_name: save the position of what
        the program is done with under this name, about once a second and at the end; an event that it is given counts
        as done when it asks for the next. Raises EventException.
        """
        request = replay_request(start_time, filters or EventFilters(), speed, pace or ReplayPace())
        async with aclosing(self._replay(request, filters_of(request.filters), checkpoint_name)) as events:
            async for event in events:
                yield event

    async def replay_session(
        self,
        session_id: str,
        include_related: bool = True,  # noqa: FBT001, FBT002 — the specification's signature
        *,
        speed: float = 1.0,
        pace: ReplayPace | None = None,
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Replay the events of a session; include_related: and those that share a correlation id with one of them.

        Raises EventException.
        """
        request = session_request(session_id, include_related=include_related, speed=speed, pace=pace or ReplayPace())
        async with aclosing(self._replay(request, EventFilters(), None)) as events:
            async for event in events:
                yield event

    async def replay_from_saved(
        self, checkpoint_name: str, *, speed: float | None = None, pace: ReplayPace | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Replay what comes after a saved position, with the filters and the speed saved with it.

        The position goes on to be saved under the name. speed: another one than that saved. Raises EventException.
        """
        saved = await asyncio.to_thread(self.load_position, checkpoint_name)
        request = replay_request(None, saved.filters, saved.speed if speed is None else speed, pace or ReplayPace())
        request.start.position = saved.position + 1
        async with aclosing(self._replay(request, saved.filters, checkpoint_name)) as events:
            async for event in events:
                yield event

    @property
    def replay_state(self) -> ReplayState:
        """Where the replay is: at the last event that was given; at its end, once it is over."""
        return self._state

    async def pause(self) -> None:
        """Pause the replay. Raises EventException."""
        await self._running().change(paused=True)

    async def resume(self) -> None:
        """Let the replay go on. Raises EventException."""
        await self._running().change(paused=False)

    async def set_speed(self, speed: float) -> None:
        """Let the replay go on at another speed, from now on. Raises EventException."""
        await self._running().change(speed=speed)

    def save_position(self, checkpoint_name: str) -> None:
        """Save where the replay is, its last event included, and return when that is synced.

        Blocks for one call to the service. Raises EventException.
        """
        self._save(checkpoint_name, self._state)

    def load_position(self, checkpoint_name: str) -> ReplayState:
        """The position saved under a name. Blocks for one call to the service. Raises EventException."""
        with self._calls() as calls:
            request = stream_service_pb2.LoadPositionRequest(name=checkpoint_name)
            return state_of(calls.LoadPosition(request, timeout=self._options.call_timeout_s).state)

    async def close(self) -> None:
        """Close the connection; replays under way end."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _replay(
        self, request: ReplayRequest, filters: EventFilters, checkpoint_name: str | None
    ) -> AsyncGenerator[RecordedEvent, None]:
        stream = self._stream = ReplayStream(self._connection, request, self._options, self._clock)
        save_at_s = self._clock.monotonic_s() + self._options.save_every_s
        state = ReplayState(filters=filters, speed=request.speed)
        async with aclosing(stream.events()) as messages:
            async for message in messages:
                event = event_of(message)
                time = event.recorded_at if _by_recorded_at(request) else event.timestamp
                state = replace(state, position=event.position, timestamp=time, speed=stream.speed)
                self._show(stream, state)
                yield event
                if checkpoint_name is not None and self._clock.monotonic_s() >= save_at_s:
                    await asyncio.to_thread(self._save, checkpoint_name, state)
                    save_at_s = self._clock.monotonic_s() + self._options.save_every_s
        state = replace(state, position=stream.passed)
        self._show(stream, state)
        if checkpoint_name is not None:
            await asyncio.to_thread(self._save, checkpoint_name, state)

    def _show(self, stream: ReplayStream, state: ReplayState) -> None:
        """Let the state be seen, unless another replay was begun since."""
        if self._stream is stream:
            self._state = state

    def _running(self) -> ReplayStream:
        if self._stream is None:
            raise EventStreamException("no replay was begun: iterate over replay_from() or replay_session() first")
        return self._stream

    def _save(self, checkpoint_name: str, state: ReplayState) -> None:
        request = stream_service_pb2.SavePositionRequest(name=checkpoint_name, state=state_message(state))
        with self._calls() as calls:
            calls.SavePosition(request, timeout=self._options.call_timeout_s)

    @contextmanager
    def _calls(self) -> Iterator[StreamServiceStub]:
        """The service, for blocking calls. Raises RemoteError for what they fail with."""
        with connect_sync(self._address) as channel:
            try:
                yield StreamServiceStub(channel)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from error


def _by_recorded_at(request: ReplayRequest) -> bool:
    return request.clock == stream_service_pb2.REPLAY_CLOCK_RECORDED_AT
