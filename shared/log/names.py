"""The names of the log's files. The directory is the manifest: names carry the positions."""

import re
from dataclasses import dataclass

from shared.log.types import Position, PositionRange

SEGMENTS = "segments"
QUARANTINE = "quarantine"
# Each lock is that of a directory.
LOCK = "lock"
SEALING_LOCK = f"{SEGMENTS}/sealing"
IDENTITY = "identity"
COMMITTED = "committed"
TOKEN_KEY = "page_token_key"  # noqa: S105 — the name of the file

TEMPORARY_SUFFIX = ".tmp"

_LOG = re.compile(r"segments/(\d{20})\.log")
_SEALED = re.compile(r"segments/(\d{20})-(\d{20})\.([a-z0-9_-]+)\.parquet")
_REQUESTS = re.compile(r"segments/(\d{20})-(\d{20})\.requests")


def log_name(first: Position) -> str:
    """Name of the segment that begins with a position while it is active or waits to be sealed."""
    return f"{SEGMENTS}/{first:020d}.log"


def temporary_log_name(first: Position) -> str:
    """Name of a segment's file until it has its header."""
    return f"{log_name(first)}{TEMPORARY_SUFFIX}"


def is_temporary_log_name(name: str) -> bool:
    """Whether a name is one that temporary_log_name gives."""
    return name.endswith(TEMPORARY_SUFFIX) and _LOG.fullmatch(name.removesuffix(TEMPORARY_SUFFIX)) is not None


def requests_name(positions: PositionRange) -> str:
    """Name of the file that remembers the request ids of a sealed segment."""
    return f"{SEGMENTS}/{positions.first:020d}-{positions.last:020d}.requests"


def parse_requests_name(name: str) -> PositionRange | None:
    """Positions of a request id file, None if the name is not one."""
    match = _REQUESTS.fullmatch(name)
    return PositionRange(Position(int(match[1])), Position(int(match[2]))) if match else None


@dataclass(frozen=True, slots=True)
class SegmentFiles:
    """One segment of a directory listing: a .log, or sealed files by retention class, or both after a crash."""

    first: Position
    log: str | None
    sealed_last: Position | None
    sealed: tuple[str, ...]

    @property
    def is_sealed(self) -> bool:
        """Whether the sealed files are the segment. While the .log is there, it is."""
        return self.log is None


def list_segments(names: list[str]) -> list[SegmentFiles]:
    """Group a listing of the segments directory into segments, by first position. Ignores other files."""
    logs: dict[Position, str] = {}
    sealed: dict[Position, dict[Position, list[str]]] = {}
    for name in names:
        if match := _LOG.fullmatch(name):
            logs[Position(int(match[1]))] = name
        elif match := _SEALED.fullmatch(name):
            by_last = sealed.setdefault(Position(int(match[1])), {})
            by_last.setdefault(Position(int(match[2])), []).append(name)
    segments = []
    for first in sorted(logs.keys() | sealed.keys()):
        by_last = sealed.get(first, {})
        last = max(by_last, default=None)
        files = tuple(sorted(by_last[last])) if last is not None else ()
        segments.append(SegmentFiles(first, logs.get(first), last, files))
    return segments
