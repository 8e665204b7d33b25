"""StreamSubscriber: one subscription as its program sees it, whatever happens to the connection.

Invariants: an ephemeral subscription gives every event once, in the order of positions, but for those that the
service says it dropped; a durable one gives each at least once. A stream that breaks off is taken up where it was, and
one that is silent for two heartbeats over another connection; an error that a repetition would not mend, or that lasts,
is the program's.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from eventlog.v1 import stream_service_pb2

from shared.client.acknowledger import Acknowledger
from shared.client.attempts import Attempts
from shared.client.event_messages import event_of
from shared.client.stream_connection import StreamConnection, answered, broken_off
from shared.client.stream_options import StreamOptions
from shared.client.stream_statistics import StreamStatistics
from shared.clock import Clock
from shared.errors import EventStreamException
from shared.events import RecordedEvent
from shared.rpc.remote_error import RemoteError

# How long the service may take to confirm a subscription, before it has said how often it speaks.
_CONFIRMATION_S_MAX = 30.0


class StreamSubscriber:
    """A subscription. Belongs to one event loop; one task at a time may take its events."""

    def __init__(
        self,
        connection: StreamConnection,
        request: stream_service_pb2.SubscribeRequest,
        options: StreamOptions,
        clock: Clock,
        *,
        auto_acknowledge: bool,
    ) -> None:
        self.statistics = StreamStatistics()
        self._connection = connection
        self._request = request
        self._options = options
        self._attempts = Attempts(options.back_off, clock, give_up_after_s=options.give_up_after_s)
        self._auto_acknowledge = auto_acknowledge and bool(request.subscription)
        self._acknowledger = Acknowledger(self._send_positions, options)
        self._calls = connection.calls
        self._call: Any = None
        self._silence_s = _CONFIRMATION_S_MAX
        self._taken = False

    @property
    def durable(self) -> bool:
        """Whether the service keeps where it is."""
        return bool(self._request.subscription)

    @property
    def consumer(self) -> str:
        """Name of this consumer."""
        return self._request.consumer

    async def connect(self) -> None:
        """Return when the subscription stands: what is logged from here on is delivered. Raises RemoteError."""
        while self._call is None:
            self._calls = self._connection.calls
            call = self._calls.Subscribe(self._request)
            try:
                message = await self._read(call, within_s=_CONFIRMATION_S_MAX)
                self._confirmed(message.confirmed)
                self._call = call
            except RemoteError as error:
                await asyncio.sleep(self._attempts.failed(error))
            finally:
                if self._call is None:
                    call.cancel()

    async def events(self) -> AsyncGenerator[RecordedEvent, None]:
        """The events, until it is closed. Raises EventException."""
        if self._taken:
            raise EventStreamException("the subscription is iterated over already: subscribe under another name")
        self._taken = True
        try:
            while True:
                await self.connect()
                try:
                    async with aclosing(self._events_of_call()) as events:
                        async for event in events:
                            yield event
                            # The program asks for the next one: it is done with this.
                            if self._auto_acknowledge:
                                self._acknowledger.done(event.position)
                except RemoteError as error:
                    self._hang_up()
                    self.statistics.live = False
                    self.statistics.resumptions += 1
                    await asyncio.sleep(self._attempts.failed(error))
        finally:
            self._taken = False

    async def acknowledge(self, *events: RecordedEvent) -> None:
        """Say that the program is done with events; returns when that is stored. Raises RemoteError."""
        await self._send_positions([event.position for event in events])

    async def fail(self, event: RecordedEvent, why: str = "") -> None:
        """Say that the program failed at an event: it comes again, or is parked. Raises RemoteError."""
        request = stream_service_pb2.AcknowledgeRequest(
            subscription=self._request.subscription, failed_positions=[event.position], failure=why[:200]
        )
        await self._send(request)

    async def close(self) -> None:
        """Hang up, when what was acknowledged is stored. Raises RemoteError where it cannot be."""
        try:
            await self._acknowledger.close()
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _events_of_call(self) -> AsyncGenerator[RecordedEvent, None]:
        """The events until the stream breaks off. Raises RemoteError, always."""
        while True:
            message = await self._read(self._call, within_s=self._silence_s)
            kind = message.WhichOneof("message")
            if kind == "events":
                self.statistics.redelivered_events += len(message.events.redeliveries)
                self._resume_at(message.events.resume_position)
                for event in message.events.events:
                    if not self._acknowledger.is_done(event.position):
                        self.statistics.received_events += 1
                        yield event_of(event)
            else:
                self._note(message)

    def _note(self, message: stream_service_pb2.SubscribeResponse) -> None:
        statistics = self.statistics
        if message.HasField("heartbeat"):
            beat = message.heartbeat
            self._resume_at(beat.resume_position)
            statistics.head_position, statistics.lag_events = beat.head_position, beat.lag_events
            statistics.under_pressure = beat.under_pressure
        elif message.HasField("dropped"):
            statistics.dropped_events += message.dropped.count
            self._resume_at(message.dropped.last_position + 1)
        elif message.HasField("closing"):
            self._resume_at(message.closing.resume_position)
        else:
            statistics.live = message.HasField("caught_up")

    def _confirmed(self, confirmed: stream_service_pb2.SubscriptionConfirmed) -> None:
        self._attempts.progressed()
        self._request.consumer = confirmed.consumer
        self._silence_s = 2 * confirmed.heartbeat_interval.ToNanoseconds() / 1e9 or _CONFIRMATION_S_MAX
        self._resume_at(confirmed.start_position)

    def _resume_at(self, position: int) -> None:
        """Go on there after a break. The service knows where a durable subscription goes on."""
        if not self.durable:
            self._request.start.Clear()
            self._request.start.position = position

    async def _read(self, call: Any, *, within_s: float) -> stream_service_pb2.SubscribeResponse:
        try:
            async with asyncio.timeout(within_s):
                message = await answered(call.read())
        except TimeoutError:
            await self._connection.give_up(self._calls)
            raise broken_off(f"was silent for {within_s:g} s") from None
        if not isinstance(message, stream_service_pb2.SubscribeResponse):
            raise broken_off("ended without saying why")
        return message

    async def _send_positions(self, positions: list[int]) -> None:
        await self._send(
            stream_service_pb2.AcknowledgeRequest(subscription=self._request.subscription, positions=positions)
        )

    async def _send(self, request: stream_service_pb2.AcknowledgeRequest) -> None:
        if not self.durable:
            raise EventStreamException("only a durable subscription is acknowledged: subscribe with durable=True")
        await answered(self._connection.calls.Acknowledge(request, timeout=self._options.call_timeout_s))
