"""Subscriptions of StreamService over gRPC: translates, and puts a subscriber together from its parts."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from eventlog.v1 import event_pb2, stream_service_pb2

from shared.clock import Clock
from shared.columns.encoded_events import EncodedEvents
from shared.errors import EventException
from shared.rpc.call import Context
from shared.rpc.service import raw_response
from stream_service import subscription_wire as wire
from stream_service.feed import Feed
from stream_service.hub import Hub
from stream_service.matcher import Matchers
from stream_service.replay_history import QueryHistory, Selection
from stream_service.starts import Start, Starts
from stream_service.stream_metrics import UNNAMED, StreamMetrics
from stream_service.subscriber import Subscriber
from stream_service.subscription import Closing, Subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionLimits:
    """What the configuration allows; see the section `streaming`."""

    default_buffer_size: int
    pressure_threshold: float
    heartbeat_s: float


class SubscriptionServicer:
    """Serves Subscribe and what belongs to it. Belongs to one event loop."""

    def __init__(
        self,
        hub: Hub,
        feed: Feed,
        history: QueryHistory,
        matchers: Matchers,
        clock: Clock,
        metrics: StreamMetrics,
        limits: SubscriptionLimits,
    ) -> None:
        self._hub = hub
        self._feed = feed
        self._history = history
        self._matchers = matchers
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._starts = Starts(hub.ring, history)

    @raw_response
    async def subscribe(
        self, request: stream_service_pb2.SubscribeRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Stream matching events, history first, then live."""
        del context
        asked = wire.subscription_asked(request, default_buffer_size=self._limits.default_buffer_size)
        await self._feed.wait_ready()
        start = await self._starts.resolve(asked.start)
        subscriber = self._subscriber(asked, start)
        with self._hub.place(subscriber), self._hub.delivering_to(subscriber):
            try:
                yield wire.confirmed(subscriber.name, asked, start, heartbeat_s=self._limits.heartbeat_s)
                async with aclosing(subscriber.messages()) as messages:
                    async for message in messages:
                        self._metrics.sent(subscriber, message)
                        yield wire.message_of(message, self._clock)
                        if isinstance(message, Closing):
                            raise message.error
            except EventException as error:
                error.metadata["resume_position"] = str(subscriber.subscription.resume_position)
                self._metrics.ended.labels(error.reason).inc()
                raise

    def _subscriber(self, asked: wire.SubscriptionAsked, start: Start) -> Subscriber:
        def read(from_position: int, until_position: int) -> AsyncGenerator[EncodedEvents, None]:
            return self._history.read(
                Selection(
                    from_position=from_position,
                    until_position=until_position,
                    filters=asked.filters,
                    payload_form=asked.payload_form,
                )
            )

        return Subscriber(
            asked.consumer or wire.made_name(),
            Subscription(start.position, asked.policy, buffer_size=asked.buffer_size),
            self._matchers.of(asked.filters, asked.tree),
            self._hub.ring,
            self._hub.builder,
            read,
            self._clock,
            heartbeat_s=self._limits.heartbeat_s,
            pressure_threshold=self._limits.pressure_threshold,
            payload_as_struct=asked.payload_form == event_pb2.PAYLOAD_FORM_STRUCT,
            created_ns=self._clock.now_ns(),
            label=self._metrics.label(asked.consumer or UNNAMED),
        )
