"""Between protobuf bytes and Arrow columns, without a Python object an event.

Requests are seen through views of the public messages: messages with the same field numbers and a
simpler shape, made from the public descriptors when the module's codec is built. The head view
leaves events unparsed, so that a request is counted and identified before anything is spent on it;
the column view reads a Struct payload as bytes (ptars knows no recursive messages) and a Timestamp
as its two numbers (their ranges are checked afterwards, by rule); the shape view has only the nesting
of messages and the payloads typed as structures, with all events of a request merged into one.

Invariants: text is valid UTF-8 (ptars refuses anything else); rows come in the order of the bytes.
ptars is given nothing that protobuf's own parser has not taken apart by its shape, which read_head does:
ptars 0.0.25 follows groups as deep as they go (a request of a few megabytes would end the process, its
stack being used up) and panics on lengths of nearly 2^64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ptars
import pyarrow as pa
from eventlog.v1 import event_pb2, ingest_service_pb2, query_service_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from shared.columns.arrow import ListArray, StructArray
from shared.errors import EventValidationException

_FIELD = descriptor_pb2.FieldDescriptorProto
_VIEW_PACKAGE = "eventlog.view"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What a log request says besides its events, and how many of them have a payload typed as a structure."""

    count: int
    request_id: str
    durability: int
    expected_last_position: int | None
    structures: int = 0


class WireCodec:
    """Parses log requests and makes events' bytes. Several threads may use it."""

    def __init__(self) -> None:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(_view_file())
        head = pool.FindMessageTypeByName(f"{_VIEW_PACKAGE}.RequestHead")
        self._head: type[Message] = message_factory.GetMessageClass(head)
        shape = pool.FindMessageTypeByName(f"{_VIEW_PACKAGE}.RequestShape")
        self._shape: type[Message] = message_factory.GetMessageClass(shape)
        columns = pool.FindMessageTypeByName(f"{_VIEW_PACKAGE}.RequestColumns")
        self._request: type[Message] = message_factory.GetMessageClass(columns)
        self._columns = ptars.HandlerPool([columns.file]).get_for_message(columns)
        answers = pool.FindMessageTypeByName(f"{_VIEW_PACKAGE}.Events")
        self._events = ptars.HandlerPool([answers.file]).get_for_message(answers)
        self._events_schema: pa.Schema = self._events.schema()

    def read_head(self, request: bytes) -> RequestHead:
        """Read everything but the events. Raises EventValidationException (MALFORMED_REQUEST)."""
        try:
            head: Any = self._head.FromString(request)
            shape: Any = self._shape.FromString(request)
        except DecodeError as error:
            raise malformed_request() from error
        expected = head.expected_last_position if head.HasField("expected_last_position") else None
        structures = len(shape.events.payload)
        return RequestHead(len(head.events), head.request_id, head.durability, expected, structures)

    def parse_requests(self, requests: Sequence[bytes]) -> ListArray:
        """Parse the events of several requests whose heads were read: one list of event structs a request.

        Raises EventValidationException (MALFORMED_REQUEST) if any request is malformed, without
        saying which.
        """
        try:
            batch = self._columns.list_to_record_batch(list(requests))
        except ValueError as error:
            raise malformed_request() from error
        return batch.column("events")

    def parse_events(self, request: bytes) -> Message:
        """Parse a request into an object, slowly: a payload typed as a structure is the bytes of it.

        Its `events` are those of LogBatchRequest, and what is unknown is kept when it is serialised.
        Raises EventValidationException (MALFORMED_REQUEST).
        """
        try:
            return self._request.FromString(request)
        except DecodeError as error:
            raise malformed_request() from error

    @property
    def event_type(self) -> pa.StructType:
        """Arrow type of a recorded event as events_to_bytes takes it."""
        list_type = self._events_schema.field("events").type
        assert isinstance(list_type, pa.ListType)
        assert isinstance(list_type.value_type, pa.StructType)
        return list_type.value_type

    def events_to_bytes(self, events: StructArray) -> bytes:
        """Bytes of `repeated Event events = 1`: a prefix of any message that begins with that field."""
        offsets = pa.array([0, len(events)], pa.int32())
        lists = pa.ListArray.from_arrays(offsets, events).cast(self._events_schema.field("events").type)
        batch = pa.RecordBatch.from_arrays([lists], schema=self._events_schema)
        return bytes(self._events.record_batch_to_array(batch)[0].as_py())

    def bytes_to_events(self, data: bytes) -> StructArray:
        """The events that events_to_bytes made bytes of. Never for bytes from outside: see above.

        Raises EventValidationException (MALFORMED_REQUEST).
        """
        try:
            batch = self._events.list_to_record_batch([data])
        except ValueError as error:
            raise malformed_request() from error
        return batch.column("events").values


def malformed_request() -> EventValidationException:
    """The error for bytes that are not the message they should be."""
    return EventValidationException(
        "the request is not a valid protobuf message: check that the stubs are of this version and that "
        "all text is UTF-8",
        reason="MALFORMED_REQUEST",
    )


def _view_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="eventlog/view.proto", package=_VIEW_PACKAGE, syntax="proto3")
    time = file.message_type.add(name="Time")
    time.field.add(name="seconds", number=1, type=_FIELD.TYPE_INT64, label=_FIELD.LABEL_OPTIONAL)
    time.field.add(name="nanos", number=2, type=_FIELD.TYPE_INT32, label=_FIELD.LABEL_OPTIONAL)
    _copy(file, event_pb2.EventMetadata.DESCRIPTOR, "EventMetadata")
    _copy(file, event_pb2.NewEvent.DESCRIPTOR, "NewEvent")
    _copy(file, event_pb2.Event.DESCRIPTOR, "Event")
    request = ingest_service_pb2.LogBatchRequest.DESCRIPTOR
    _copy(file, request, "RequestColumns")
    head = _copy(file, request, "RequestHead")
    head.field[0].type = _FIELD.TYPE_BYTES
    head.field[0].ClearField("type_name")
    _add_shape(file, request)
    _copy(file, query_service_pb2.ListEventsResponse.DESCRIPTOR, "Events")
    del file.message_type[-1].field[1:]
    return file


def _add_shape(file: descriptor_pb2.FileDescriptorProto, request: Descriptor) -> None:
    """Add a view of requests with nothing in it but the messages within an event, and its structure.

    In it `events` is not repeated, so protobuf merges all events into one: one object a request, whose
    `payload` has an element for each structure of the request.
    """
    file.message_type.add(name="Anything")
    event = file.message_type.add(name="EventShape")
    columns = next(message for message in file.message_type if message.name == "NewEvent")
    for field in columns.field:
        if field.type == _FIELD.TYPE_MESSAGE:
            event.field.add(
                name=field.name,
                number=field.number,
                type=_FIELD.TYPE_MESSAGE,
                label=_FIELD.LABEL_OPTIONAL,
                type_name=f".{_VIEW_PACKAGE}.Anything",
            )
        elif field.type == _FIELD.TYPE_BYTES:
            event.field.add(name=field.name, number=field.number, type=field.type, label=_FIELD.LABEL_REPEATED)
    shape = _copy(file, request, "RequestShape")
    shape.field[0].type_name = f".{_VIEW_PACKAGE}.EventShape"
    shape.field[0].label = _FIELD.LABEL_OPTIONAL


def _copy(
    file: descriptor_pb2.FileDescriptorProto, descriptor: Descriptor, name: str
) -> descriptor_pb2.DescriptorProto:
    """Add a view of a public message: same numbers, Struct as bytes, Timestamp as numbers, enums as int32."""
    message = file.message_type.add()
    descriptor.CopyToProto(message)
    message.name = name
    for field in message.field:
        if field.type_name == ".google.protobuf.Struct":
            field.type = _FIELD.TYPE_BYTES
            field.ClearField("type_name")
        elif field.type_name == ".google.protobuf.Timestamp":
            field.type_name = f".{_VIEW_PACKAGE}.Time"
        elif field.type == _FIELD.TYPE_ENUM:
            field.type = _FIELD.TYPE_INT32
            field.ClearField("type_name")
        elif field.type_name:
            field.type_name = f".{_VIEW_PACKAGE}.{field.type_name.rsplit('.', 1)[1]}"
    return message
