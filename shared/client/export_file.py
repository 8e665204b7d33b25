"""A file that is there when it is complete, and not before: for threads, and for asyncio.

Invariant: under its name the file is what it was before, or whole and synced. What is being written has a name of
its own in the same folder, and is removed where it does not come to an end.
"""

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from uuid import uuid4

import aiofiles
import aiofiles.os


class ExportFile:
    """Use as a context; what is not committed at its end is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = _temporary(path)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def restart(self) -> None:
        """Begin anew with an empty file."""
        self._file.seek(0)
        self._file.truncate()

    def commit(self) -> None:
        """Sync what was written, and give it its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)
        _sync_folder(self._path)

    def __enter__(self) -> Self:
        self._file: IO[bytes] = self._temporary.open("xb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class AsyncExportFile:
    """The same for asyncio: disk work is done in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = _temporary(path)

    async def write(self, data: bytes) -> None:
        """Append bytes."""
        await self._file.write(data)

    async def restart(self) -> None:
        """Begin anew with an empty file."""
        await self._file.seek(0)
        await self._file.truncate()

    async def commit(self) -> None:
        """Sync what was written, and give it its name."""
        await self._file.flush()
        await asyncio.to_thread(os.fsync, self._file.fileno())
        await self._file.close()
        await aiofiles.os.replace(self._temporary, self._path)
        await asyncio.to_thread(_sync_folder, self._path)

    async def __aenter__(self) -> Self:
        self._file: Any = await aiofiles.open(self._temporary, "xb")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._file.close()
        await asyncio.to_thread(self._temporary.unlink, missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
