"""One replay as its consumer sees it: events in the order of positions, each once, whatever happens to the connection.

Invariants: `passed` is the last position of which the consumer has been given everything; a replay that breaks off is
taken up behind it, up to the same end, at the speed in force. Before the service has said that the replay began, an
error is the caller's; after that only one that a repetition would not mend, or that lasts.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from eventlog.v1 import event_pb2, stream_service_pb2

from shared.client.attempts import Attempts, is_passing
from shared.client.replay_options import ReplayOptions
from shared.client.stream_connection import StreamConnection, answered, broken_off
from shared.clock import Clock
from shared.errors import EventStreamException
from shared.rpc.remote_error import RemoteError, from_rpc_error

ReplayRequest = stream_service_pb2.ReplayRequest | stream_service_pb2.ReplaySessionRequest


class ReplayStream:
    """A replay that is taken up again where it broke off. Belongs to one event loop."""

    def __init__(
        self, connection: StreamConnection, request: ReplayRequest, options: ReplayOptions, clock: Clock
    ) -> None:
        self._connection = connection
        self._options = options
        self._attempts = Attempts(options.back_off, clock, give_up_after_s=options.give_up_after_s)
        self._request = request
        self._calls = connection.calls
        self._replay_id = ""
        self._runs = False
        self._begun = False
        self._complete = False
        self.paused = False
        self.passed = 0

    @property
    def speed(self) -> float:
        """The speed in force."""
        return self._request.speed

    async def change(self, *, speed: float | None = None, paused: bool | None = None) -> None:
        """Change the speed, pause or go on; at once, or as soon as a replay that broke off is taken up.

        Raises RemoteError, EventStreamException where it does not run.
        """
        if not self._runs:
            raise EventStreamException("the replay does not run: iterate over it, and change it meanwhile")
        if self._replay_id:
            request = stream_service_pb2.ControlReplayRequest(replay_id=self._replay_id, speed=speed, paused=paused)
            try:
                await answered(self._connection.calls.ControlReplay(request, timeout=self._options.call_timeout_s))
            except RemoteError as error:
                if error.reason != "REPLAY_NOT_FOUND" and not is_passing(error):
                    raise
        self._request.speed = self._request.speed if speed is None else speed
        self.paused = self.paused if paused is None else paused

    async def events(self) -> AsyncGenerator[event_pb2.Event, None]:
        """The events. Raises RemoteError."""
        self._runs = True
        try:
            while not self._complete:
                try:
                    async with aclosing(self._attempt()) as events:
                        async for event in events:
                            yield event
                except RemoteError as error:
                    self._replay_id = ""
                    if not self._begun:
                        raise
                    await asyncio.sleep(self._attempts.failed(error))
        finally:
            self._runs = False

    async def _attempt(self) -> AsyncGenerator[event_pb2.Event, None]:
        """The events until the replay is complete. Raises RemoteError where it breaks off before."""
        call = self._call()
        try:
            async for message in self._messages(call):
                kind = message.WhichOneof("message")
                if kind == "started":
                    await self._started(message.started)
                elif kind == "events":
                    for event in message.events.events:
                        yield event
                        # The consumer asks for the next one: it is done with this.
                        self._pass(event.position)
                    self._pass(message.events.resume_position - 1)
                elif kind == "heartbeat":
                    self._pass(message.heartbeat.resume_position - 1)
                elif kind == "closing" and message.closing.reason == "COMPLETED":
                    self._pass(message.closing.resume_position - 1)
                    self._complete = True
                    return
        finally:
            call.cancel()

    def _call(self) -> Any:
        self._calls = self._connection.calls
        if isinstance(self._request, stream_service_pb2.ReplaySessionRequest):
            return self._calls.ReplaySession(self._request)
        return self._calls.Replay(self._request)

    async def _messages(self, call: Any) -> AsyncIterator[stream_service_pb2.ReplayResponse]:
        while True:
            try:
                async with asyncio.timeout(self._options.silence_s_max):
                    message = await answered(call.read())
            except TimeoutError:
                await self._connection.give_up(self._calls)
                raise broken_off(f"was silent for {self._options.silence_s_max:g} s") from None
            if message is grpc.aio.EOF:
                await self._raise_status(call)
            self._attempts.progressed()
            yield message

    async def _raise_status(self, call: Any) -> None:
        """Raise what a call ended with before its replay was complete."""
        if await call.code() is grpc.StatusCode.OK:
            raise broken_off("ended without saying why")
        raise from_rpc_error(
            grpc.aio.AioRpcError(
                await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )
        )

    async def _started(self, started: stream_service_pb2.ReplayStarted) -> None:
        self._replay_id = started.replay_id
        if not self._begun:
            self._begun = True
            self._request.until_position = started.until_position
            self._pass(started.start_position - 1)
        elif self.paused:
            await self.change(paused=True)

    def _pass(self, position: int) -> None:
        if position <= self.passed:
            return
        self.passed = position
        if isinstance(self._request, stream_service_pb2.ReplayRequest):
            self._request.start.Clear()
            self._request.start.position = position + 1
        else:
            self._request.from_position = position + 1
