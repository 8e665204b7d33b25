"""Which retention classes of a sealed segment have no file any more, and whether that is a loss. Pure.

Every file of a segment names all of its classes, so each tells which others there were.
"""

from collections.abc import Iterable, Sequence

from shared.log.sealed_metadata import SealedClass
from shared.log.sealed_names import SealedName


def missing_classes(listed: Iterable[SealedClass], present: Iterable[SealedName]) -> tuple[SealedClass, ...]:
    """Return those of the listed classes whose file is not present: removed by retention, or lost."""
    names = {name.retention_class for name in present}
    return tuple(each for each in listed if each.name not in names)


def lost_classes(missing: Iterable[SealedClass], *, now_ns: int) -> Sequence[SealedClass]:
    """Return those of the missing classes whose events were to be kept."""
    return [each for each in missing if not each.has_expired(now_ns)]
