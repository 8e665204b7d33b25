"""What readers know of sealed files without reading them each time: footers, sidecars, and which are intact.

Invariants: what is known belongs to the file as it is on disk now, for it is asked again for its identity
(inode, size, times) each time; a library may open a file only after all of its bytes were checked once;
everything kept is bounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from shared.columns.schema import EVENT_SCHEMA
from shared.log.bounded_cache import BoundedCache
from shared.log.file_system import LocalFileSystem
from shared.log.index_sidecar import Sidecar
from shared.log.sealed_checksums import check, check_footer, footer_bytes
from shared.log.sealed_metadata import METADATA_KEY, SealedMetadata, TimeBounds
from shared.log.sealed_names import SealedName

# Files of which something is kept in memory. A footer takes some ten KiB.
FILES_MAX = 2_000
SIDECAR_BYTES_MAX = 64 * 1024 * 1024
_FOOTER_GUESS_BYTES = 64 * 1024

Identity = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class RowGroupSummary:
    """What the footer says of a row group. `bytes` is what its rows take in memory, about."""

    rows: int
    bytes: int
    timestamps: TimeBounds


@dataclass(frozen=True, slots=True)
class SealedFooter:
    """A sealed file, by its footer. `path` is for libraries that open files themselves."""

    name: SealedName
    path: Path
    identity: Identity
    metadata: SealedMetadata
    row_groups: tuple[RowGroupSummary, ...]


class SealedFiles:
    """The sealed files of a log in a directory. Several threads may use it."""

    def __init__(self, fs: LocalFileSystem) -> None:
        self._fs = fs
        self.footers: BoundedCache[str, SealedFooter] = BoundedCache(FILES_MAX)
        self.sidecars: BoundedCache[str, tuple[Identity, Sidecar | None, int]] = BoundedCache(
            SIDECAR_BYTES_MAX, lambda kept: kept[2]
        )
        self.intact: BoundedCache[str, Identity] = BoundedCache(FILES_MAX)

    def footer(self, name: str) -> SealedFooter | None:
        """What a file says of itself; None where its footer is damaged.

        Raises FileNotFoundError, OSError, UnsupportedFormat.
        """
        identity = self._identity(name)
        known = self.footers.get(name)
        if known is not None and known.identity == identity:
            return known
        footer = self._read_footer(name, identity)
        if footer is not None:
            self.footers.put(name, footer)
        return footer

    def sidecar(self, name: str) -> Sidecar | None:
        """The index sidecar of a file; None where it has none that is sound."""
        sealed = SealedName.parse(name)
        assert sealed is not None
        try:
            identity = self._identity(sealed.index)
            known = self.sidecars.get(sealed.index)
            if known is not None and known[0] == identity:
                return known[1]
            data = self._fs.read(sealed.index)
        except OSError:
            return None
        try:
            sidecar = Sidecar.load(data)
        except ValueError:
            sidecar = None
        self.sidecars.put(sealed.index, (identity, sidecar, len(data) + 1))
        return sidecar

    def is_intact(self, footer: SealedFooter) -> bool:
        """Whether every byte of a file is as it was written. Reads the whole file the first time. Raises OSError."""
        name = footer.name.parquet
        if self.intact.get(name) == footer.identity:
            return True
        checked = check(self._fs.read(name))
        if checked is None or not checked.whole or self._identity(name) != footer.identity:
            return False
        self.intact.put(name, footer.identity)
        return True

    def forget_others(self, names: Sequence[str]) -> None:
        """Forget all files but these, which a listing names."""
        present = set(names)
        for cache in (self.footers, self.sidecars, self.intact):
            cache.keep_only(present.__contains__)

    def _identity(self, name: str) -> Identity:
        status = self._fs.path(name).stat()
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def _read_footer(self, name: str, identity: Identity) -> SealedFooter | None:
        sealed = SealedName.parse(name)
        assert sealed is not None
        size = identity[1]
        tail = self._fs.read(name, max(size - _FOOTER_GUESS_BYTES, 0))
        if len(tail) >= 8 and len(tail) < footer_bytes(tail) + 4 <= size:
            tail = self._fs.read(name, max(size - footer_bytes(tail) - 8, 0))
        parquet = check_footer(tail)
        if parquet is None:
            return None
        try:
            metadata = SealedMetadata.from_json((parquet.metadata or {})[METADATA_KEY.encode()])
            groups = tuple(_summary(parquet, number) for number in range(parquet.num_row_groups))
        except (ValueError, KeyError, TypeError):
            return None
        if (metadata.positions, metadata.retention_class) != (sealed.positions, sealed.retention_class):
            # Somebody has renamed it: nothing it says is about these positions.
            return None
        return SealedFooter(sealed, self._fs.path(name), identity, metadata, groups)


def _summary(parquet: pq.FileMetaData, number: int) -> RowGroupSummary:
    group = parquet.row_group(number)
    first_ns, last_ns = _bounds(group, "timestamp")
    return RowGroupSummary(
        group.num_rows,
        group.total_byte_size,
        TimeBounds(first_ns, last_ns),
    )


def _bounds(group: pq.RowGroupMetaData, name: str) -> tuple[int, int]:
    column = group.column(EVENT_SCHEMA.names.index(name))
    statistics = column.statistics
    if column.path_in_schema != name or statistics is None or not statistics.has_min_max:
        raise ValueError(f"the {name}s have no statistics")
    first: Any = statistics.min_raw
    last: Any = statistics.max_raw
    return int(first), int(last)
