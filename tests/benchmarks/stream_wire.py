"""A server-streaming gRPC call over a connection of its own, read straight from the socket.

Like `grpc_wire`, for the other direction: a subscriber that costs next to nothing, so that what delivers is
measured and not what receives. It opens its windows so wide that the server never waits for them; how fast the
socket is read is the only flow control left.

Not a client for anything else: an error of any kind raises WireError.
"""

import selectors
import socket
import struct

from tests.benchmarks.grpc_wire import WireError, first_headers, frame

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_SETTING = struct.Struct(">HI")
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 4, 5
_WIDE_WINDOW = 2**31 - 1
_FRAME_BYTES_MAX = 1 << 20
_FRAME_HEAD_BYTES, _MESSAGE_HEAD_BYTES = 9, 5
_RECEIVE_BYTES = 1 << 18
# The windows are not opened again: a call that receives more than this must be made anew.
_CALL_BYTES_MAX = _WIDE_WINDOW - (1 << 24)


class StreamingCall:
    """One call that streams responses. Belongs to one thread."""

    def __init__(self, address: str, path: str, request: bytes) -> None:
        """Connect to "host:port" and call a method such as "/eventlog.v1.StreamService/Subscribe"."""
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), 30.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = (
            _SETTING.pack(_HEADER_TABLE_SIZE, 0)
            + _SETTING.pack(_INITIAL_WINDOW_SIZE, _WIDE_WINDOW)
            + _SETTING.pack(_MAX_FRAME_SIZE, _FRAME_BYTES_MAX)
        )
        body = b"\0" + len(request).to_bytes(4, "big") + request
        self.socket.sendall(
            _PREFACE
            + frame(_SETTINGS, 0, 0, settings)
            + frame(8, 0, 0, struct.pack(">I", _WIDE_WINDOW - 65_535))
            + frame(_HEADERS, _END_HEADERS, 1, first_headers(address, path, timeout="1H"))
            + frame(_DATA, _END_STREAM, 1, body)
        )
        self._received = bytearray()
        self._body = bytearray()
        self._bytes = 0

    def close(self) -> None:
        """Close the connection; the server sees the call cancelled."""
        self.socket.close()

    def read(self) -> list[bytes]:
        """Return the messages that have come whole; waits for some bytes."""
        received = self.socket.recv(_RECEIVE_BYTES)
        if not received:
            raise WireError("the server closed the connection")
        self._bytes += len(received)
        if self._bytes > _CALL_BYTES_MAX:
            raise WireError("the call has received all that its window lets: measure for a shorter time")
        self._received += received
        self._take_frames()
        return self._take_messages()

    def _take_frames(self) -> None:
        received, offset = self._received, 0
        while len(received) - offset >= _FRAME_HEAD_BYTES:
            size = int.from_bytes(received[offset : offset + 3], "big")
            start = offset + _FRAME_HEAD_BYTES
            if len(received) < start + size:
                break
            kind, flags = received[offset + 3], received[offset + 4]
            if kind == _DATA:
                self._body += memoryview(received)[start : start + size]
            elif kind in {_RST_STREAM, _GOAWAY} or (kind == _HEADERS and flags & _END_STREAM):
                raise WireError(f"the server ended the call: {bytes(received[start : start + size])!r}")
            elif kind in {_SETTINGS, _PING} and not flags & _ACK:
                answer = bytes(received[start : start + size]) if kind == _PING else b""
                self.socket.sendall(frame(kind, _ACK, 0, answer))
            offset = start + size
        del received[:offset]

    def _take_messages(self) -> list[bytes]:
        body, offset = self._body, 0
        messages = []
        while len(body) - offset >= _MESSAGE_HEAD_BYTES:
            start = offset + _MESSAGE_HEAD_BYTES
            end = start + int.from_bytes(body[offset + 1 : start], "big")
            if len(body) < end:
                break
            messages.append(bytes(body[start:end]))
            offset = end
        del body[:offset]
        return messages


def selector_of(calls: "list[StreamingCall]") -> selectors.DefaultSelector:
    """Return a selector over the calls, each of which is the data of its key."""
    selector = selectors.DefaultSelector()
    for call in calls:
        selector.register(call.socket, selectors.EVENT_READ, call)
    return selector
