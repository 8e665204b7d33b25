"""Events and requests that a service must refuse with a reason or record exactly, and what exactly means.

Everything here is deterministic. Nothing is sent from here.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from eventlog.v1 import event_pb2, ingest_service_pb2
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.json_format import MessageToDict

MIB = 1024 * 1024


@dataclass(frozen=True)
class Hostile:
    """An event, and the field that a refusal must name; "" where it must be recorded, None where either will do."""

    name: str
    event: event_pb2.NewEvent
    refused_field: str | None = ""


def payload(text: str) -> event_pb2.NewEvent:
    """An event with a payload's text."""
    return event_pb2.NewEvent(type="hostile.payload", payload_json=text)


def string_of(length: int) -> str:
    """A payload of exactly so many bytes, nearly all of them one string."""
    return json.dumps({"s": "x" * (length - len('{"s": ""}'))})


def nested(levels: int, *, lists: bool = False) -> str:
    """A payload so many levels deep."""
    return (
        '{"a":' * levels + "1" + "}" * levels if not lists else '{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"
    )


def keys_of(length: int) -> str:
    """A payload of nearly so many bytes, with as many keys as fit."""
    keys: list[str] = []
    size = 2
    while size < length - 10:
        keys.append(f'"{len(keys):x}":1')
        size += len(keys[-1]) + 1
    return "{" + ",".join(keys) + "}"


def _exact_payloads() -> dict[str, str]:
    """Texts that are stored byte for byte."""
    return {
        "10 levels": nested(10),
        "100 levels": nested(100),
        "100 levels of lists": nested(100, lists=True),
        "brackets in a string": json.dumps({"s": '[{"' * 10_000}),
        "escaped quotes before brackets": '{"s":"' + '\\"{[' * 500 + '\\\\"}',
        "2^53 + 1": '{"n":9007199254740993,"m":-9007199254740993}',
        "beyond 64 bits": '{"n":18446744073709551616,"m":-9223372036854775809}',
        "an integer of 401 digits": '{"n":1' + "0" * 400 + "}",
        "an integer of 5,000 digits": '{"n":' + "9" * 5_000 + "}",
        "an integer of 100,000 digits": '{"n":-' + "7" * 100_000 + "}",
        "1e999": '{"n":1e999,"m":-1E+999,"tiny":1e-999}',
        "many digits after the point": '{"n":0.1000000000000000055511151231257827021181583404541015625}',
        "minus zero": '{"n":-0,"m":-0.0,"o":0.0,"p":1.0,"q":1e2}',
        "white space": ' \t\r\n{ "a" :\n 1 }\n ',
        "an empty key and empty values": '{"":"","a":{},"b":[],"c":null}',
        "a key twice": '{"a":1,"a":2,"a":{"a":1}}',
        "NUL, escaped": '{"\\u0000":"\\u0000 \\u0001","a\\u0000b":1}',
        "all of Unicode's planes": json.dumps(
            {"s": "\u00e9\u0800\ud7ff\ufffd\uffff\U0001f600\U0010ffff"}, ensure_ascii=False
        ),
        "escapes": '{"s":"\\/\\b\\f\\n\\r\\t\\"\\\\\\u00e9\\ud83d\\ude00"}',
        "one key 200 KB long": json.dumps({"k" * 200_000: 1}),
        "1 MiB": string_of(MIB),
        "1 MiB of keys": keys_of(MIB),
        "keys like paths": '{"a.b":1,"a":{"b":2},"$":3,"[0]":4,"a\'b":5,"--":6,"\\"":7}',
        "names of our columns": '{"position":1,"payload":{"payload":2},"id":"evt_0","recorded_at":0}',
    }


def _refused_payloads() -> dict[str, str]:
    """Texts that are no JSON objects, or too much of one."""
    return {
        "no bytes": "",
        "white space only": "  ",
        "no object": "[]",
        "a number": "1",
        "null": "null",
        "two objects": "{} {}",
        "half of two": '{"a":[1',
        "the other half": "2]}",
        "NaN": '{"n":NaN}',
        "infinity": '{"n":Infinity,"m":-Infinity}',
        "a comment": '{"n":1/**/}',
        "a comma too many": '{"n":1,}',
        "single quotes": "{'n':1}",
        "a leading zero": '{"n":01}',
        "a plus": '{"n":+1}',
        "a bare point": '{"n":.5}',
        "a raw control character": '{"s":"\n"}',
        "a raw NUL": '{"s":"\0"}',
        "NUL after the object": "{}\0",
        "a byte order mark": "\ufeff{}",
        "a bad escape": '{"s":"\\x"}',
        "half an escape": '{"s":"\\u12"}',
        "101 levels": nested(101),
        "101 levels of lists": nested(101, lists=True),
        "10,000 levels": nested(10_000),
        "100,000 levels, not closed": '{"a":' * 100_000,
        "300,000 lists": '{"a":' + "[" * 300_000,
        "1 MiB and a byte": string_of(MIB + 1),
        "2 MiB": string_of(2 * MIB),
        "a million keys": "{" + ",".join(f'"{number:x}":1' for number in range(1_000_000)) + "}",
    }


def hostile_payloads() -> Iterator[Hostile]:
    """Payloads as JSON text."""
    for name, text in _exact_payloads().items():
        yield Hostile(name, payload(text))
    for name, text in _refused_payloads().items():
        yield Hostile(name, payload(text), "payload_json")
    for name, text in {
        "a lone high surrogate": '{"s":"\\ud800"}',
        "a lone low surrogate": '{"s":"\\udc00 \\ud800x"}',
        "a lone surrogate in a key": '{"\\udfff":1}',
    }.items():
        yield Hostile(name, payload(text), None)


def hostile_structs() -> Iterator[Hostile]:
    """Payloads as google.protobuf.Struct."""

    def of(name: str, value: struct_pb2.Value, field: str | None = "") -> Hostile:
        struct = struct_pb2.Struct(fields={"v": value})
        return Hostile(f"structure: {name}", event_pb2.NewEvent(type="hostile.struct", payload=struct), field)

    number = struct_pb2.Value
    yield of("NaN", number(number_value=float("nan")), "payload")
    yield of("infinity", number(number_value=float("-inf")), "payload")
    yield of("a value without a kind", struct_pb2.Value(), None)
    yield of("2^53", number(number_value=2.0**53))
    yield of("the largest double", number(number_value=1.7976931348623157e308))
    yield of("the smallest double", number(number_value=5e-324))
    yield of("text", struct_pb2.Value(string_value="\0\u00e9\U0001f600\n"))
    deep = struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    for _ in range(20):
        deep = struct_pb2.Value(struct_value=struct_pb2.Struct(fields={"a": deep}))
    yield of("20 levels", deep)
    both = event_pb2.NewEvent(type="hostile.struct", payload_json="{}", payload=struct_pb2.Struct())
    yield Hostile("structure and text", both, "payload")
    for name, count in (("as many keys as may be", 20_000), ("too many keys", 20_001), ("10 MB of keys", 450_000)):
        many = struct_pb2.Struct()
        for index in range(count):
            many.fields[f"k{index}"].number_value = index
        field = "payload" if count > 20_000 else ""
        yield Hostile(f"structure: {name}", event_pb2.NewEvent(type="hostile.struct", payload=many), field)
    long = struct_pb2.Value(string_value="x" * MIB)
    yield of("1 MiB of text", long, "payload")


def hostile_texts() -> Iterator[Hostile]:
    """Types, sources, ids, labels."""
    types = {
        "no type": "",
        "a new line": "a\nb",
        "a new line at the end": "a.b\n",
        "NUL": "a\0b",
        "an escape sequence": "\x1b[31ma",
        "four bytes of Unicode": "a.\U0001f600",
        "a letter beyond ASCII": "\u00e9v\u00e9nement",
        "full-width letters": "\uff41\uff42",
        "a space": "a b",
        "a wildcard": "a.*",
        "a quote": "a'b\"c",
        "a sign at the beginning": ".a",
        "201 characters": "a" * 201,
        "a million characters": "a" * 1_000_000,
    }
    for name, text in types.items():
        yield Hostile(f"type: {name}", event_pb2.NewEvent(type=text), "type")
    yield Hostile("type: 200 characters", event_pb2.NewEvent(type="a" * 200))
    yield Hostile("type: every sign", event_pb2.NewEvent(type="_:/a-Z.0..//--"))
    odd = "NUL \0, new line \n, \x1b[31m, \u202e, \U0001f600, \u0301, \ufffe, '; DROP TABLE events; --"
    yield Hostile("texts with control characters", labelled(odd, [odd, "\0"]))
    yield Hostile("empty texts", labelled("", []))
    yield Hostile("texts of 255 bytes", labelled("\u00e9" * 127 + "x", ["y" * 255] * 64))
    for name, text in (("256 bytes", "\u00e9" * 128), ("1 MiB", "x" * MIB)):
        yield Hostile(f"source of {name}", event_pb2.NewEvent(type="a", source=text), "source")
        yield Hostile(f"chain of {name}", event_pb2.NewEvent(type="a", correlation_id=text), "correlation_id")
    for name in ("host", "version", "user", "session_id"):
        metadata = event_pb2.EventMetadata(**{name: "x" * 256})
        yield Hostile(f"{name} of 256 bytes", event_pb2.NewEvent(type="a", metadata=metadata), f"metadata.{name}")
    for name, tags in (("an empty tag", ["a", ""]), ("a long tag", ["x" * 256]), ("65 tags", ["t"] * 65)):
        metadata = event_pb2.EventMetadata(tags=tags)
        yield Hostile(name, event_pb2.NewEvent(type="a", metadata=metadata), "metadata.tags")


def labelled(text: str, tags: list[str]) -> event_pb2.NewEvent:
    """An event with the same text in every field that takes any."""
    metadata = event_pb2.EventMetadata(host=text, version=text, user=text, session_id=text, tags=tags)
    return event_pb2.NewEvent(type="hostile.text", source=text, correlation_id=text, metadata=metadata)


def hostile_times() -> Iterator[Hostile]:
    """Timestamps at and beyond the edges."""
    edges = {
        "the first": (-9_223_372_036, 0, True),
        "the last": (9_223_372_035, 999_999_999, True),
        "zero": (0, 0, True),
        "before 1970, with nanos": (-1, 999_999_999, True),
        "one second too early": (-9_223_372_037, 999_999_999, False),
        "one second too late": (9_223_372_036, 0, False),
        "as early as can be said": (-(2**63), 0, False),
        "as late as can be said": (2**63 - 1, 999_999_999, False),
        "negative nanos": (0, -1, False),
        "a second of nanos": (0, 1_000_000_000, False),
        "the most nanos": (0, 2**31 - 1, False),
        "the least nanos": (0, -(2**31), False),
    }
    for name, (seconds, nanos, fine) in edges.items():
        time = timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)
        yield Hostile(
            f"time: {name}", event_pb2.NewEvent(type="hostile.time", timestamp=time), "" if fine else "timestamp"
        )


def malformed_requests(seed: int) -> Iterator[tuple[str, bytes]]:
    """Requests as bytes: noise, and well-formed ones that were cut, flipped or made absurd."""
    chance = random.Random(seed)
    for index in range(50):
        yield f"noise {index}", chance.randbytes(chance.randrange(1, 400))
    sound = sound_request().SerializeToString()
    for length in range(1, len(sound)):
        yield f"cut at {length}", sound[:length]
    for index in range(200):
        at = chance.randrange(8 * len(sound))
        flipped = bytearray(sound)
        flipped[at // 8] ^= 1 << at % 8
        yield f"flipped at bit {at} ({index})", bytes(flipped)
    yield from absurd_requests()


def absurd_requests() -> Iterator[tuple[str, bytes]]:
    """What no encoder of protobuf writes, and what only a few do."""
    event = b"\x0a\x01a"

    def events(body: bytes) -> bytes:
        return b"\x0a" + _varint(len(body)) + body

    yield "field number 0", b"\x02\x00"
    yield "wire type 6", b"\x0e"
    yield "wire type 7", events(event + b"\x0f")
    yield "a varint of 11 bytes", b"\x18" + b"\xff" * 11
    yield "a length of 2^64 - 1", b"\x0a" + b"\xff" * 9 + b"\x01"
    yield "a length of 2^63", events(b"\x0a" + b"\x80" * 9 + b"\x01")
    yield "a length of 2 GiB", b"\x0a" + _varint(2**31 - 1) + b"x"
    yield "a group that does not end", b"\x0b"
    yield "a group that ends only", b"\x0c"
    yield "groups, 2 million deep", b"\x0b" * 2_000_000
    yield "groups in an event, a million deep", events(event + b"\xfb\x01" * 1_000_000)
    yield "groups, 50,000 deep and closed", events(event + b"\xfb\x01" * 50_000 + b"\xfc\x01" * 50_000)
    yield "messages in messages", _messages(5_000)
    yield "a structure 10,000 levels deep", events(event + _field(5, _struct(10_000)))
    yield "a structure 45 levels deep", events(event + _field(5, _struct(45)))
    yield "unknown fields", events(event + _field(1000, b"\x00\xff") + b"\xc8\x3e\x07") + _field(77, b"abc")
    yield "everything twice", 2 * sound_request().SerializeToString()
    yield (
        "an event's fields twice",
        events(event + b"\x0a\x01b" + _field(7, _field(1, b"h")) + _field(7, _field(3, b"u"))),
    )
    yield "a surrogate in UTF-8", events(event + _field(2, b"\xed\xa0\x80"))
    yield "an overlong NUL", events(event + _field(2, b"\xc0\x80"))
    yield "beyond Unicode", events(event + _field(3, b"\xf4\x90\x80\x80"))
    yield "half a character", events(event + _field(4, b'{"s":"\xc3"}'))
    yield "a request id that is no text", events(event) + _field(2, b"\xff\xfe")
    yield "packed where nothing is packed", events(b"\x0a\x01a") + b"\x1a\x02\x01\x02"


def sound_request() -> ingest_service_pb2.LogBatchRequest:
    """A request that uses every field, to be spoiled."""
    return ingest_service_pb2.LogBatchRequest(
        events=[
            event_pb2.NewEvent(
                type="hostile.wire",
                source="wire",
                correlation_id="chain",
                payload_json='{"n":12345,"s":"text"}',
                timestamp=timestamp_pb2.Timestamp(seconds=1_700_000_000, nanos=5),
                metadata=event_pb2.EventMetadata(host="h", version="v", user="u", session_id="s", tags=["a", "b"]),
            ),
            event_pb2.NewEvent(type="hostile.wire", payload=struct_pb2.Struct(fields={"a": _number(1.5)})),
            event_pb2.NewEvent(type="hostile.wire"),
        ],
        durability=ingest_service_pb2.DURABILITY_DURABLE,
    )


def check_recorded(sent: event_pb2.NewEvent, event: event_pb2.Event) -> None:
    """Fail where a recorded event is not exactly what was sent."""
    assert event.type == sent.type
    assert event.source == (sent.source or "unknown")
    assert event.correlation_id == sent.correlation_id
    assert event.HasField("correlation_id") == bool(sent.correlation_id)
    if sent.HasField("payload"):
        assert json.loads(event.payload_json) == MessageToDict(sent.payload)
    else:
        assert event.payload_json == (sent.payload_json if sent.HasField("payload_json") else "{}")
    time = sent.timestamp if sent.HasField("timestamp") else event.recorded_at
    # By number, because a flipped bit may leave fields that are unknown, which are not kept.
    assert (event.timestamp.seconds, event.timestamp.nanos) == (time.seconds, time.nanos)
    for name in ("host", "version"):
        given = getattr(sent.metadata, name)
        assert getattr(event.metadata, name) == given or (not given and getattr(event.metadata, name))
    assert (event.metadata.user, event.metadata.session_id) == (sent.metadata.user, sent.metadata.session_id)
    assert list(event.metadata.tags) == list(sent.metadata.tags)


def _number(value: float) -> struct_pb2.Value:
    return struct_pb2.Value(number_value=value)


def _messages(depth: int) -> bytes:
    """An event in an event in an event, where there should be text."""
    body = b""
    for _ in range(depth):
        body = _field(7, body)
        if len(body) > 100_000:
            break
    return b"\x0a" + _varint(len(body)) + body


def _struct(levels: int) -> bytes:
    """The bytes of a Struct so many levels deep."""
    body = b""
    for _ in range(levels):
        # Struct.fields { key: "a", value { struct_value } }
        body = _field(1, _field(1, b"a") + _field(2, _field(5, body)))
    return body


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
