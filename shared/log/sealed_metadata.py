"""What a sealed Parquet file says of itself and of its segment: one JSON text in the file's footer.

Invariants: the file alone tells which log and segment it belongs to, which other files make the segment
whole, how long it is kept, what of the segment was damaged when it was sealed, and what its promoted
columns mean. Times are nanoseconds since the epoch.
"""

from dataclasses import dataclass, replace

import msgspec

from shared.errors import UnsupportedFormat
from shared.log.promoted_columns import PromotedColumn
from shared.log.types import Damage, PositionRange

METADATA_KEY = "eventlog.segment"
FORMAT_VERSION = 1
_NANOS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SealedClass:
    """A retention class of a segment: the configuration it was sealed with, and what its file holds.

    `rows` counts its events; `last_recorded_ns` is when the newest was recorded, None where there is none.
    So each file of a segment knows of every other when it expires.
    """

    name: str
    pattern: str
    seconds: int
    rows: int
    last_recorded_ns: int | None

    def has_expired(self, now_ns: int) -> bool:
        """Whether all its events are older than they are kept: its file may be missing."""
        return self.last_recorded_ns is None or self.last_recorded_ns + self.seconds * _NANOS < now_ns


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """The smallest and the largest of some times, both inclusive."""

    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class SealedMetadata:
    """The metadata of one sealed file.

    `positions` and `classes` are those of the segment, `retention_class` names the one in this file.
    `damage` are the positions that were already unreadable when the segment was sealed. The times are
    those of this file's events, None where it has none. `payload_keys`: see payload_keys; None where
    nothing is known of them.
    """

    format: int
    log_id: str
    positions: PositionRange
    retention_class: str
    classes: tuple[SealedClass, ...]
    damage: tuple[Damage, ...]
    promoted: tuple[PromotedColumn, ...]
    recorded_at: TimeBounds | None
    timestamp: TimeBounds | None
    payload_keys: tuple[str, ...] | None = None

    @property
    def rows(self) -> int:
        """Number of events in this file."""
        return next(each.rows for each in self.classes if each.name == self.retention_class)

    def for_class(self, name: str) -> "SealedMetadata":
        """Return the metadata of the file of another retention class of the same segment."""
        return replace(self, retention_class=name)

    def to_json(self) -> bytes:
        """Return the text that goes into the footer."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes) -> "SealedMetadata":
        """Read the text of a footer.

        Raises UnsupportedFormat if a newer version of eventlog wrote it, ValueError if it makes no sense.
        """
        try:
            return cls._decode(text)
        except msgspec.MsgspecError as error:
            raise ValueError(f"the metadata of the sealed file makes no sense: {error}") from error

    @classmethod
    def _decode(cls, text: bytes) -> "SealedMetadata":
        version = msgspec.json.decode(text, type=_Version).format
        if version > FORMAT_VERSION:
            raise UnsupportedFormat(
                f"the sealed file has format version {version}, this program reads up to {FORMAT_VERSION}: "
                "install a newer version of eventlog",
            )
        metadata = msgspec.json.decode(text, type=cls)
        if metadata.retention_class not in {each.name for each in metadata.classes}:
            raise ValueError("the metadata does not list the file's own retention class")
        return metadata


class _Version(msgspec.Struct):
    """What every format version has."""

    format: int
