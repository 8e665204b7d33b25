"""What manages the subscriptions of StreamService over gRPC: translates."""

from contextlib import aclosing

from eventlog.v1 import stream_service_pb2

from shared.rpc.call import Context
from stream_service import subscription_admin_wire as wire
from stream_service.durable_subscriptions import DurableSubscriptions
from stream_service.feed import Feed
from stream_service.hub import Hub
from stream_service.query_history import QueryHistory, Selection
from stream_service.subscription_wire import start_asked


class SubscriptionAdminServicer:
    """Serves Acknowledge, and what lists, moves and deletes subscriptions. Belongs to one event loop."""

    def __init__(self, *, hub: Hub, feed: Feed, history: QueryHistory, durables: DurableSubscriptions) -> None:
        self._hub = hub
        self._feed = feed
        self._history = history
        self._durables = durables

    async def acknowledge(
        self, request: stream_service_pb2.AcknowledgeRequest, context: Context
    ) -> stream_service_pb2.AcknowledgeResponse:
        """Acknowledge positions, or say that they failed."""
        del context
        wire.check_acknowledgement(request)
        group = self._durables.get(request.subscription)
        parked = group.acknowledge(
            list(request.positions),
            up_to=request.up_to_position,
            consumer=request.consumer,
            failed=list(request.failed_positions),
            text=request.failure,
        )
        await self._durables.save(group)
        return stream_service_pb2.AcknowledgeResponse(
            checkpoint_position=group.ledger.checkpoint, parked_positions=parked
        )

    async def list_subscriptions(
        self, request: stream_service_pb2.ListSubscriptionsRequest, context: Context
    ) -> stream_service_pb2.ListSubscriptionsResponse:
        """Return one page of the subscriptions, by name."""
        del context
        statuses = [wire.status_of_group(group, self._hub.ring) for group in self._durables.all()]
        statuses += [wire.status_of_subscriber(subscriber) for subscriber in self._hub.subscribers]
        statuses.sort(key=lambda status: (status.subscription, status.consumers[:1]))
        page, token = wire.page_of(statuses, request, what="ListSubscriptions")
        return stream_service_pb2.ListSubscriptionsResponse(subscriptions=page, next_page_token=token)

    async def seek_subscription(
        self, request: stream_service_pb2.SeekSubscriptionRequest, context: Context
    ) -> stream_service_pb2.SeekSubscriptionResponse:
        """Move a durable subscription to another start."""
        del context
        wire.check_subscription(request.subscription)
        asked = start_asked(request.start)
        self._durables.get(request.subscription)
        await self._feed.wait_ready()
        position = await self._durables.seek(request.subscription, asked)
        return stream_service_pb2.SeekSubscriptionResponse(next_position=position)

    async def delete_subscription(
        self, request: stream_service_pb2.DeleteSubscriptionRequest, context: Context
    ) -> stream_service_pb2.DeleteSubscriptionResponse:
        """Delete a durable subscription."""
        del context
        wire.check_subscription(request.subscription)
        await self._durables.delete(request.subscription)
        return stream_service_pb2.DeleteSubscriptionResponse()

    async def list_parked_events(
        self, request: stream_service_pb2.ListParkedEventsRequest, context: Context
    ) -> stream_service_pb2.ListParkedEventsResponse:
        """Return one page of the parked events, by position."""
        del context
        wire.check_subscription(request.subscription)
        parked = self._durables.get(request.subscription).ledger.failures.parked
        events = [wire.parked_event(position, parked[position]) for position in sorted(parked)]
        page, token = wire.page_of(events, request, what=f"ListParkedEvents {request.subscription}")
        return stream_service_pb2.ListParkedEventsResponse(events=page, next_page_token=token)

    async def retry_parked_events(
        self, request: stream_service_pb2.RetryParkedEventsRequest, context: Context
    ) -> stream_service_pb2.RetryParkedEventsResponse:
        """Deliver parked events again."""
        del context
        wire.check_subscription(request.subscription)
        group = self._durables.get(request.subscription)
        wanted = wire.parked_positions(request, group.ledger.failures.parked)
        retried = 0
        for position in wanted:
            selection = Selection(from_position=position, until_position=position + 1, payload_form=group.payload_form)
            async with aclosing(self._history.read(selection)) as found:
                async for events in found:
                    retried += group.retry(events)
        return stream_service_pb2.RetryParkedEventsResponse(retried_events=retried)
