"""Recorded events that are passed on as bytes, with the few columns that whoever passes them on looks at.

An answer of the query service begins with `repeated Event events = 1`, and so do the messages that carry events
to consumers: the bytes are the same. Views of the answer (see `wire`) give positions and times, and where each
event ends, without an object for any event.

Invariants: the events of an answer stand before its other fields, one after the other; positions grow. The bytes
come from a service of ours: ptars is given nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import ptars
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool

from shared.columns.answers import AnswerEncoder
from shared.columns.arrow import StringArray, StructArray
from shared.columns.bytes_view import value_lengths
from shared.errors import EventStorageException

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "eventlog.encoded"
_NANOS_PER_SECOND = 1_000_000_000
# Values of lengths and numbers from which on a varint takes one byte more.
_VARINT_STEPS = np.array([1 << 7, 1 << 14, 1 << 21, 1 << 28], np.int64)

Positions = npt.NDArray[np.uint64]
Nanoseconds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodedEvents:
    """Events as the bytes of `repeated Event events = 1`; the columns have a row for each."""

    data: bytes
    positions: Positions
    timestamps_ns: Nanoseconds
    recorded_ns: Nanoseconds

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where each event ends in the data."""
        return _ends(self.data)

    @cached_property
    def _each(self) -> Any:
        """The bytes of each event, as an array over the data."""
        offsets = np.concatenate(([0], self.ends))
        return pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(self), [None, pa.py_buffer(offsets.data), pa.py_buffer(self.data)]
        )

    def correlation_ids(self) -> set[str]:
        """The correlation ids that occur."""
        return {text for text in self.correlation_column().unique().to_pylist() if text}

    def correlation_column(self) -> StringArray:
        """The correlation id of each event; null where it has none."""
        events: StructArray = _views().correlations.list_to_record_batch([self.data]).column("events").values
        return events.field("correlation_id")

    def slice(self, start: int, stop: int) -> "EncodedEvents":
        """The events of [start, stop)."""
        if start == 0 and stop == len(self):
            return self
        begin, end = (int(self.ends[at - 1]) if at else 0 for at in (start, stop))
        return EncodedEvents(
            self.data[begin:end],
            self.positions[start:stop],
            self.timestamps_ns[start:stop],
            self.recorded_ns[start:stop],
        )

    def pick(self, rows: npt.NDArray[np.intp]) -> "EncodedEvents":
        """The events of these rows, which grow."""
        if len(rows) == len(self):
            return self
        picked = self._each.take(pa.array(rows))
        return EncodedEvents(
            (picked.buffers()[2] or pa.py_buffer(b"")).to_pybytes(),
            self.positions[rows],
            self.timestamps_ns[rows],
            self.recorded_ns[rows],
        )


def encode_events(encoder: AnswerEncoder, events: pa.RecordBatch, *, payload_as_struct: bool = False) -> EncodedEvents:
    """Recorded events (EVENT_SCHEMA) as bytes. Raises what AnswerEncoder.encode raises."""
    timestamps, recorded = (
        events.column(name).cast(pa.int64()).to_numpy(zero_copy_only=False) for name in ("timestamp", "recorded_at")
    )
    positions = events.column("position").to_numpy(zero_copy_only=False)
    data = encoder.encode(events, payload_as_struct=payload_as_struct)
    return EncodedEvents(data, positions, timestamps, recorded)


def read_answer(message: bytes) -> tuple[EncodedEvents, bytes]:
    """The events of an answer of the query service, and its field 2, undecoded; b"" where it is not set.

    Raises EventStorageException where the bytes are no such answer.
    """
    try:
        batch = _views().answer.list_to_record_batch([message])
    except ValueError as error:
        raise EventStorageException(f"the query service answered with bytes that are no events: {error}") from error
    events: StructArray = batch.column("events").values
    rest = batch.column("rest")[0].as_py() or b""
    encoded = EncodedEvents(
        message,
        events.field("position").to_numpy(zero_copy_only=False),
        _nanoseconds(events.field("timestamp")),
        _nanoseconds(events.field("recorded_at")),
    )
    if rest or not len(encoded):
        end = int(encoded.ends[-1]) if len(encoded) else 0
        encoded = EncodedEvents(message[:end], encoded.positions, encoded.timestamps_ns, encoded.recorded_ns)
    return encoded, rest


def interleave(parts: Sequence[EncodedEvents]) -> EncodedEvents:
    """The events of all parts in the order of their positions, of which none may occur twice."""
    positions = np.concatenate([part.positions for part in parts])
    order = np.argsort(positions, kind="stable")
    bases = np.cumsum([0, *(len(part.data) for part in parts)])
    ends = np.concatenate([part.ends + base for part, base in zip(parts, bases[:-1], strict=True)])
    starts = np.concatenate(([0], ends[:-1]))
    joined = memoryview(b"".join(part.data for part in parts))
    # Neighbours that stay neighbours are copied together.
    first = np.flatnonzero(np.diff(order, prepend=-2) != 1)
    last = np.concatenate((first[1:] - 1, [len(order) - 1]))
    runs = zip(starts[order[first]].tolist(), ends[order[last]].tolist(), strict=True)
    return EncodedEvents(
        b"".join(joined[start:end] for start, end in runs),
        positions[order],
        np.concatenate([part.timestamps_ns for part in parts])[order],
        np.concatenate([part.recorded_ns for part in parts])[order],
    )


def event_batch_field(number: int, events: EncodedEvents, *, resume_position: int) -> bytes:
    """An EventBatch as the field of this number in a message: its tag, its length and its bytes."""
    return joined_event_batch(number, [events.data], resume_position=resume_position)


def joined_event_batch(number: int, pieces: Sequence[bytes], *, resume_position: int, rest: bytes = b"") -> bytes:
    """The same of several pieces of events. rest: the encoded fields of the EventBatch beside these two."""
    resume = b"\x10" + _varint(resume_position)
    length = sum(map(len, pieces)) + len(resume) + len(rest)
    return b"".join([_varint(number << 3 | 2), _varint(length), *pieces, resume, rest])


def _nanoseconds(times: StructArray) -> Nanoseconds:
    seconds: Nanoseconds = times.field("seconds").to_numpy(zero_copy_only=False)
    nanos: npt.NDArray[np.int32] = times.field("nanos").to_numpy(zero_copy_only=False)
    return seconds * _NANOS_PER_SECOND + nanos


def _ends(data: bytes) -> npt.NDArray[np.int64]:
    lengths = value_lengths(_views().spans.list_to_record_batch([data]).column("events").values).astype(np.int64)
    # One byte of tag, then the length as a varint.
    ends: npt.NDArray[np.int64] = np.cumsum(lengths + 2 + np.searchsorted(_VARINT_STEPS, lengths, side="right"))
    return ends


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


@dataclass(frozen=True, slots=True)
class _Views:
    answer: Any
    spans: Any
    correlations: Any


@cache
def _views() -> _Views:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_view_file())
    handlers = ptars.HandlerPool([pool.FindFileByName("eventlog/encoded.proto")])
    names = ("Answer", "Spans", "Correlations")
    return _Views(*(handlers.get_for_message(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in names))


def _view_file() -> descriptor_pb2.FileDescriptorProto:
    """Views of an answer: of each event its position and times, or its length, or its correlation id."""
    file = descriptor_pb2.FileDescriptorProto(name="eventlog/encoded.proto", package=_PACKAGE, syntax="proto3")
    _add(file, "Time", ("seconds", 1, _FIELD.TYPE_INT64), ("nanos", 2, _FIELD.TYPE_INT32))
    _add(file, "Paced", ("position", 2, _FIELD.TYPE_UINT64), ("timestamp", 3, "Time"), ("recorded_at", 4, "Time"))
    _add(file, "Chained", ("correlation_id", 7, _FIELD.TYPE_STRING))
    _add(file, "Answer", ("events", 1, "Paced"), ("rest", 2, _FIELD.TYPE_BYTES))
    _add(file, "Spans", ("events", 1, _FIELD.TYPE_BYTES))
    _add(file, "Correlations", ("events", 1, "Chained"))
    return file


def _add(file: descriptor_pb2.FileDescriptorProto, name: str, *fields: tuple[str, int, Any]) -> None:
    """Add a view: fields with name, number, and a type of protobuf or the name of a view. Only events repeat."""
    message = file.message_type.add(name=name)
    for field_name, number, kind in fields:
        label = _FIELD.LABEL_REPEATED if field_name == "events" else _FIELD.LABEL_OPTIONAL
        field = message.field.add(name=field_name, number=number, label=label)
        if isinstance(kind, str):
            field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
        else:
            field.type = kind
