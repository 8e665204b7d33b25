"""Events: their model, ids, document form and standard types. Knows neither the wire nor the disk."""

from shared.events.document import parse_document, to_document
from shared.events.ids import following_event_ids, format_event_id, is_log_id, new_log_id, parse_event_id
from shared.events.model import Event, EventFilters, EventMetadata, ExactEvent, RecordedEvent, ReplayState
from shared.events.registry import SchemaRegistry, standard_registry
from shared.events.standard_types import HOOK_EVENTS, PIPELINE_EVENTS, PROCESSING_EVENTS
from shared.events.timestamps import format_timestamp, parse_timestamp, to_datetime, to_nanoseconds

__all__ = [
    "HOOK_EVENTS",
    "PIPELINE_EVENTS",
    "PROCESSING_EVENTS",
    "Event",
    "EventFilters",
    "EventMetadata",
    "ExactEvent",
    "RecordedEvent",
    "ReplayState",
    "SchemaRegistry",
    "following_event_ids",
    "format_event_id",
    "format_timestamp",
    "is_log_id",
    "new_log_id",
    "parse_document",
    "parse_event_id",
    "parse_timestamp",
    "standard_registry",
    "to_datetime",
    "to_document",
    "to_nanoseconds",
]
