"""A file system in memory that fails, tears writes and forgets what was not synced.

The log must survive, with everything acknowledged and nothing invented:

- any single operation failing (no space, I/O error), whether nothing, a part, or all of it was done;
- a write of which only a part reaches the file;
- a failed sync, after which the bytes since the last good sync are seen by every reader until the
  power goes, and are never written by a later sync of the same file (what Linux does);
- a disk that is full or read-only for a while;
- the end of the process at any operation: everything seen before is seen after, locks are gone;
- the loss of power at any operation: of the bytes that were not synced any part survives (a beginning,
  with zeros behind it, with holes of zeros), of the directory entries that were not synced any subset
  (creations, renames and removals each by itself), of a shared map any earlier state, also half of one;
- wrong bits anywhere.

Each call of a method of FileSystem or AppendFile is one operation, counted from 1 in `operations`, so
that a test can let each one fail in turn. `close` and `release` cannot fail and are not counted.
"""

import errno
import mmap
import os
import random
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from shared.log.file_system import Buffer

Keep = Literal["nothing", "all", "random"]
Mode = Literal["well", "full", "read_only"]

_SECTOR_BYTES = 512
_GROWING = frozenset({"create", "append", "map_shared"})
_CHANGING = _GROWING | {"sync", "rename", "remove", "truncate", "sync_directory"}


class PowerLoss(BaseException):
    """The power went; the program that sees this does not run any more. Continue with crash()."""


class _SharedBytes:
    """Bytes that several maps show, and the states they were in."""

    def __init__(self, content: bytes) -> None:
        self._descriptor = os.memfd_create("eventlog-test")
        weakref.finalize(self, os.close, self._descriptor)
        os.pwrite(self._descriptor, content, 0)
        self.history = [content]

    def content(self) -> bytes:
        return os.pread(self._descriptor, len(self.history[0]), 0)

    def write(self, content: bytes) -> None:
        os.pwrite(self._descriptor, content, 0)

    def map(self) -> mmap.mmap:
        return mmap.mmap(self._descriptor, len(self.history[0]))

    def observe(self) -> None:
        if self.history[-1] != (now := self.content()):
            self.history.append(now)

    def after_crash(self, keep: Keep, chance: random.Random) -> bytes:
        self.observe()
        if keep != "random":
            return self.history[0 if keep == "nothing" else -1]
        at = chance.randrange(len(self.history))
        following = self.history[min(at + 1, len(self.history) - 1)]
        torn = chance.choice([0, chance.randrange(len(following) + 1)])
        return following[:torn] + self.history[at][torn:]


@dataclass(slots=True, eq=False)
class _File:
    """What readers see of a file, what survives a loss of power, and what a failed sync forgot."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    forgotten: list[tuple[int, int]] = field(default_factory=list)
    shared: _SharedBytes | None = None

    def content(self) -> bytes:
        return self.shared.content() if self.shared else bytes(self.seen)

    def sync(self) -> None:
        written = bytearray(self.seen)
        for start, end in self.forgotten:
            written[start:end] = bytes(len(written[start:end]))
        self.durable = bytes(written)

    def fail_sync(self) -> None:
        if len(self.seen) > len(self.durable):
            self.forgotten.append((len(self.durable), len(self.seen)))

    def cut(self, size: int) -> None:
        del self.seen[size:]
        self.forgotten = [(start, min(end, size)) for start, end in self.forgotten if start < size]

    def after_crash(self, keep: Keep, chance: random.Random) -> bytes:
        if self.shared is not None:
            return self.shared.after_crash(keep, chance)
        if keep != "random":
            return self.durable if keep == "nothing" else bytes(self.seen)
        if chance.random() < 0.2:
            return bytes(self.seen)
        if len(self.seen) < len(self.durable):
            return self.durable
        return self.durable + _survivors(bytes(self.seen[len(self.durable) :]), chance)


def _survivors(unsynced: bytes, chance: random.Random) -> bytes:
    """Any part of bytes that were not synced."""
    what = chance.choice(["nothing", "beginning", "zeros behind", "holes"])
    kept = b"" if what == "nothing" else unsynced[: chance.randint(0, len(unsynced))]
    if what == "zeros behind":
        return kept.ljust(chance.randint(len(kept), len(unsynced)), b"\0")
    if what == "holes":
        size = chance.choice([16, 64, _SECTOR_BYTES])
        pieces = [kept[at : at + size] for at in range(0, len(kept), size)]
        return b"".join(piece if chance.random() < 0.5 else bytes(len(piece)) for piece in pieces)
    return kept


@dataclass(frozen=True, slots=True)
class _EntryChange:
    """A change of directory entries that the loss of power takes back as a whole, until it is synced."""

    remove: str | None = None
    add: str | None = None
    file: _File | None = None

    def apply(self, entries: dict[str, _File]) -> None:
        if self.remove is not None:
            entries.pop(self.remove, None)
        if self.add is not None and self.file is not None:
            entries[self.add] = self.file


@dataclass(frozen=True, slots=True)
class _Fault:
    error: BaseException
    part: float


class MemoryFileSystem:
    """A directory in memory. See shared.log.file_system.FileSystem; safe for several threads."""

    def __init__(self) -> None:
        self.operations = 0
        self.trace: list[str] = []
        self.mode: Mode = "well"
        self.free = 1 << 40
        self._lock = threading.RLock()
        self._entries: dict[str, _File] = {}
        self._durable_entries: dict[str, _File] = {}
        self._changes: dict[str, list[_EntryChange]] = {}
        self._directories = {"."}
        self._durable_directories = {"."}
        # Called before each operation but those that it makes itself.
        self.watch: Callable[[], None] | None = None
        self._watching = False
        self._held: dict[str, MemoryFileLock] = {}
        self._faults: dict[int, _Fault] = {}
        self._next_faults: dict[str, list[_Fault]] = {}
        self._without_power = False

    # Faults.

    def fail_next(self, operation: str, error: BaseException | None = None, *, part: float = 0.0) -> None:
        """Let the next operation of a name fail. See fail_nth."""
        self._next_faults.setdefault(operation, []).append(_Fault(error or io_error(), part))

    def fail_nth(self, number: int, error: BaseException | None = None, *, part: float = 0.0) -> None:
        """Let the number-th operation from now on fail, whichever it is.

        `part` is how much of it is done: 0.0 nothing, 1.0 all. An append writes that part of its bytes;
        any other operation does nothing unless part is 1.0.
        """
        self._faults[self.operations + number] = _Fault(error or io_error(), part)

    def lose_power_at(self, number: int, *, part: float = 0.0) -> None:
        """Raise PowerLoss at the number-th operation from now on, and at every one after it."""
        self._faults[self.operations + number] = _Fault(PowerLoss(), part)

    def heal(self) -> None:
        """Forget the faults that have not happened yet; the disk is well."""
        self._faults.clear()
        self._next_faults.clear()
        self.mode = "well"

    def kill(self) -> None:
        """End the process that uses it: everything it has written is seen by the next one, its locks are gone."""
        self._held.clear()
        self._without_power = False

    def crash(self, keep: Keep, seed: int = 0) -> "MemoryFileSystem":
        """Return what a loss of power leaves: of what was not synced nothing, all, or any part."""
        chance = random.Random(seed)
        after = MemoryFileSystem()
        entries = dict(self._durable_entries)
        for changes in self._changes.values():
            for change in changes:
                if keep == "all" or (keep == "random" and chance.random() < 0.5):
                    change.apply(entries)
        after._directories = {
            directory
            for directory in self._directories
            if directory in self._durable_directories or keep == "all" or (keep == "random" and chance.random() < 0.5)
        }
        after._durable_directories = set(after._directories)
        for name, file in entries.items():
            if _directory(name) in after._directories:
                content = file.after_crash(keep, chance)
                after._entries[name] = _File(bytearray(content), content)
        after._durable_entries = dict(after._entries)
        return after

    # The disk itself, past the operations.

    def files(self) -> dict[str, bytes]:
        """All files as readers see them."""
        return {name: file.content() for name, file in sorted(self._entries.items())}

    def put(self, name: str, content: bytes) -> None:
        """Replace a file's bytes, durably; create it where missing."""
        self._directories.add(_directory(name))
        self._durable_directories.add(_directory(name))
        file = _File(bytearray(content), content)
        self._entries[name] = self._durable_entries[name] = file

    def flip(self, name: str, offset: int, mask: int = 1) -> None:
        """Change bits of one byte."""
        content = bytearray(self._entries[name].content())
        content[offset] ^= mask
        self.put(name, bytes(content))

    def delete(self, name: str) -> None:
        """Remove a file, durably."""
        del self._entries[name]
        self._durable_entries.pop(name, None)

    def is_durable(self) -> bool:
        """Whether a loss of power now would change no file but shared maps."""
        files = {name: file for name, file in self._entries.items() if file.shared is None}
        durable = {name: file for name, file in self._durable_entries.items() if file.shared is None}
        return files == durable and all(bytes(file.seen) == file.durable for file in files.values())

    # FileSystem.

    def create(self, name: str) -> "MemoryAppendFile":
        """Create an empty file. See FileSystem."""
        with self._operation("create", name) as fault:
            if fault.part >= 1.0:
                if name in self._entries:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
                self._directories.add(_directory(name))
                self._change(_directory(name), _EntryChange(add=name, file=_File()))
            fault.raise_error()
            return MemoryAppendFile(self, name, self._entries[name])

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Read a range of bytes. See FileSystem."""
        with self._operation("read", name) as fault:
            fault.raise_error()
            content = self._file(name).content()
            return content[offset:] if size is None else content[offset : offset + size]

    def size(self, name: str) -> int:
        """Size of a file in bytes."""
        with self._operation("size", name) as fault:
            fault.raise_error()
            return len(self._file(name).content())

    def list(self, directory: str) -> list[str]:
        """Names of the files in a directory. See FileSystem."""
        with self._operation("list", directory) as fault:
            fault.raise_error()
            names = sorted(name for name in self._entries if _directory(name) == directory)
            return [f"./{name}" for name in names] if directory == "." else names

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing. See FileSystem."""
        with self._operation("rename", old) as fault:
            file = self._file(old)
            if fault.part >= 1.0:
                self._directories.add(_directory(new))
                if _directory(old) == _directory(new):
                    self._change(_directory(new), _EntryChange(remove=old, add=new, file=file))
                else:
                    self._change(_directory(new), _EntryChange(add=new, file=file))
                    self._change(_directory(old), _EntryChange(remove=old))
            fault.raise_error()

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._operation("remove", name) as fault:
            self._file(name)
            if fault.part >= 1.0:
                self._change(_directory(name), _EntryChange(remove=name))
            fault.raise_error()

    def truncate(self, name: str, size: int) -> None:
        """Cut a file to size and sync it."""
        with self._operation("truncate", name) as fault:
            file = self._file(name)
            if fault.part > 0.0:
                file.cut(size)
            if fault.part >= 1.0:
                file.sync()
            fault.raise_error()

    def sync_directory(self, directory: str) -> None:
        """Make creations, renames and removals durable. See FileSystem."""
        with self._operation("sync_directory", directory) as fault:
            self._directories.add(directory)
            if fault.part >= 1.0:
                for change in self._changes.pop(directory, []):
                    change.apply(self._durable_entries)
                if directory == ".":
                    self._durable_directories |= self._directories
            fault.raise_error()

    def free_bytes(self) -> int:
        """Bytes that may still be written, as the test has set them."""
        with self._operation("free_bytes", ".") as fault:
            fault.raise_error()
            return self.free

    def map_shared(self, name: str, size: int) -> mmap.mmap:
        """Map a file for writing that other processes see. See FileSystem."""
        with self._operation("map_shared", name) as fault:
            if fault.part >= 1.0:
                if name not in self._entries:
                    self._change(_directory(name), _EntryChange(add=name, file=_File()))
                file = self._entries[name]
                if file.shared is None or len(file.content()) != size:
                    file.shared = _SharedBytes(file.content()[:size].ljust(size, b"\0"))
            fault.raise_error()
            assert file.shared is not None
            return file.shared.map()

    def lock(self, name: str) -> "MemoryFileLock":
        """Take an exclusive lock. See FileSystem."""
        with self._operation("lock", name) as fault:
            fault.raise_error()
            if name in self._held:
                raise BlockingIOError("process 1 on memory")
            self._held[name] = MemoryFileLock(self, name)
            return self._held[name]

    # Within.

    def _operation(self, operation: str, name: str) -> "_Operation":
        with self._lock:
            for file in self._entries.values():
                if file.shared is not None:
                    file.shared.observe()
            if self.watch is not None and not self._watching:
                self._watching = True
                try:
                    self.watch()
                finally:
                    self._watching = False
            if self._watching:
                return _Operation(self._lock, None)
            if self._without_power:
                raise PowerLoss
            self.operations += 1
            self.trace.append(f"{operation} {name}")
            return _Operation(self._lock, self._fault(operation))

    def _fault(self, operation: str) -> _Fault | None:
        if (fault := self._faults.pop(self.operations, None)) is not None:
            self._without_power = isinstance(fault.error, PowerLoss)
            return fault
        if waiting := self._next_faults.get(operation):
            return waiting.pop(0)
        if self.mode == "full" and operation in _GROWING:
            return _Fault(no_space(), 0.5)
        if self.mode == "read_only" and operation in _CHANGING:
            return _Fault(OSError(errno.EROFS, os.strerror(errno.EROFS)), 0.0)
        return None

    def _file(self, name: str) -> _File:
        try:
            return self._entries[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None

    def _change(self, directory: str, change: _EntryChange) -> None:
        change.apply(self._entries)
        self._changes.setdefault(directory, []).append(change)


class _Operation:
    """One operation under way: how much of it is done, and what it raises then."""

    def __init__(self, lock: threading.RLock, fault: _Fault | None) -> None:
        self._lock = lock
        self._error = fault.error if fault else None
        self.part = fault.part if fault else 1.0

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


class MemoryAppendFile:
    """An open file. See AppendFile."""

    def __init__(self, fs: MemoryFileSystem, name: str, file: _File) -> None:
        self._fs = fs
        self._name = name
        self._file = file
        self.closed = False

    def append(self, pieces: Sequence[Buffer]) -> None:
        """Write all pieces at the end, or raise. See AppendFile."""
        assert not self.closed
        with self._fs._operation("append", self._name) as fault:
            data = b"".join(pieces)
            self._file.seen += data[: round(len(data) * fault.part)]
            fault.raise_error()

    def sync(self) -> None:
        """Make what was appended durable. See AppendFile."""
        assert not self.closed
        with self._fs._operation("sync", self._name) as fault:
            if fault.part >= 1.0:
                self._file.sync()
            else:
                self._file.fail_sync()
            fault.raise_error()

    def close(self) -> None:
        """Close without syncing."""
        self.closed = True


class MemoryFileLock:
    """A lock. See FileLock."""

    def __init__(self, fs: MemoryFileSystem, name: str) -> None:
        self._fs = fs
        self._name = name

    def release(self) -> None:
        """Give the lock back."""
        if self._fs._held.get(self._name) is self:
            del self._fs._held[self._name]


def io_error() -> OSError:
    """The error of a disk that does not do as it is told."""
    return OSError(errno.EIO, os.strerror(errno.EIO))


def no_space() -> OSError:
    """The error of a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _directory(name: str) -> str:
    return name.rpartition("/")[0] or "."
