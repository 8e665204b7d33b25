"""Recorded events from the bytes of an answer, by column: the way back from `answers`.

Invariant: what was encoded with its payloads as text decodes to the same columns.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import Array, StructArray
from shared.columns.schema import EVENT_SCHEMA
from shared.columns.wire import WireCodec

_NANOS_PER_SECOND = 1_000_000_000


def decode_events(codec: WireCodec, data: bytes) -> pa.RecordBatch:
    """The events (EVENT_SCHEMA) of `repeated Event events = 1`, payloads as text.

    For bytes of a service of ours only. Raises EventValidationException (MALFORMED_REQUEST) where they are none.
    """
    events = codec.bytes_to_events(data)
    metadata: StructArray = events.field("metadata")
    columns: dict[str, Array] = {
        "position": events.field("position"),
        "recorded_at": _times(events.field("recorded_at")),
        "timestamp": _times(events.field("timestamp")),
        "payload": events.field("payload_json"),
    }
    for name in ("type", "source", "correlation_id"):
        columns[name] = events.field(name)
    for name in ("host", "version", "user", "session_id", "tags"):
        columns[name] = metadata.field(name)
    arrays = [columns[field.name].cast(field.type) for field in EVENT_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=EVENT_SCHEMA)


def _times(times: StructArray) -> Array:
    seconds: npt.NDArray[np.int64] = times.field("seconds").to_numpy(zero_copy_only=False)
    nanos: npt.NDArray[Any] = times.field("nanos").to_numpy(zero_copy_only=False)
    return pa.array(seconds * _NANOS_PER_SECOND + nanos)
