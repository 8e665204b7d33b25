"""What can be configured: one frozen class a section, named and keyed as in the YAML.

Sizes are int bytes, durations float seconds. The docstring below a field says what it does and in which
unit; its annotation says how it is written and its range. docs/configuration.md says the same to operators.
Numbers given from code are in these units; how people write them is the business of `kinds`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from shared.config import kinds
from shared.config.words import DAY, GIB, HOUR, KIB, MB, MIB, MINUTE, TIB, WEEK, format_size
from shared.log.limits import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, FRAME_BYTES_MAX

_AGES = kinds.duration(at_least=1, at_most=36500 * DAY, bare_unit="d")
_RETENTION_BY_TYPE = {"error": 365 * DAY, "audit": 2555 * DAY}


class Section(BaseModel):
    """Base of all sections: frozen, and strict about its keys. An empty section has its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, given: Any) -> Any:
        # A section whose keys are all commented out.
        return {} if given is None else given


class ServerConfig(Section):
    """What every service has."""

    listen: Annotated[str, kinds.address()]
    """Address of the gRPC server."""
    metrics_listen: Annotated[str, kinds.address()]
    """Address of the HTTP server with /metrics."""
    grace: Annotated[float, kinds.duration(at_least=0, at_most=HOUR)] = 10.0
    """Seconds that running requests get to end at shutdown."""

    @model_validator(mode="after")
    def _addresses_differ(self) -> "ServerConfig":
        if self.listen == self.metrics_listen and not self.listen.endswith(":0"):
            raise _relation("metrics_listen", self.metrics_listen, "another address than listen")
        return self


class LoggingConfig(Section):
    """The producer's side: EventLogger."""

    buffer_size: Annotated[int, kinds.whole(at_least=1, at_most=10_000_000)] = 10_000
    """Most events that wait in the producer to be sent."""
    flush_interval: Annotated[float, kinds.duration(at_least=0, at_most=HOUR)] = 1.0
    """Seconds that an event waits at most before it is sent, when nobody waits for it."""
    async_writes: Annotated[bool, kinds.switch()] = True
    """True: `log_buffered` returns at once, and its event is sent in the background. False: when acknowledged."""


class RotationConfig(Section):
    """When the active segment is closed and the next opened: at whichever comes first."""

    max_size: Annotated[int, kinds.size(at_least=64 * KIB, at_most=TIB)] = 100 * MB
    """Bytes of the active segment."""
    max_raw_size: Annotated[int, kinds.size(at_least=MIB, at_most=TIB)] = GIB
    """Bytes of the active segment's events before compression. It bounds the time sealing takes."""
    max_age: Annotated[float, _AGES] = 30 * DAY
    """Seconds since the first event of the segment was recorded. A bare number in the file is days."""
    max_events: Annotated[int, kinds.whole(at_least=1, at_most=100_000_000)] = 1_000_000
    """Events in the active segment. It keeps the unsealed tail quick to query."""
    compress: Annotated[bool, kinds.switch()] = True
    """Whether sealed segments are compressed. The active one always is."""


class IndexConfig(Section):
    """The index sidecars of sealed segments."""

    enabled: Annotated[bool, kinds.switch()] = True
    """Whether sidecars are written and used. Without them queries are slower and answer the same."""
    rebuild_interval: Annotated[float, kinds.duration(at_least=1, at_most=365 * DAY)] = 3600.0
    """Seconds between two looks for missing or damaged sidecars, which are then made anew."""


def _with_defaults(given: dict[str, float]) -> dict[str, float]:
    return {**_RETENTION_BY_TYPE, **given}


class RetentionConfig(Section):
    """How long events are kept after they were recorded."""

    default: Annotated[float, _AGES] = 90 * DAY
    """Seconds for types that by_type does not name. A bare number in the file is days."""
    by_type: Annotated[
        Mapping[Annotated[str, kinds.type_pattern()], Annotated[float, _AGES]],
        BeforeValidator(kinds.value_of_text),
        AfterValidator(_with_defaults),
    ] = Field(default_factory=_RETENTION_BY_TYPE.copy)
    """Seconds by pattern of the type. A type without * and ? means itself and everything below it.

    Entries add to the default ones for error and audit, so that naming another type does not shorten
    theirs. Where several patterns match a type, the most specific decides: the one equal to it, then the
    longest pattern."""


class StorageConfig(Section):
    """The log on disk."""

    base_path: Annotated[Path, kinds.path()] = Path("./data/events/")
    """Directory of the log."""
    rotation: RotationConfig = Field(default_factory=RotationConfig)
    index: IndexConfig = Field(default_factory=IndexConfig)
    retention: RetentionConfig = Field(default_factory=RetentionConfig)
    min_free_bytes: Annotated[int, kinds.size(at_least=0, at_most=1024 * TIB)] = GIB
    """Bytes of free disk below which nothing is appended, so that the disk never really fills."""
    promoted_paths: Annotated[tuple[str, ...], kinds.payload_paths(at_most=64)] = ()
    """Payload paths that sealed segments hold as columns of their own, beside those chosen by frequency."""


class IngestConfig(ServerConfig):
    """ingest_service."""

    listen: Annotated[str, kinds.address()] = "127.0.0.1:50051"
    metrics_listen: Annotated[str, kinds.address()] = "127.0.0.1:9464"
    buffered_bytes_max: Annotated[int, kinds.size(at_least=MIB, at_most=TIB)] = 256 * MIB
    """Bytes of requests accepted and not yet synced. Beyond it requests are refused for now."""
    frame_bytes_max: Annotated[int, kinds.size(at_least=64 * KIB, at_most=FRAME_BYTES_MAX)] = 2 * MIB
    """Most request bytes joined in one group commit. A larger single batch is a frame of its own."""
    batch_events_max: Annotated[int, kinds.whole(at_least=1, at_most=BATCH_EVENTS_MAX)] = 10_000
    """Most events in one request."""
    batch_bytes_max: Annotated[int, kinds.size(at_least=64 * KIB, at_most=BATCH_BYTES_MAX)] = 16 * MIB
    """Most bytes of one request."""
    request_id_horizon: Annotated[float, kinds.duration(at_least=1, at_most=WEEK)] = 3600.0
    """Seconds for which request ids are remembered, so that a repeated request logs nothing twice."""
    request_ids_max: Annotated[int, kinds.whole(at_least=1, at_most=100_000_000)] = 200_000
    """Most request ids remembered; beyond it the oldest are forgotten before the horizon."""
    publish_to: Annotated[str, kinds.peer_address()] = "127.0.0.1:50053"
    """Address of the stream service that committed events are sent to. Empty: it asks the query service for them."""
    host: Annotated[str, kinds.label()] = ""
    """Host of events that come without one. Empty: this machine's host name."""
    version: Annotated[str, kinds.label()] = ""
    """Version of events that come without one. Empty: eventlog's own."""

    @model_validator(mode="after")
    def _batch_fits_buffer(self) -> "IngestConfig":
        if self.buffered_bytes_max < self.batch_bytes_max:
            least = format_size(self.batch_bytes_max)
            raise _relation(
                "buffered_bytes_max",
                format_size(self.buffered_bytes_max),
                f"at least {least}, or lower batch_bytes_max: the largest batch must fit the buffer",
            )
        return self


class QueryConfig(ServerConfig):
    """query_service. The directory it reads is storage.base_path."""

    listen: Annotated[str, kinds.address()] = "127.0.0.1:50052"
    metrics_listen: Annotated[str, kinds.address()] = "127.0.0.1:9465"
    threads: Annotated[int, kinds.whole(at_least=1, at_most=256)] = 2
    """Threads that one search uses."""
    running_max: Annotated[int, kinds.whole(at_least=1, at_most=256)] = 4
    """Searches, counts, scans and exports that run at the same time; as many again of quick reads."""
    calls_max: Annotated[int, kinds.whole(at_least=1, at_most=100_000)] = 64
    """Calls that run and wait at the same time, of either sort. More are refused."""
    database_bytes_max: Annotated[int, kinds.size(at_least=64 * MIB, at_most=TIB)] = 1 * GIB
    """Bytes that all searches together may use for what they compute."""
    tail_bytes_max: Annotated[int, kinds.size(at_least=MIB, at_most=TIB)] = 256 * MIB
    """Bytes of events that are not sealed yet, kept decoded between searches; a quarter more for payload values."""
    slow_query: Annotated[float, kinds.duration(at_least=0.001, at_most=DAY)] = 1.0
    """Seconds from which on an answer is logged as slow, with its filter."""


class StreamingConfig(ServerConfig):
    """stream_service."""

    listen: Annotated[str, kinds.address()] = "127.0.0.1:50053"
    metrics_listen: Annotated[str, kinds.address()] = "127.0.0.1:9466"
    max_subscribers: Annotated[int, kinds.whole(at_least=1, at_most=100_000)] = 100
    """Most subscriptions at a time."""
    default_buffer_size: Annotated[int, kinds.whole(at_least=1, at_most=10_000_000)] = 1000
    """Events that wait for a subscriber that asks for no size of its own."""
    backpressure_threshold: Annotated[float, kinds.number(at_least=0.01, at_most=1)] = 0.8
    """Share of its buffer from which on a subscription is reported as under pressure."""
    slow_consumer_timeout: Annotated[float, kinds.duration(at_least=0.1, at_most=DAY)] = 30.0
    """Seconds after which a subscriber that takes nothing is disconnected."""
    query_address: Annotated[str, kinds.address()] = "127.0.0.1:50052"
    """Address of the query service, which history is read from."""
    heartbeat_interval: Annotated[float, kinds.duration(at_least=0.1, at_most=HOUR)] = 5.0
    """Longest silence of a stream, in seconds. A peer that is silent for two of them is taken for dead."""
    buffer_bytes_max: Annotated[int, kinds.size(at_least=MIB, at_most=TIB)] = 64 * MIB
    """Bytes of recent events that all subscribers share as their buffer; older ones are read from history."""
    max_durable_subscriptions: Annotated[int, kinds.whole(at_least=1, at_most=100_000)] = 1000
    """Most durable subscriptions, connected or not."""
    max_deliveries: Annotated[int, kinds.whole(at_least=1, at_most=1000)] = 5
    """Failed deliveries of an event to a durable subscription after which it is parked."""
    acknowledge_timeout: Annotated[float, kinds.duration(at_least=0.1, at_most=DAY)] = 5 * MINUTE
    """Seconds after which an event that its consumer does not acknowledge counts as failed, and is delivered again."""


class ReplayConfig(Section):
    """Replay, in stream_service."""

    max_speed: Annotated[float, kinds.number(at_least=0.1, at_most=1_000_000)] = 100.0
    """Highest speed, as a multiple of the recorded pace."""
    max_replays: Annotated[int, kinds.whole(at_least=1, at_most=1000)] = 16
    """Most replays at a time."""
    heartbeat_interval: Annotated[float, kinds.duration(at_least=0.1, at_most=HOUR)] = 5.0
    """Seconds after which a replay in which nothing is due shows that it lives."""
    checkpoint_dir: Annotated[Path, kinds.path()] = Path("./data/events/checkpoints/")
    """Directory of saved positions."""
    session_cache_size: Annotated[int, kinds.whole(at_least=0, at_most=10_000_000)] = 1000
    """Sessions of which the correlation ids are remembered between replays."""


class AnalysisConfig(ServerConfig):
    """analysis_service."""

    listen: Annotated[str, kinds.address()] = "127.0.0.1:50054"
    metrics_listen: Annotated[str, kinds.address()] = "127.0.0.1:9467"
    query_address: Annotated[str, kinds.address()] = "127.0.0.1:50052"
    """Address of the query service, which history is read from."""
    pattern_window: Annotated[float, kinds.duration(at_least=1, at_most=3650 * DAY)] = 3600.0
    """Seconds back from now that patterns are sought in, unless a request says otherwise."""
    anomaly_sensitivity: Annotated[float, kinds.number(at_least=0, at_most=1)] = 0.95
    """Sensitivity, 0 (few alarms) to 1 (many), unless a request says otherwise."""
    statistics_cache_ttl: Annotated[float, kinds.duration(at_least=0, at_most=DAY)] = 5 * MINUTE
    """Seconds for which computed statistics are answered again."""


class TelemetryConfig(Section):
    """Logs of all services."""

    log_level: Annotated[str, kinds.choice("debug", "info", "warning", "error")] = "info"
    """Least severe log records that are written."""
    log_format: Annotated[str, kinds.choice("json", "text")] = "json"
    """One JSON object a line, or text for reading at a terminal."""


class EventConfig(Section):
    """The whole configuration: what stands under `events:`."""

    logging: LoggingConfig = Field(default_factory=LoggingConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    ingest: IngestConfig = Field(default_factory=IngestConfig)
    query: QueryConfig = Field(default_factory=QueryConfig)
    streaming: StreamingConfig = Field(default_factory=StreamingConfig)
    replay: ReplayConfig = Field(default_factory=ReplayConfig)
    analysis: AnalysisConfig = Field(default_factory=AnalysisConfig)
    telemetry: TelemetryConfig = Field(default_factory=TelemetryConfig)


def _relation(key: str, value: str, expected: str) -> PydanticCustomError:
    """An error about two keys of one section, reported at `key`."""
    return PydanticCustomError("relation", "{expected}", {"key": key, "value": value, "expected": expected})
