"""The names of the files of sealed segments.

    segments/<first position, 20 digits>-<last position, 20 digits>.<retention class>.parquet   events
    segments/<first>-<last>.<retention class>.idx                                               index sidecar
    segments/<first>-<last>.<retention class>.par                                               repair data

The positions are those of the segment: all files of one segment have the same.
"""

import re
from dataclasses import dataclass

from shared.log.names import SEGMENTS
from shared.log.types import Position, PositionRange

_PARQUET = re.compile(r"(?:[^/]+/)*(\d{20})-(\d{20})\.([a-z0-9_-]{1,60})\.parquet\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class SealedName:
    """The files of one retention class of one sealed segment, without their endings."""

    stem: str
    positions: PositionRange
    retention_class: str

    @classmethod
    def of(cls, positions: PositionRange, retention_class: str) -> "SealedName":
        """Name the files of a class of the segment with these positions."""
        stem = f"{segment_prefix(positions)}.{retention_class}"
        return cls(stem, positions, retention_class)

    @classmethod
    def parse(cls, parquet_name: str) -> "SealedName | None":
        """Read the name of a Parquet file, with or without its directory. None if it is no such name."""
        match = _PARQUET.match(parquet_name)
        if match is None:
            return None
        positions = PositionRange(Position(int(match[1])), Position(int(match[2])))
        if positions.first < 1 or positions.count < 1 or positions.last >= 2**64:
            return None
        return cls(parquet_name.removesuffix(".parquet"), positions, match[3])

    @property
    def parquet(self) -> str:
        """Name of the file that holds the events."""
        return f"{self.stem}.parquet"

    @property
    def index(self) -> str:
        """Name of the index sidecar."""
        return f"{self.stem}.idx"

    @property
    def repair(self) -> str:
        """Name of the repair data."""
        return f"{self.stem}.par"


def segment_prefix(positions: PositionRange) -> str:
    """Return what the names of all files of a sealed segment begin with, up to the dot before the class."""
    return f"{SEGMENTS}/{positions.first:020}-{positions.last:020}"
