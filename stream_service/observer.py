"""Shows once a second how every subscription is doing.

Where several share a label in the metrics, the one that is furthest behind is shown.
"""

import asyncio

from stream_service.durable_subscriptions import DurableSubscriptions
from stream_service.hub import Hub
from stream_service.stream_metrics import StreamMetrics

OBSERVE_S = 1.0


class Observer:
    """Looks at subscriptions for the metrics."""

    def __init__(self, hub: Hub, durables: DurableSubscriptions, metrics: StreamMetrics) -> None:
        self._hub = hub
        self._durables = durables
        self._metrics = metrics

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.observe()
            await asyncio.sleep(OBSERVE_S)

    def observe(self) -> None:
        """Look now."""
        lags: dict[str, int] = {}
        used: dict[str, float] = {}

        def note(label: str, lag: int, share: float) -> None:
            lags[label] = max(lags.get(label, 0), lag)
            used[label] = max(used.get(label, 0.0), share)

        for subscriber in self._hub.subscribers:
            subscription = subscriber.subscription
            note(subscriber.label, subscriber.beat().lag_events, subscription.buffered / subscription.buffer_size)
        for group in self._durables.all():
            shares = [held.unacknowledged / held.credit for held in group.ledger.consumers.values()]
            lag = max(self._hub.ring.end - 1 - group.ledger.checkpoint, 0)
            note(self._metrics.label(group.name), lag, max(shares, default=0.0))
        self._metrics.show(lags, used)
        self._metrics.subscribers.set(self._hub.members)
        self._metrics.head_position.set(self._hub.ring.end - 1)
