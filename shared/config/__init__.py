"""Configuration: the specification's YAML under `events:`, typed, validated and frozen.

`load_config` is the way in. Only this package reads the environment. docs/configuration.md describes every
key, deploy/eventlog.yaml is the file with all of them at their defaults.
"""

from shared.config.loading import ENVIRONMENT_PREFIX, load_config
from shared.config.model import (
    AnalysisConfig,
    EventConfig,
    IndexConfig,
    IngestConfig,
    LoggingConfig,
    QueryConfig,
    ReplayConfig,
    RetentionConfig,
    RotationConfig,
    ServerConfig,
    StorageConfig,
    StreamingConfig,
    TelemetryConfig,
)

__all__ = [
    "ENVIRONMENT_PREFIX",
    "AnalysisConfig",
    "EventConfig",
    "IndexConfig",
    "IngestConfig",
    "LoggingConfig",
    "QueryConfig",
    "ReplayConfig",
    "RetentionConfig",
    "RotationConfig",
    "ServerConfig",
    "StorageConfig",
    "StreamingConfig",
    "TelemetryConfig",
    "load_config",
]
