"""The file beside a sealed segment that remembers its request ids: <first>-<last>.requests.

It is written before the segment's .log is removed and kept as long as the horizon asks. Its content
is zstd of JSON rows behind a CRC-32C; a damaged file is an error of its own, never wrong ids.
"""

import struct
from collections.abc import Sequence

import google_crc32c
import msgspec
import zstandard

from shared.log.file_system import FileSystem
from shared.log.frame import FrameDamaged
from shared.log.names import requests_name
from shared.log.recovery import RememberedRequest
from shared.log.types import Nanoseconds, Position, PositionRange
from shared.log.whole_file import write_whole_file

_MAGIC = b"EVRQ"
# Magic, count of rows, newest recorded_at, CRC-32C of the two numbers and the body.
_HEADER = struct.Struct("<4sIqI")
_NUMBERS = struct.Struct("<Iq")
_ROW_BYTES_MAX = 256


class _Row(msgspec.Struct, array_like=True):
    request_id: str
    first_position: int
    count: int
    recorded_at: int


_decoder = msgspec.json.Decoder(list[_Row])


def write_request_file(fs: FileSystem, positions: PositionRange, requests: Sequence[RememberedRequest]) -> None:
    """Write and sync the file, replacing what a crash left of it. Writes none where there are no requests."""
    if not requests:
        return
    rows = [_Row(r.request_id, r.first_position, r.count, r.recorded_at) for r in requests]
    body = zstandard.ZstdCompressor(level=3).compress(msgspec.json.encode(rows))
    newest = max(row.recorded_at for row in rows)
    header = _HEADER.pack(_MAGIC, len(rows), newest, _checksum(len(rows), newest, body))
    write_whole_file(fs, requests_name(positions), header + body)


def newest_recorded_at(fs: FileSystem, name: str) -> Nanoseconds:
    """When the newest request of a file was recorded. Raises FrameDamaged where it is damaged, OSError."""
    return _verified(fs.read(name))[1]


def read_request_file(fs: FileSystem, name: str) -> list[RememberedRequest]:
    """The requests of a file, oldest first. Raises FrameDamaged where it is damaged, OSError."""
    count, _, body = _verified(fs.read(name))
    try:
        rows = _decoder.decode(zstandard.ZstdDecompressor().decompress(body, max_output_size=count * _ROW_BYTES_MAX))
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise FrameDamaged(f"the request id file does not decode: {error}") from error
    return [
        RememberedRequest(row.request_id, Position(row.first_position), row.count, Nanoseconds(row.recorded_at))
        for row in rows
    ]


def _verified(data: bytes) -> tuple[int, Nanoseconds, bytes]:
    """Count of rows, newest recorded_at and body."""
    if len(data) < _HEADER.size:
        raise FrameDamaged("the request id file is cut short")
    magic, count, newest, crc = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != _MAGIC or _checksum(count, newest, body) != crc:
        raise FrameDamaged("the checksum of the request id file does not match")
    return count, Nanoseconds(newest), body


def _checksum(count: int, newest: int, body: bytes) -> int:
    checksum: int = google_crc32c.value(_NUMBERS.pack(count, newest) + body)
    return checksum
