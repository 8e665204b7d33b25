"""The Arrow schemas of recorded events.

Invariants:
- FRAME_SCHEMA is what a frame of the active segment stores. Position and recorded_at are not in it:
  a frame's header holds its first position and the one time at which it was recorded.
- EVENT_SCHEMA is what every reader yields: the frame's columns with position and recorded_at, in
  the order of positions. Sealed segments have exactly these columns, then promoted ones.
- The id of an event is not stored: it is derived from the log's id and the position.
"""

from typing import Any

import pyarrow as pa

TIMESTAMP = pa.timestamp("ns", tz="UTC")
TAGS = pa.list_(pa.field("item", pa.string(), nullable=False))

_PRODUCED: list["pa.Field[Any]"] = [
    pa.field("timestamp", TIMESTAMP, nullable=False),
    pa.field("type", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("correlation_id", pa.string()),
    pa.field("payload", pa.string(), nullable=False),
    pa.field("host", pa.string(), nullable=False),
    pa.field("version", pa.string(), nullable=False),
    pa.field("user", pa.string()),
    pa.field("session_id", pa.string()),
    pa.field("tags", TAGS, nullable=False),
]

FRAME_SCHEMA = pa.schema(_PRODUCED)

EVENT_SCHEMA = pa.schema(
    [
        pa.field("position", pa.uint64(), nullable=False),
        pa.field("recorded_at", TIMESTAMP, nullable=False),
        *_PRODUCED,
    ]
)
