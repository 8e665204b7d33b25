"""Unary gRPC calls over one connection, written straight to the socket.

A benchmark's client shares the cores with the service it measures. The gRPC library costs 160 to 220 µs a call;
this costs a tenth of it. It speaks just the HTTP/2 that a gRPC server needs: prior knowledge, flow control of what
it sends, settings, pings. It opens its own windows so wide that it need not mind flow control of the answers, and
forbids the server header compression with state, so that it can read a status without a decoder.

Not a client for anything else: an error of any kind raises WireError and ends the connection's use.
"""

import re
import socket
import struct
from collections import deque
from dataclasses import dataclass, field

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 4, 5
_FRAME = struct.Struct(">BHBBI")
_SETTING = struct.Struct(">HI")
_WIDE_WINDOW = 2**31 - 1
_RECEIVE_BYTES = 1 << 18
_STREAMS_MAX = 2**30 - 1
_READABLE = re.compile(rb"[ -~]{5,}")


class WireError(Exception):
    """The server ended a call with an error, or the connection failed."""


@dataclass(slots=True)
class _Call:
    stream: int
    # The frame of its headers, until it is sent.
    headers: bytes
    # What is still to be sent after them.
    unsent: memoryview
    window: int
    answer: bytearray = field(default_factory=bytearray)


class UnaryConnection:
    """A connection that calls one method, several calls at a time. Belongs to one thread."""

    def __init__(self, address: str, path: str, *, timeout_s: float = 60.0) -> None:
        """Connect to "host:port" for calls of path, such as "/eventlog.v1.IngestService/Log"."""
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = first_headers(address, path)
        self._next_stream = 1
        self._calls: dict[int, _Call] = {}
        self._sending: deque[_Call] = deque()
        self._window = self._call_window = 65_535
        self._frame_bytes_max = 16_384
        self._received = bytearray()
        settings = _SETTING.pack(_HEADER_TABLE_SIZE, 0) + _SETTING.pack(_INITIAL_WINDOW_SIZE, _WIDE_WINDOW)
        widen = struct.pack(">I", _WIDE_WINDOW - 65_535)
        self._socket.sendall(_PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW_UPDATE, 0, 0, widen))

    def close(self) -> None:
        """Close the connection; calls in flight are lost."""
        self._socket.close()

    def start(self, request: bytes) -> int:
        """Begin a call with the bytes of its request. Returns a number that wait gives with the answer.

        It is sent with the next wait: calls begun together go out together.
        """
        assert self._next_stream < _STREAMS_MAX, "make a new connection"
        stream = self._next_stream
        self._next_stream += 2
        prefixed = b"\0" + len(request).to_bytes(4, "big") + request
        headers = frame(_HEADERS, _END_HEADERS, stream, self._headers)
        # The server remembers the fields of the first call: the next ones only name them.
        self._headers = _LATER_HEADERS
        self._calls[stream] = call = _Call(stream, headers, memoryview(prefixed), self._call_window)
        self._sending.append(call)
        return stream

    def wait(self) -> list[tuple[int, bytes]]:
        """Send what can be sent, then wait for something from the server.

        Returns the calls that ended, with the bytes of their answers; there may be none.
        """
        assert self._calls, "nothing to wait for"
        self.flush()
        try:
            received = self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError:
            raise WireError(f"nothing came for {self._socket.gettimeout()} s") from None
        if not received:
            raise WireError("the server closed the connection")
        self._received += received
        return self._take_frames()

    def flush(self) -> None:
        """Send as much as the windows let, without waiting for anything. Headers go out in the order of the calls."""
        pieces: list[bytes | memoryview] = []
        waiting: list[_Call] = []
        while self._sending and self._window > 0:
            call = self._sending.popleft()
            self._take_pieces(call, pieces)
            if call.unsent:
                waiting.append(call)
        # In front again, in their order: the oldest call first.
        self._sending.extendleft(reversed(waiting))
        if pieces:
            self._socket.sendall(b"".join(pieces))

    def _take_pieces(self, call: _Call, pieces: list[bytes | memoryview]) -> None:
        """Add the frames that a call may send now."""
        pieces.append(call.headers)
        call.headers = b""
        budget = max(0, min(self._window, call.window, len(call.unsent)))
        self._window -= budget
        call.window -= budget
        while budget:
            size = min(budget, self._frame_bytes_max)
            budget -= size
            flags = _END_STREAM if size == len(call.unsent) else 0
            pieces.append(_frame_header(size, _DATA, flags, call.stream))
            pieces.append(call.unsent[:size])
            call.unsent = call.unsent[size:]

    def _take_frames(self) -> list[tuple[int, bytes]]:
        received, offset = self._received, 0
        ended: list[tuple[int, bytes]] = []
        while len(received) - offset >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(received, offset)
            end = offset + _FRAME.size + (high << 16 | low)
            if len(received) < end:
                break
            body = bytes(received[offset + _FRAME.size : end])
            offset = end
            if kind == _DATA:
                self._calls[stream].answer += body
            if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
                ended.append((stream, _message(self._calls.pop(stream).answer, body)))
            elif kind not in {_DATA, _HEADERS}:
                self._take_control(kind, flags, stream, body)
        del received[:offset]
        return ended

    def _take_control(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            increment = int.from_bytes(body, "big")
            if stream == 0:
                self._window += increment
            elif stream in self._calls:
                self._calls[stream].window += increment
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(frame(_PING, _ACK, 0, body))
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(body)
            self._socket.sendall(frame(_SETTINGS, _ACK, 0, b""))
        elif kind in {_RST_STREAM, _GOAWAY}:
            raise WireError(f"the server ended {'the connection' if kind == _GOAWAY else 'a call'}: {body!r}")

    def _take_settings(self, body: bytes) -> None:
        for name, value in _SETTING.iter_unpack(body):
            if name == _INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._call_window
                self._call_window = value
            elif name == _MAX_FRAME_SIZE:
                self._frame_bytes_max = value


def _message(answer: bytearray, trailers: bytes) -> bytes:
    """The answer's message without its prefix. Raises WireError where the status is not OK."""
    if not answer or b"grpc-status\x010" not in trailers:
        words = b" ".join(_READABLE.findall(trailers)).decode()
        raise WireError(f"a call failed: {words}")
    assert int.from_bytes(answer[1:5], "big") == len(answer) - 5, "one whole message"
    return bytes(answer[5:])


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return an HTTP/2 frame."""
    return _frame_header(len(body), kind, flags, stream) + body


def _frame_header(size: int, kind: int, flags: int, stream: int) -> bytes:
    return _FRAME.pack(size >> 16, size & 0xFFFF, kind, flags, stream)


def _literal(name: bytes, value: bytes) -> bytes:
    """A field that the server adds to its table (RFC 7541, 6.2.1, name in full)."""
    return b"\x40" + bytes([len(name)]) + name + bytes([len(value)]) + value


def first_headers(address: str, path: str, *, timeout: str = "60S") -> bytes:
    """Return the header block of the first call on a connection; timeout as in grpc-timeout."""
    # 0x83 and 0x86: ":method: POST" and ":scheme: http" of the static table.
    return b"\x83\x86" + b"".join(
        _literal(name, value)
        for name, value in (
            (b":path", path.encode()),
            (b":authority", address.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-timeout", timeout.encode()),
        )
    )


# The same fields by their numbers in the table, which counts from the newest, 62, to the oldest.
_LATER_HEADERS = b"\x83\x86" + bytes(0x80 | number for number in (66, 65, 64, 63, 62))
