"""Subscribe of StreamService over gRPC: translates, and puts a subscriber together from its parts."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from eventlog.v1 import event_pb2, stream_service_pb2

from shared.clock import Clock
from shared.columns.encoded_events import EncodedEvents
from shared.errors import EventException
from shared.rpc.call import Context
from shared.rpc.service import raw_response
from stream_service import subscription_wire as wire
from stream_service.catch_up import ReadRange
from stream_service.durable_subscriptions import DurableSubscriptions
from stream_service.feed import Feed
from stream_service.group import Reading
from stream_service.group_consumer import GroupConsumer
from stream_service.hub import Hub
from stream_service.matcher import Matchers
from stream_service.query_history import QueryHistory, Selection
from stream_service.starts import Start
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
    """Serves Subscribe. Belongs to one event loop."""

    def __init__(
        self,
        *,
        hub: Hub,
        feed: Feed,
        history: QueryHistory,
        durables: DurableSubscriptions,
        matchers: Matchers,
        clock: Clock,
        metrics: StreamMetrics,
        limits: SubscriptionLimits,
    ) -> None:
        self._hub = hub
        self._feed = feed
        self._history = history
        self._durables = durables
        self._matchers = matchers
        self._clock = clock
        self._metrics = metrics
        self._limits = limits

    @raw_response
    async def subscribe(self, request: stream_service_pb2.SubscribeRequest, context: Context) -> AsyncIterator[bytes]:
        """Stream matching events, history first, then live."""
        del context
        asked = wire.subscription_asked(request, default_buffer_size=self._limits.default_buffer_size)
        await self._feed.wait_ready()
        async with aclosing(self._durable(asked) if asked.subscription else self._ephemeral(asked)) as messages:
            async for message in messages:
                try:
                    yield message
                except EventException as error:
                    # The caller did not take it: the stream knows where it was.
                    await messages.athrow(error)

    async def _ephemeral(self, asked: wire.SubscriptionAsked) -> AsyncGenerator[bytes, None]:
        start = await self._durables.start(asked.start)
        subscriber = self._subscriber(asked, start)
        with self._hub.place(subscriber), self._hub.delivering_to(subscriber), self._ending(subscriber.resume_position):
            yield wire.confirmed(subscriber.name, asked, start, heartbeat_s=self._limits.heartbeat_s)
            async with aclosing(subscriber.messages()) as messages:
                async for message in messages:
                    self._metrics.sent(subscriber, message)
                    yield wire.message_of(message, self._clock)
                    if isinstance(message, Closing):
                        raise message.error

    async def _durable(self, asked: wire.SubscriptionAsked) -> AsyncGenerator[bytes, None]:
        group, start = await self._durables.open(asked.subscription, asked.start)
        reading = Reading(
            self._matchers.of(asked.filters, asked.tree),
            self._reader(asked),
            payload_form=asked.payload_form,
            payload_as_struct=asked.payload_form == event_pb2.PAYLOAD_FORM_STRUCT,
        )
        name = asked.consumer or wire.made_name()
        consumer = GroupConsumer(name, group, self._limits.heartbeat_s)
        group.make_way_for(name)
        group.check_joinable(reading)
        with (
            self._hub.place(consumer),
            self._durables.joined(group, consumer, reading, credit=asked.buffer_size),
            self._ending(group.resume_position),
        ):
            yield wire.confirmed(name, asked, start, heartbeat_s=self._limits.heartbeat_s)
            async with aclosing(consumer.messages()) as messages:
                async for message in messages:
                    self._metrics.shared(group.name, message)
                    yield wire.share_message_of(message, self._clock)
                    if isinstance(message, Closing):
                        raise message.error

    @contextmanager
    def _ending(self, resume_position: Callable[[], int]) -> Iterator[None]:
        """Say in the error that ends a stream where to resume, and count it."""
        try:
            yield
        except EventException as error:
            error.metadata["resume_position"] = str(resume_position())
            self._metrics.ended.labels(error.reason).inc()
            raise

    def _label(self, asked: wire.SubscriptionAsked) -> str:
        """What the metrics call a subscription."""
        return self._metrics.label(asked.subscription or asked.consumer or UNNAMED)

    def _reader(self, asked: wire.SubscriptionAsked) -> ReadRange:
        reads = self._metrics.catch_up_reads.labels(self._label(asked))

        def read(from_position: int, until_position: int) -> AsyncGenerator[EncodedEvents, None]:
            reads.inc()
            return self._history.read(
                Selection(
                    from_position=from_position,
                    until_position=until_position,
                    filters=asked.filters,
                    payload_form=asked.payload_form,
                )
            )

        return read

    def _subscriber(self, asked: wire.SubscriptionAsked, start: Start) -> Subscriber:
        return Subscriber(
            asked.consumer or wire.made_name(),
            Subscription(start.position, asked.policy, buffer_size=asked.buffer_size),
            self._matchers.of(asked.filters, asked.tree),
            self._hub.ring,
            self._hub.builder,
            self._reader(asked),
            self._clock,
            heartbeat_s=self._limits.heartbeat_s,
            pressure_threshold=self._limits.pressure_threshold,
            payload_as_struct=asked.payload_form == event_pb2.PAYLOAD_FORM_STRUCT,
            created_ns=self._clock.now_ns(),
            label=self._label(asked),
        )
