"""EventStreamer: events as they are logged, for asyncio.

    streamer = EventStreamer()
    await streamer.subscribe("my_subscriber", filters=EventFilter().build_filter(type_pattern="pipeline.*"))
    async for event in streamer.stream("my_subscriber"):
        print(event.type, event.timestamp)

Subscriptions are ephemeral, unless durable=True: then the service keeps what was acknowledged under the name of the
subscriber, and several programs that use one name share its events.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from eventlog.v1 import stream_service_pb2

from shared.client.event_messages import filters_message, timestamp_message
from shared.client.options import reachable_address
from shared.client.stream_connection import StreamConnection
from shared.client.stream_options import SlowConsumerPolicy, StartAt, StreamOptions
from shared.client.stream_subscriber import StreamSubscriber
from shared.clock import Clock, SystemClock
from shared.config import EventConfig, load_config
from shared.errors import EventStreamException
from shared.events import EventFilters, RecordedEvent

_POLICIES = {
    None: stream_service_pb2.OVERFLOW_POLICY_UNSPECIFIED,
    SlowConsumerPolicy.DROP_OLDEST: stream_service_pb2.OVERFLOW_POLICY_DROP_OLDEST,
    SlowConsumerPolicy.CATCH_UP: stream_service_pb2.OVERFLOW_POLICY_CATCH_UP,
    SlowConsumerPolicy.DISCONNECT: stream_service_pb2.OVERFLOW_POLICY_DISCONNECT,
}


class EventStreamer:
    """Subscribes to events. Belongs to the event loop in which it is first used."""

    def __init__(
        self,
        config: EventConfig | None = None,
        options: StreamOptions | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """config: by default what the environment says, and defaults. Raises EventConfigException."""
        self._options = options or StreamOptions()
        self._clock = clock or SystemClock()
        listen = (config or load_config(None)).streaming.listen
        self._connection = StreamConnection(reachable_address(self._options.address or listen))
        self.subscribers: dict[str, StreamSubscriber] = {}

    async def subscribe(
        self,
        subscriber_id: str,
        filters: EventFilters | None = None,
        buffer_size: int = 1000,
        *,
        start: StartAt | None = None,
        policy: SlowConsumerPolicy | None = None,
        durable: bool = False,
        consumer: str = "",
        auto_acknowledge: bool = True,
    ) -> StreamSubscriber:
        """Subscribe; what is logged from the return on is delivered by `stream`.

        buffer_size: events that may wait for the program at the service; of a durable subscription, that it may have
        without having acknowledged them. start: where to begin, by default now; a durable one that has a checkpoint
        goes on there. policy: what happens when the buffer is full, by default DROP_OLDEST; a durable one loses
        nothing. consumer: names this program among those that share a durable subscription. auto_acknowledge: an event
        counts as done when the program asks for the next. Raises EventException.
        """
        if subscriber_id in self.subscribers:
            raise EventStreamException(f"{subscriber_id!r} is subscribed already: unsubscribe it, or use another name")
        request = stream_service_pb2.SubscribeRequest(
            subscription=subscriber_id if durable else "",
            consumer=consumer if durable else subscriber_id,
            filters=filters_message(filters or EventFilters()),
            start=_start(start or StartAt()),
            buffer_size=buffer_size,
            overflow_policy=_POLICIES[policy],
        )
        subscriber = StreamSubscriber(
            self._connection, request, self._options, self._clock, auto_acknowledge=auto_acknowledge
        )
        await subscriber.connect()
        self.subscribers[subscriber_id] = subscriber
        return subscriber

    async def stream(self, subscriber_id: str) -> AsyncGenerator[RecordedEvent, None]:
        """The events of a subscription, without an end. Raises EventException."""
        async with aclosing(self._subscriber(subscriber_id).events()) as events:
            async for event in events:
                yield event

    async def unsubscribe(self, subscriber_id: str) -> None:
        """End a subscription, when what was acknowledged is stored; a durable one can be taken up again later.

        Raises EventException.
        """
        subscriber = self._subscriber(subscriber_id)
        del self.subscribers[subscriber_id]
        await subscriber.close()

    async def close(self) -> None:
        """End all subscriptions, and the connection. Raises EventException where an acknowledgement is not stored."""
        try:
            for subscriber_id in list(self.subscribers):
                await self.unsubscribe(subscriber_id)
        finally:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _subscriber(self, subscriber_id: str) -> StreamSubscriber:
        try:
            return self.subscribers[subscriber_id]
        except KeyError:
            raise EventStreamException(f"{subscriber_id!r} is not subscribed: await subscribe() first") from None


def _start(start: StartAt) -> stream_service_pb2.StreamStart:
    message = stream_service_pb2.StreamStart(
        earliest=start.earliest, position=start.position or 0, checkpoint=start.checkpoint or ""
    )
    if start.time is not None:
        message.time.CopyFrom(timestamp_message(start.time))
    return message
