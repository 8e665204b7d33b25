"""Replay positions saved under names: one small file each.

The name of a file is the position's name in base32 with the digits in front, so that the files' order is that of
the names' bytes, and no text is a path. What is saved is opaque here. A file, numbers little-endian:

     0        4            12       16        18
     ├────────┼────────────┼────────┼─────────┼───── … ─┼──── … ─┤
     │ "EVSP" │ saved at   │ CRC-32C│ length  │ name    │ state  │
     │        │ (ns)       │        │ of name │ (UTF-8) │        │
     └────────┴────────────┴────────┴─────────┴───── … ─┴──── … ─┘

Invariants: after `save` the position survives the loss of power, and until then the one before it does; a damaged
file is an error of its own, never a wrong position; there are no more than POSITIONS_MAX. Blocks; one thread at a
time may use it, and one process.
"""

import base64
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import google_crc32c

from shared.errors import EventStreamException, StorageUnavailable
from shared.log.file_system import FileSystem
from shared.log.whole_file import write_whole_file

NAME_BYTES_MAX = 128
STATE_BYTES_MAX = 64 * 1024
POSITIONS_MAX = 10_000
# Bytes of the states of one page, about: gRPC's clients take 4 MiB unless told otherwise.
PAGE_BYTES_MAX = 3_000_000

_FOLDER = "positions"
_SUFFIX = ".position"
_MAGIC = b"EVSP"
_HEADER = struct.Struct("<4sqIH")
_CHECKED = struct.Struct("<qH")
# 8 characters for 5 bytes, and files' names have 255 bytes at most.
assert -(-NAME_BYTES_MAX * 8 // 5) + len(_SUFFIX) <= 250


@dataclass(frozen=True, slots=True)
class SavedPosition:
    """A position under its name."""

    name: str
    # As it was saved; None where the file is damaged.
    state: bytes | None
    # Nanoseconds since the epoch; 0 where the file is damaged.
    saved_at_ns: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some positions in the order of their names' bytes, and whether there are more behind them."""

    positions: list[SavedPosition]
    is_last: bool


class SavedPositions:
    """The saved positions of a directory. Names are 1 to NAME_BYTES_MAX bytes of UTF-8."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._folder_is_durable = False

    def save(self, name: str, state: bytes, *, saved_at_ns: int) -> None:
        """Save a position, replacing what has its name. Durable on return.

        Raises EventStreamException (TOO_MANY_CHECKPOINTS), StorageUnavailable.
        """
        assert len(state) <= STATE_BYTES_MAX, len(state)
        file = _file_of(name)
        with _storage(name):
            if not self._exists(file) and len(self._files()) >= POSITIONS_MAX:
                raise EventStreamException(
                    f"{POSITIONS_MAX} positions are saved already: delete some that are not needed any more",
                    reason="TOO_MANY_CHECKPOINTS",
                    checkpoints_max=POSITIONS_MAX,
                )
            write_whole_file(self._fs, file, _encode(name, state, saved_at_ns))
            if not self._folder_is_durable:
                # The first file makes the folder, which is an entry of its own.
                self._fs.sync_directory(".")
                self._folder_is_durable = True

    def load(self, name: str) -> SavedPosition:
        """The position of a name.

        Raises EventStreamException (CHECKPOINT_NOT_FOUND, CHECKPOINT_DAMAGED), StorageUnavailable.
        """
        with _storage(name), _found(name):
            saved = _decode(name, self._fs.read(_file_of(name)))
        if saved.state is None:
            raise EventStreamException(
                f"the file of the position {name!r} is damaged: save it anew, or delete it",
                reason="CHECKPOINT_DAMAGED",
                name=name,
            )
        return saved

    def page(self, *, after: str, count: int) -> Page:
        """The positions whose names come after this one, "" for all: as many as `count` and PAGE_BYTES_MAX allow.

        Raises StorageUnavailable.
        """
        start = _file_of(after) if after else ""
        found: list[SavedPosition] = []
        size = 0
        with _storage(after):
            files = [file for file in self._files() if file > start]
            for file in files[:count]:
                found.append(_decode(_name_of(file), self._fs.read(file)))
                size += len(found[-1].state or b"")
                if size >= PAGE_BYTES_MAX:
                    break
        return Page(found, is_last=len(found) == len(files))

    def delete(self, name: str) -> None:
        """Delete a position, also a damaged one.

        Raises EventStreamException (CHECKPOINT_NOT_FOUND), StorageUnavailable.
        """
        with _storage(name), _found(name):
            self._fs.remove(_file_of(name))
            self._fs.sync_directory(_FOLDER)

    def _exists(self, file: str) -> bool:
        try:
            self._fs.size(file)
        except FileNotFoundError:
            return False
        return True

    def _files(self) -> list[str]:
        return [file for file in self._fs.list(_FOLDER) if _is_ours(file)]


def _encode(name: str, state: bytes, saved_at_ns: int) -> bytes:
    encoded = name.encode()
    checksum = _checksum(encoded, state, saved_at_ns)
    return _HEADER.pack(_MAGIC, saved_at_ns, checksum, len(encoded)) + encoded + state


def _decode(name: str, data: bytes) -> SavedPosition:
    damaged = SavedPosition(name, None, 0)
    if len(data) < _HEADER.size:
        return damaged
    magic, saved_at_ns, checksum, length = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    encoded, state = body[:length], body[length:]
    intact = magic == _MAGIC and encoded == name.encode() and _checksum(encoded, state, saved_at_ns) == checksum
    return SavedPosition(name, state, saved_at_ns) if intact else damaged


def _checksum(name: bytes, state: bytes, saved_at_ns: int) -> int:
    checksum: int = google_crc32c.value(_CHECKED.pack(saved_at_ns, len(name)) + name + state)
    return checksum


def _file_of(name: str) -> str:
    encoded = name.encode()
    assert 1 <= len(encoded) <= NAME_BYTES_MAX, len(encoded)
    return f"{_FOLDER}/{base64.b32hexencode(encoded).decode().rstrip('=').lower()}{_SUFFIX}"


def _name_of(file: str) -> str:
    text = file.removeprefix(f"{_FOLDER}/").removesuffix(_SUFFIX).upper()
    return base64.b32hexdecode(text + "=" * (-len(text) % 8)).decode()


def _is_ours(file: str) -> bool:
    """Whether a file is one that this module writes, and not a temporary or somebody else's."""
    try:
        return file.endswith(_SUFFIX) and file == _file_of(_name_of(file))
    except (ValueError, AssertionError):
        return False


@contextmanager
def _storage(name: str) -> Iterator[None]:
    """Say of an error of the disk what could not be done."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(
            f"the saved positions cannot be read or written ({error.strerror or error}), at {name!r}; look at the disk "
            "of replay.checkpoint_dir, then try again"
        ) from error


@contextmanager
def _found(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise EventStreamException(
            f"no position is saved as {name!r}: ListPositions names those that are",
            reason="CHECKPOINT_NOT_FOUND",
            name=name,
        ) from error
