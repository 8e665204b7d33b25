"""Log requests of reference events, serialised before anything is measured.

Every event is another one: repeating a few would make the sealed files look smaller than they are. A request
of one event is a LogRequest and a LogBatchRequest at once: their fields have the same numbers.
"""

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import ptars
import pyarrow as pa
from eventlog.v1 import event_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, timestamp_pb2

from tests.support.reference_events import reference_batch

SEED = 20240120
_PACKAGE = "eventlog.benchmark"
_LENGTH = struct.Struct("<I")
_CHUNK_EVENTS = 50_000


class EventSerializer:
    """Makes the bytes of NewEvent messages from columns, some hundred thousand events a second."""

    def __init__(self) -> None:
        timestamp = descriptor_pb2.FileDescriptorProto()
        timestamp_pb2.DESCRIPTOR.CopyToProto(timestamp)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(timestamp)
        pool.Add(_view_file())
        message = pool.FindMessageTypeByName(f"{_PACKAGE}.NewEvent")
        self._handler = ptars.HandlerPool([message.file]).get_for_message(message)
        self._schema: pa.Schema = self._handler.schema()

    def serialize(self, events: pa.RecordBatch) -> list[bytes]:
        """Return a NewEvent for each row of a batch with EVENT_SCHEMA."""
        metadata = self._schema.field("metadata").type
        columns = {
            "type": events["type"],
            "source": events["source"],
            "correlation_id": events["correlation_id"],
            "payload_json": events["payload"],
            "timestamp": events["timestamp"],
            "metadata": pa.StructArray.from_arrays(
                [events[field.name].cast(field.type) for field in metadata], fields=list(metadata)
            ),
        }
        batch = pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)
        messages: list[bytes] = self._handler.record_batch_to_array(batch).to_pylist()
        return messages


def reference_events(count: int) -> Iterator[bytes]:
    """Make `count` distinct events, each as the bytes of a NewEvent; always the same ones."""
    serializer = EventSerializer()
    for start in range(0, count, _CHUNK_EVENTS):
        yield from serializer.serialize(reference_batch(min(_CHUNK_EVENTS, count - start), SEED, start + 1))


def log_requests(*, requests: int, events_per_request: int) -> Iterator[bytes]:
    """Make requests of distinct events; always the same ones."""
    events = reference_events(requests * events_per_request)
    for _ in range(requests):
        yield b"".join(b"\x0a" + _varint(len(event)) + event for event in islice(events, events_per_request))


def write_requests(path: Path, requests: Iterator[bytes]) -> Path:
    """Write requests to a file for the load generator: each after its length, 4 bytes, little-endian."""
    with path.open("wb") as file:
        for request in requests:
            file.write(_LENGTH.pack(len(request)))
            file.write(request)
    return path


def prepared_requests(directory: Path, *, requests: int, events_per_request: int) -> Path:
    """Return a file of such requests in a directory; made where it is missing, so that cases share it."""
    path = directory / f"{requests}x{events_per_request}.requests"
    return (
        path
        if path.exists()
        else write_requests(path, log_requests(requests=requests, events_per_request=events_per_request))
    )


def read_requests(path: Path) -> list[bytes]:
    """Read a file that write_requests wrote."""
    content = path.read_bytes()
    requests, offset = [], 0
    while offset < len(content):
        (length,) = _LENGTH.unpack_from(content, offset)
        offset += _LENGTH.size
        requests.append(content[offset : offset + length])
        offset += length
    return requests


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes([number])
    assert number < 0x4000, "a reference event is short"
    return bytes([number & 0x7F | 0x80, number >> 7])


def _view_file() -> descriptor_pb2.FileDescriptorProto:
    """NewEvent and its metadata without the Struct payload: ptars knows no recursive messages."""
    file = descriptor_pb2.FileDescriptorProto(
        name="eventlog/benchmark.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto"],
    )
    for original in (event_pb2.EventMetadata, event_pb2.NewEvent):
        message = file.message_type.add()
        original.DESCRIPTOR.CopyToProto(message)
        del message.oneof_decl[:]
        for field in list(message.field):
            field.ClearField("oneof_index")
            field.ClearField("proto3_optional")
            if field.type_name == ".google.protobuf.Struct":
                message.field.remove(field)
            elif field.type_name.startswith(".eventlog.v1."):
                field.type_name = field.type_name.replace("eventlog.v1", _PACKAGE)
    return file
