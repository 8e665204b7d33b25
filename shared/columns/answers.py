"""Recorded events as the bytes of an answer, by column.

Invariant: the payload's text leaves as it came in, byte for byte. As a structure it is what a
structure can hold: numbers are doubles, those beyond a double's range the largest one.
"""

import json
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from google.protobuf.struct_pb2 import Struct

from shared.columns.arrow import Array, BooleanArray, StringArray, StructArray
from shared.columns.arrow import compute as pc
from shared.columns.wire import WireCodec
from shared.errors import EventValidationException, FieldViolation

_ID_BYTES = 25
_POSITION_BYTES = 13
_ALPHABET = np.frombuffer(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", np.uint8)
_NANOS_PER_SECOND = 1_000_000_000
# Protobuf's parsers follow 100 levels of messages; an answer has some of its own around the structure.
_STRUCT_MESSAGES_MAX = 96


class AnswerEncoder:
    """Makes `repeated Event events = 1` of events. Several threads may use it."""

    def __init__(self, codec: WireCodec, log_id: str) -> None:
        self._codec = codec
        self._log_id = log_id

    def encode(self, events: pa.RecordBatch, *, payload_as_struct: bool = False) -> bytes:
        """Bytes of the events (EVENT_SCHEMA), in their order.

        Raises EventValidationException (INVALID_FIELD) where a payload is nested deeper than a structure may be.
        """
        count = events.num_rows
        payload: Array = events.column("payload")
        structs: Array = pa.nulls(count, pa.binary())
        if payload_as_struct:
            structs = _structs(payload, events.column("position"))
            payload = pa.nulls(count, pa.string())
        metadata = [events.column(name) for name in ("host", "version", "user", "session_id", "tags")]
        wanted = self._codec.event_type
        columns: dict[str, Array] = {
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


def event_ids(log_id: str, positions: Array) -> StringArray:
    """Ids of events by their positions (uint64), as shared.events.ids.format_event_id makes them one by one."""
    numbers = positions.to_numpy(zero_copy_only=False).astype(np.uint64)
    text = np.empty((len(numbers), _ID_BYTES), np.uint8)
    text[:, : _ID_BYTES - _POSITION_BYTES] = np.frombuffer(f"evt_{log_id}".encode(), np.uint8)
    for index in range(_POSITION_BYTES):
        shift = np.uint64(5 * (_POSITION_BYTES - 1 - index))
        text[:, _ID_BYTES - _POSITION_BYTES + index] = _ALPHABET[(numbers >> shift) & np.uint64(31)]
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * np.int32(_ID_BYTES)
    return pa.StringArray.from_buffers(len(numbers), _buffer(offsets), _buffer(text))


def time_mask(events: pa.RecordBatch, *, start_ns: int | None, end_ns: int | None) -> BooleanArray | None:
    """Which events have a timestamp in [start, end); None where all do by definition."""
    timestamps = events.column("timestamp").cast(pa.int64())
    mask = None
    if start_ns is not None:
        mask = pc.greater_equal(timestamps, start_ns)
    if end_ns is not None:
        before = pc.less(timestamps, end_ns)
        mask = before if mask is None else pc.and_(mask, before)
    return mask


def _buffer(array: npt.NDArray[Any]) -> pa.Buffer:
    return pa.py_buffer(array.data)


def _time(column: Array) -> StructArray:
    nanoseconds = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    seconds, nanos = np.divmod(nanoseconds, _NANOS_PER_SECOND)
    return pa.StructArray.from_arrays(
        [pa.array(seconds, pa.int64()), pa.array(nanos.astype(np.int32), pa.int32())],
        fields=[pa.field("seconds", pa.int64(), nullable=False), pa.field("nanos", pa.int32(), nullable=False)],
    )


def _structs(payloads: StringArray, positions: Array) -> Array:
    structs = []
    for row, text in enumerate(payloads):
        payload = json.loads(text.as_buffer().to_pybytes(), parse_int=_double, parse_float=_double)
        if _messages(payload) > _STRUCT_MESSAGES_MAX:
            raise _too_deep(positions[row].as_py())
        struct = Struct()
        struct.update(payload)
        structs.append(struct.SerializeToString())
    return pa.array(structs, pa.binary())


def _double(text: str) -> float:
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))


def _messages(value: object) -> int:
    """How deep a JSON value nests as messages: Struct, its entry, Value; or ListValue, Value."""
    if isinstance(value, dict):
        return 1 + max((2 + _messages(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((1 + _messages(item) for item in value), default=0)
    return 0


def _too_deep(position: int) -> EventValidationException:
    problem = (
        f"asks for structures, and the payload at position {position} is nested too deep for one: ask for JSON text"
    )
    return EventValidationException(
        f"payload_form {problem}", violations=[FieldViolation("payload_form", problem)], reason="INVALID_FIELD"
    )
