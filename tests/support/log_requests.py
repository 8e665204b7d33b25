"""Log requests as bytes, and the context of a call that never was on a wire."""

import asyncio
from typing import Any

from eventlog.v1 import event_pb2
from eventlog.v1 import ingest_service_pb2 as pb

from ingest_service.pending import PendingRequest, StreamOrder
from shared.columns.wire import WireCodec

_codec = WireCodec()


def new_event(**fields: Any) -> event_pb2.NewEvent:
    """A proposed event; its type is test.happened unless said otherwise."""
    return event_pb2.NewEvent(**{"type": "test.happened", **fields})


def log_request(*events: event_pb2.NewEvent, **fields: Any) -> bytes:
    """Bytes of a LogBatchRequest."""
    return pb.LogBatchRequest(events=events, **fields).SerializeToString()


def raw_request(*events: bytes) -> bytes:
    """Bytes of a request with events that are given as bytes, sound or not."""
    return b"".join(b"\x0a" + varint(len(event)) + event for event in events)


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def numbered(first: int, count: int, **fields: Any) -> bytes:
    """A request of events whose payloads are numbered from `first` on."""
    return log_request(*(new_event(payload_json=f'{{"n":{first + n}}}') for n in range(count)), **fields)


def pending(
    body: bytes,
    *,
    durable: bool = True,
    stream: StreamOrder | None = None,
    answer: "asyncio.Future[Any] | None" = None,
) -> PendingRequest:
    """A request on its way. Without an answer of its own it gets one that belongs to no running loop."""
    return PendingRequest(body, _codec.read_head(body), durable, answer or _unanswered(), stream)


def _unanswered() -> "asyncio.Future[Any]":
    loop = asyncio.new_event_loop()
    try:
        return loop.create_future()
    finally:
        loop.close()


class FakeContext:
    """What a servicer asks of the context of a call: how much time is left, None for no deadline."""

    def __init__(self, time_remaining: float | None = None) -> None:
        self._time_remaining = time_remaining

    def time_remaining(self) -> float | None:
        """Seconds until the deadline."""
        return self._time_remaining


# Event bytes that no parser may follow: each once ended or hung a parser. The head of such a request is refused.
HOSTILE_EVENTS = {
    "groups as deep as they go": b"\x0a\x03a.b" + b"\x7b" * 300_000 + b"\x7c" * 300_000,
    "groups that never end": b"\x0a\x03a.b" + b"\x7b" * 300_000,
    "groups of changing numbers": b"\x0a\x03a.b" + b"\x7b\x83\x01" * 150_000 + b"\x84\x01\x7c" * 150_000,
    "groups within the timestamp": b"\x32" + varint(600_000) + b"\x7b" * 300_000 + b"\x7c" * 300_000,
    "groups within the metadata": b"\x3a" + varint(600_000) + b"\x7b" * 300_000 + b"\x7c" * 300_000,
    "a length of nearly 2**64": b"\x0a\x03a.b\x0a" + varint(2**64 - 5),
    "a timestamp of nearly 2**64 bytes": b"\x0a\x03a.b\x32" + varint(2**64 - 1),
    "a tag of nearly 2**64 bytes": b"\x0a\x03a.b\x3a\x0b\x2a" + varint(2**64 - 2),
    "a varint that does not end": b"\x0a" + b"\xff" * 11,
    "cut in the middle": b"\x0a\x09a.b",
    "the field number 0": b"\x02\x01a",
}
# Event bytes whose messages are sound and whose texts are not. The columns of such a request are refused.
HOSTILE_TEXTS = {
    "no UTF-8 in the type": b"\x0a\x02\xff\xfe",
    "half a surrogate pair in UTF-8": b"\x0a\x03\xed\xa0\x80",
    "no UTF-8 in a tag": b"\x0a\x03a.b\x3a\x03\x2a\x01\xff",
    "no UTF-8 in the payload": b"\x0a\x03a.b\x22\x04{\xff}}",
}
