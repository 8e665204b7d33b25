"""Writes a file so that it is there as a whole or not at all.

Invariant: whatever happens while it is written, under its name is what was there before or all of the new
bytes. What is left of an attempt ends in `.tmp` and is replaced by the next one.
"""

import contextlib

from shared.log.file_system import FileSystem
from shared.log.names import TEMPORARY_SUFFIX


def write_temporary_file(fs: FileSystem, name: str, data: bytes) -> str:
    """Write and sync a file under the temporary name of `name`; return that. Raises OSError."""
    temporary = name + TEMPORARY_SUFFIX
    with contextlib.suppress(FileNotFoundError):
        fs.remove(temporary)
    with contextlib.closing(fs.create(temporary)) as file:
        file.append([data])
        file.sync()
    return temporary


def write_whole_file(fs: FileSystem, name: str, data: bytes) -> None:
    """Write a file, replacing what is there. Durable on return. Raises OSError."""
    fs.rename(write_temporary_file(fs, name, data), name)
    fs.sync_directory(name.rpartition("/")[0] or ".")
