"""What the ingest service counts and measures, under the prefix eventlog_ingest_."""

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry.metrics import Metrics

# From the fastest sync of a good disk to a disk that is in trouble.
_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_EVENTS = (1, 5, 10, 50, 100, 500, 1000, 5000, 10_000, 50_000, 200_000)


class IngestMetrics:
    """Instruments of the ingest service. Safe for several threads."""

    def __init__(self, metrics: Metrics) -> None:
        def counter(name: str, text: str) -> Counter:
            return metrics.counter(f"ingest_{name}", text)

        def gauge(name: str, text: str) -> Gauge:
            return metrics.gauge(f"ingest_{name}", text)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return metrics.histogram(f"ingest_{name}", text, buckets=buckets)

        self.events = counter("events", "Events committed.")
        self.written_bytes = counter("written_bytes", "Bytes of frames written and synced.")
        self.refused_requests = counter("refused_requests", "Log requests refused after they were taken.")
        self.duplicate_requests = counter("duplicate_requests", "Log requests answered from memory of the first.")
        self.storage_failures = counter("storage_failures", "Appends that failed and are retried.")
        self.batch_events = histogram("batch_events", "Events of one committed request.", _EVENTS)
        self.frame_events = histogram("frame_events", "Events of one frame.", _EVENTS)
        self.frame_requests = histogram("frame_requests", "Requests joined in one frame.", _EVENTS)
        self.commit_seconds = histogram("commit_seconds", "Time to append a frame: write, sync, publish.", _SECONDS)
        self.sync_seconds = histogram("sync_seconds", "Time of one sync of the active segment.", _SECONDS)
        self.acknowledge_seconds = histogram(
            "acknowledge_seconds", "Time from the receipt of a log request to its acknowledgement.", _SECONDS
        )
        self.buffered_bytes = gauge("buffered_bytes", "Bytes accepted and not yet synced.")
        self.buffered_bytes_max = gauge("buffered_bytes_max", "Most bytes that may wait to be synced.")
        self.committed_position = gauge("committed_position", "Highest synced position.")
        self.publish_failures = counter("publish_failures", "Connections to the stream service that failed.")
        self.unpublished_frames = counter("unpublished_frames", "Frames left to history instead of being published.")
        self.segments = metrics.gauge("ingest_segments", "Segments by state.", ["state"])
        self.disk_bytes = gauge("disk_bytes", "Bytes of all segments.")
        self.free_bytes = gauge("free_bytes", "Bytes free on the log's disk.")
        self.recovered_torn_bytes = gauge("recovered_torn_bytes", "Unacknowledged bytes cut at the last start.")
        self.damaged_positions = gauge("damaged_positions", "Committed positions known to be unreadable.")
        self.quarantined_files = gauge("quarantined_files", "Files in quarantine.")
        self.sealed_segments = counter("sealed_segments", "Segments sealed.")
        self.sealing_failures = counter("sealing_failures", "Attempts to seal a segment that failed.")
        self.sealing_seconds = histogram("sealing_seconds", "Time to seal a segment.", (0.5, 1, 2, 5, 10, 30, 60, 300))

    def observe_commit(
        self, *, events: int, written_bytes: int, batches: Sequence[int], commit_s: float, sync_s: float
    ) -> None:
        """Count one committed frame; batches are the numbers of events of its requests."""
        self.events.inc(events)
        self.written_bytes.inc(written_bytes)
        self.frame_events.observe(events)
        self.frame_requests.observe(len(batches))
        for batch in batches:
            self.batch_events.observe(batch)
        self.commit_seconds.observe(commit_s)
        self.sync_seconds.observe(sync_s)
