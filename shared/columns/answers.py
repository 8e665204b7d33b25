"""Recorded events as the bytes of an answer, by column.

Invariant: the payload's text leaves as it came in, byte for byte.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.struct_pb2 import Struct

from shared.columns.wire import WireCodec

_ID_BYTES = 25
_POSITION_BYTES = 13
_ALPHABET = np.frombuffer(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", np.uint8)
_NANOS_PER_SECOND = 1_000_000_000


class AnswerEncoder:
    """Makes `repeated Event events = 1` of events. Several threads may use it."""

    def __init__(self, codec: WireCodec, log_id: str) -> None:
        self._codec = codec
        self._log_id = log_id

    def encode(self, events: pa.RecordBatch, *, payload_as_struct: bool = False) -> bytes:
        """Bytes of the events (EVENT_SCHEMA), in their order."""
        count = events.num_rows
        payload: pa.Array = events.column("payload")
        structs: pa.Array = pa.nulls(count, pa.binary())
        if payload_as_struct:
            structs = pa.array([_struct_bytes(text.as_buffer()) for text in payload], pa.binary())
            payload = pa.nulls(count, pa.string())
        metadata = [events.column(name) for name in ("host", "version", "user", "session_id", "tags")]
        wanted = self._codec.event_type
        columns = {
            "id": event_ids(self._log_id, events.column("position")),
            "position": events.column("position"),
            "timestamp": _time(events.column("timestamp")),
            "recorded_at": _time(events.column("recorded_at")),
            "type": events.column("type"),
            "source": events.column("source"),
            "correlation_id": events.column("correlation_id"),
            "payload_json": payload,
            "payload": structs,
            "metadata": pa.StructArray.from_arrays(metadata, fields=list(wanted.field("metadata").type)),
        }
        fields = list(wanted)
        arrays = [columns[field.name] for field in fields]
        return self._codec.events_to_bytes(pa.StructArray.from_arrays(arrays, fields=fields))


def event_ids(log_id: str, positions: pa.UInt64Array) -> pa.StringArray:
    """Ids of events, as shared.events.ids.format_event_id makes them one by one."""
    numbers = positions.to_numpy(zero_copy_only=False).astype(np.uint64)
    text = np.empty((len(numbers), _ID_BYTES), np.uint8)
    text[:, : _ID_BYTES - _POSITION_BYTES] = np.frombuffer(f"evt_{log_id}".encode(), np.uint8)
    for index in range(_POSITION_BYTES):
        shift = np.uint64(5 * (_POSITION_BYTES - 1 - index))
        text[:, _ID_BYTES - _POSITION_BYTES + index] = _ALPHABET[(numbers >> shift) & np.uint64(31)]
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * _ID_BYTES
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text))


def _time(column: pa.Array) -> pa.StructArray:
    nanoseconds = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    seconds, nanos = np.divmod(nanoseconds, _NANOS_PER_SECOND)
    return pa.StructArray.from_arrays(
        [pa.array(seconds, pa.int64()), pa.array(nanos.astype(np.int32), pa.int32())],
        fields=[pa.field("seconds", pa.int64(), nullable=False), pa.field("nanos", pa.int32(), nullable=False)],
    )


def _struct_bytes(payload: pa.Buffer) -> bytes:
    struct = Struct()
    struct.update(json.loads(payload.to_pybytes()))
    return struct.SerializeToString()


def time_mask(events: pa.RecordBatch, *, start_ns: int | None, end_ns: int | None) -> pa.BooleanArray | None:
    """Which events have a timestamp in [start, end); None where all do by definition."""
    timestamps = events.column("timestamp").cast(pa.int64())
    mask = None
    if start_ns is not None:
        mask = pc.greater_equal(timestamps, start_ns)
    if end_ns is not None:
        before = pc.less(timestamps, end_ns)
        mask = before if mask is None else pc.and_(mask, before)
    return mask
