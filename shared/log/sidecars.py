"""Keeping the index sidecars of all sealed segments as they should be. They are derived: no answer changes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.errors import LogCorrupted
from shared.log.file_system import FileSystem
from shared.log.index_sidecar import Sidecar, rebuild_sidecar
from shared.log.names import SEGMENTS
from shared.log.sealed_names import SealedName
from shared.log.types import Damage, Position, PositionRange


@dataclass(slots=True)
class RebuiltSidecars:
    """How many were made, how many were sound and left alone, and where damaged data prevented one."""

    made: int = 0
    kept: int = 0
    damage: list[Damage] = field(default_factory=list)


def rebuild_sidecars(fs: FileSystem, *, only_missing: bool) -> RebuiltSidecars:
    """Make the sidecar of each sealed file, or only those that are missing or damaged. Raises OSError."""
    rebuilt = RebuiltSidecars()
    for name in _sealed_names(fs):
        if only_missing and _is_sound(fs, name):
            rebuilt.kept += 1
            continue
        try:
            rebuild_sidecar(fs, name.parquet)
        except FileNotFoundError:
            continue  # removed meanwhile
        except LogCorrupted as error:
            first, last = (Position(int(error.metadata[key])) for key in ("first_position", "last_position"))
            rebuilt.damage.append(Damage(PositionRange(first, last), name.parquet, str(error)))
        else:
            rebuilt.made += 1
    return rebuilt


def _sealed_names(fs: FileSystem) -> Iterator[SealedName]:
    for file in fs.list(SEGMENTS):
        if (name := SealedName.parse(file)) is not None:
            yield name


def _is_sound(fs: FileSystem, name: SealedName) -> bool:
    try:
        Sidecar.load(fs.read(name.index))
    except (FileNotFoundError, ValueError):
        return False
    return True
