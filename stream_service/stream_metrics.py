"""What the stream service counts and measures of its subscriptions, under the prefix eventlog_stream_.

Labels hold the names of the first LABELS_MAX subscriptions; the rest are "other", those without a name "unnamed".
"""

from functools import cache

from shared.clock import Clock
from shared.telemetry.metrics import BoundedLabel, Metrics
from stream_service.group_consumer import Share, ShareDelivery
from stream_service.message_builder import Message
from stream_service.subscriber import Delivery, History, Subscriber
from stream_service.subscription import Dropped

LABELS_MAX = 200
UNNAMED = "unnamed"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class StreamMetrics:
    """Instruments of the stream service. Belongs to one event loop."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._clock = clock
        self.label = BoundedLabel(LABELS_MAX)
        by_name = ["subscription"]
        self.subscribers = metrics.gauge("stream_subscribers", "Connected subscribers and consumers.")
        self.head_position = metrics.gauge("stream_head_position", "Highest position in the ring.")
        delivered = metrics.counter("stream_delivered_events", "Events delivered.", by_name)
        # Asked for with each message; there are no more labels than LABELS_MAX and two.
        self._delivered = cache(delivered.labels)
        self.dropped = metrics.counter("stream_dropped_events", "Events dropped, their buffer being full.", by_name)
        self.redelivered = metrics.counter("stream_redelivered_events", "Events delivered again.", by_name)
        self.parked = metrics.counter("stream_parked_events", "Events parked after too many failures.", by_name)
        self.catch_up_reads = metrics.counter("stream_catch_up_reads", "Ranges read from history.", by_name)
        self.lag_events = metrics.gauge("stream_lag_events", "Events between a subscription and the head.", by_name)
        self.buffer_used = metrics.gauge("stream_buffer_used_ratio", "Share of the buffer in use.", by_name)
        self.ended = metrics.counter("stream_ended_subscriptions", "Streams ended, by reason.", ["reason"])
        self.gaps = metrics.counter("stream_publish_gaps", "Gaps in what was published, left to history.")
        self.fanout_seconds = metrics.histogram(
            "stream_fanout_seconds", "Time from the receipt of an event to its message.", buckets=_SECONDS
        )
        self.publish_lag_seconds = metrics.histogram(
            "stream_publish_lag_seconds", "Time from the record of an event to its receipt here.", buckets=_SECONDS
        )

    def sent(self, subscriber: Subscriber, what: Delivery) -> None:
        """Count what a subscriber is sent."""
        if isinstance(what, Message):
            self._delivered(subscriber.label).inc(what.count)
            if what.received_s is not None:
                self.fanout_seconds.observe(self._clock.monotonic_s() - what.received_s)
        elif isinstance(what, History):
            self._delivered(subscriber.label).inc(len(what.events))
        elif isinstance(what, Dropped):
            self.dropped.labels(subscriber.label).inc(what.count)

    def shared(self, name: str, what: ShareDelivery) -> None:
        """Count what a consumer of a group is sent."""
        if isinstance(what, Share):
            self._delivered(self.label(name)).inc(what.count)
            self.redelivered.labels(self.label(name)).inc(len(what.redelivered))

    def received(self, recorded_ns: int) -> None:
        """Note when a published frame was recorded."""
        self.publish_lag_seconds.observe(max(self._clock.now_ns() - recorded_ns, 0) / 1e9)

    def show(self, lags: dict[str, int], used: dict[str, float]) -> None:
        """Show lags and shares of buffers by label; those that are not named any more have none."""
        for gauge, values in ((self.lag_events, lags), (self.buffer_used, used)):
            gauge.clear()
            for label, value in values.items():
                gauge.labels(label).set(value)
