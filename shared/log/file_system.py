"""The seam between the storage engine and the disk: everything the engine asks of a file system.

Tests put a file system behind it that fails, tears writes and forgets what was not synced.

Names are relative to the log's directory and use "/" ("segments/00000000000000000001.log").
Every method raises OSError when the disk does not do as it is told.
"""

import contextlib
import fcntl
import mmap
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class AppendFile(Protocol):
    """An open file that only grows. One thread at a time may use it."""

    def append(self, pieces: Sequence[Buffer]) -> None:
        """Write the pieces one after the other at the end, all of them or raise.

        After an error any part of them may be in the file.
        """

    def sync(self) -> None:
        """Return only when every appended byte survives the loss of power.

        After an error nothing is known about the bytes since the last sync that succeeded,
        and a later success says nothing about them: the file must not be used any more.
        """

    def close(self) -> None:
        """Close without syncing. Idempotent."""


class FileSystem(Protocol):
    """The log's directory. Methods may be called from several threads."""

    def create(self, name: str) -> AppendFile:
        """Create an empty file, and its directory where missing. Raises FileExistsError if it exists."""

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read size bytes from offset, fewer at the end of the file; to the end where size is None."""

    def size(self, name: str) -> int:
        """Size of a file in bytes."""

    def list(self, directory: str) -> list[str]:
        """Names of the files in a directory, with the directory in front, sorted. Empty where missing."""

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing what stands at the new name. Survives power loss once both directories are synced."""

    def remove(self, name: str) -> None:
        """Remove a file. Raises FileNotFoundError if there is none."""

    def truncate(self, name: str, size: int) -> None:
        """Cut a file to size and sync it."""

    def sync_directory(self, directory: str) -> None:
        """Return only when creations, renames and removals in it survive the loss of power."""

    def free_bytes(self) -> int:
        """Bytes that may still be written."""

    def map_shared(self, name: str, size: int) -> mmap.mmap:
        """Map a file of exactly size bytes, creating or resizing it, for writing that other processes see."""

    def lock(self, name: str) -> "FileLock":
        """Take an exclusive lock, one for each directory. It must be there, the file need not.

        Raises BlockingIOError, with the holder's note as message, if another holds it.
        """


class FileLock(Protocol):
    """An exclusive lock, held until release or the end of the process."""

    def release(self) -> None:
        """Give the lock back. Idempotent."""


class LocalFileSystem:
    """A directory of the operating system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        made = [directory for directory in (root, *root.parents) if not directory.exists()]
        root.mkdir(parents=True, exist_ok=True)
        for directory in made:
            _sync_directory(directory.parent)

    def path(self, name: str) -> Path:
        """Where a file lies, for libraries that open files themselves."""
        return self._root / name

    def create(self, name: str) -> "LocalAppendFile":
        """Create an empty file. See FileSystem."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return LocalAppendFile(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640))

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read a range of bytes. See FileSystem."""
        with self.path(name).open("rb", buffering=0) as file:
            file.seek(offset)
            wanted = file.seek(0, os.SEEK_END) - offset if size is None else size
            file.seek(offset)
            pieces = []
            while wanted > 0 and (piece := file.read(wanted)):
                pieces.append(piece)
                wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def size(self, name: str) -> int:
        """Size of a file in bytes."""
        return self.path(name).stat().st_size

    def list(self, directory: str) -> list[str]:
        """Names of the files in a directory. See FileSystem."""
        try:
            with os.scandir(self.path(directory)) as entries:
                return sorted(f"{directory}/{entry.name}" for entry in entries if entry.is_file())
        except FileNotFoundError:
            return []

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing. See FileSystem."""
        path = self.path(new)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path(old).rename(path)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.path(name).unlink()

    def truncate(self, name: str, size: int) -> None:
        """Cut a file to size and sync it."""
        descriptor = os.open(self.path(name), os.O_WRONLY)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_directory(self, directory: str) -> None:
        """Make creations, renames and removals durable. See FileSystem."""
        path = self.path(directory)
        path.mkdir(parents=True, exist_ok=True)
        _sync_directory(path)

    def total_bytes(self, directory: str) -> int:
        """Bytes of all files in a directory. A file that disappears meanwhile counts nothing."""
        total = 0
        for name in self.list(directory):
            with contextlib.suppress(FileNotFoundError):
                total += self.size(name)
        return total

    def free_bytes(self) -> int:
        """Bytes that may still be written."""
        return shutil.disk_usage(self._root).free

    def map_shared(self, name: str, size: int) -> mmap.mmap:
        """Map a file for writing that other processes see. See FileSystem."""
        descriptor = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o640)
        try:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
            # Writing to a hole of a mapped file while the disk is full would end the process (SIGBUS).
            os.posix_fallocate(descriptor, 0, size)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    def lock(self, name: str) -> "LocalFileLock":
        """Take an exclusive lock that ends with the process. See FileSystem.

        What is locked is the directory of the file: removing the file, which only says who holds it, frees nothing.
        """
        path = self.path(name)
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.write_text(f"process {os.getpid()} on {os.uname().nodename}\n")
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(_holder(path) or "an unknown process") from None
        except OSError:
            os.close(descriptor)
            raise
        return LocalFileLock(descriptor)


class LocalAppendFile:
    """An open file of the operating system. See AppendFile."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, pieces: Sequence[Buffer]) -> None:
        """Write all pieces at the end, or raise. See AppendFile."""
        written = os.writev(self._descriptor, pieces)
        if written == sum(len(piece) for piece in pieces):
            return
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Make what was appended durable. See AppendFile."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close without syncing."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


class LocalFileLock:
    """A lock on an open directory. See FileLock."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _holder(path: Path) -> str:
    """What a lock's file says of who holds it; empty where it is gone."""
    try:
        return path.read_text(errors="replace")[:200].strip()
    except OSError:
        return ""


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
