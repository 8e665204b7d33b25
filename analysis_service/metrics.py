"""What the analysis service counts: answers by kind, the events that they rest on, and what was cut short."""

from typing import Protocol

from shared.telemetry.metrics import Metrics

_KINDS = ("statistics", "patterns", "anomalies", "chain", "compare", "causes", "predict", "fold")


class Covered(Protocol):
    """What an answer says of what it rests on."""

    events: int
    partial: bool
    partial_reason: str


class DeskMetrics:
    """The metrics of calls under way."""

    def __init__(self, metrics: Metrics) -> None:
        self.calls = metrics.gauge("analysis_calls", "Calls admitted, running or waiting; without those that watch.")
        self.running = metrics.gauge("analysis_running", "Pieces of analyses that threads compute now.")


class AnalysisMetrics:
    """The metrics of answers."""

    def __init__(self, metrics: Metrics) -> None:
        kind = ("kind",)
        self._answers = metrics.counter("analysis_answers", "Answers given.", kind)
        self._events = metrics.counter("analysis_events", "Events that answers rest on.", kind)
        self._cached = metrics.counter("analysis_cached_answers", "Answers that were computed before.", kind)
        self._partial = metrics.counter("analysis_partial_answers", "Answers cut short, by reason.", ("kind", "reason"))
        for each in _KINDS:
            self._answers.labels(each)

    def answered(self, kind: str, coverage: Covered, *, cached: bool = False) -> None:
        """Count an answer."""
        self._answers.labels(kind).inc()
        if cached:
            self._cached.labels(kind).inc()
        else:
            self._events.labels(kind).inc(coverage.events)
        if coverage.partial:
            self._partial.labels(kind, coverage.partial_reason).inc()
