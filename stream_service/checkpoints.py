"""Durable subscriptions on disk: one small file each, JSON behind a checksum.

     0        4        8
     ├────────┼────────┼──── … ─┤
     │ "EVSB" │ CRC-32C│ JSON   │       numbers are little-endian
     └────────┴────────┴──── … ─┘

The file's name is the subscription's in base32, so that no name is a path.

Invariants: after `save` the record survives the loss of power, and until then the one before it does; a damaged
file is reported and left where it is, never taken for another checkpoint. Blocks; one thread at a time may use it.
"""

import base64
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import google_crc32c
import msgspec

from shared.errors import StorageUnavailable
from shared.log.file_system import FileSystem
from shared.log.whole_file import write_whole_file

_FOLDER = "subscriptions"
_SUFFIX = ".subscription"
_HEAD = struct.Struct("<4sI")
_MAGIC = b"EVSB"

_log = logging.getLogger(__name__)


class ParkedRecord(msgspec.Struct, array_like=True, frozen=True):
    """A parked event."""

    position: int
    failures: int
    failure: str
    parked_ns: int


class Record(msgspec.Struct, frozen=True):
    """What is stored of a durable subscription."""

    name: str
    created_ns: int
    # Last position up to which every event is done with.
    checkpoint: int
    # Positions beyond it that are done with.
    done: list[int] = []
    # How often events beyond it have failed.
    failures: dict[int, int] = {}
    parked: list[ParkedRecord] = []


_decoder = msgspec.json.Decoder(Record)


class CheckpointStore:
    """The durable subscriptions of a directory."""

    def __init__(self, fs: FileSystem) -> None:
        """Make the directory, durably. Raises StorageUnavailable."""
        self._fs = fs
        with _storage():
            for directory in (_FOLDER, "."):
                fs.sync_directory(directory)

    def load(self) -> list[Record]:
        """All of them. Raises StorageUnavailable."""
        with _storage():
            found = {file: _decoded(self._fs.read(file)) for file in self._fs.list(_FOLDER) if file.endswith(_SUFFIX)}
        for file, record in found.items():
            if record is None:
                _log.error("the file of a durable subscription is damaged and ignored", extra={"file": file})
        return [record for record in found.values() if record is not None]

    def save(self, record: Record) -> None:
        """Store one, in the place of what has its name. Durable on return. Raises StorageUnavailable."""
        body = msgspec.json.encode(record)
        with _storage():
            write_whole_file(self._fs, _file_of(record.name), _HEAD.pack(_MAGIC, google_crc32c.value(body)) + body)

    def delete(self, name: str) -> None:
        """Forget one, if it is there. Durable on return. Raises StorageUnavailable."""
        with _storage():
            file = _file_of(name)
            if file in self._fs.list(_FOLDER):
                self._fs.remove(file)
                self._fs.sync_directory(_FOLDER)


def _decoded(data: bytes) -> Record | None:
    body = data[_HEAD.size :]
    if len(data) < _HEAD.size or _HEAD.unpack_from(data) != (_MAGIC, google_crc32c.value(body)):
        return None
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError:
        return None


def _file_of(name: str) -> str:
    return f"{_FOLDER}/{base64.b32hexencode(name.encode()).decode().rstrip('=').lower()}{_SUFFIX}"


@contextmanager
def _storage() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(
            f"the checkpoints of subscriptions cannot be stored or read: {error.strerror or error}; see to the disk "
            "of replay.checkpoint_dir, then retry"
        ) from error
