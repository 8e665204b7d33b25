"""What replays count, under the prefix eventlog_replay_."""

from shared.telemetry.metrics import Metrics


class ReplayMetrics:
    """Instruments of replays."""

    def __init__(self, metrics: Metrics) -> None:
        self.running = metrics.gauge("replay_running", "Replays that run now, the paused ones too.")
        self.refused = metrics.counter("replay_refused", "Replays refused because too many ran.")
        self.events = metrics.counter("replay_events", "Events given to the consumers of replays.")
        self.ended = metrics.counter("replay_ended", "Replays that ended, by reason.", ["reason"])
        self.checkpoint_failures = metrics.counter(
            "replay_checkpoint_failures", "Positions of running replays that could not be saved."
        )
