"""Reading every byte of a segment and checking it.

Invariant: looks at the disk itself, past every cache. Damage is an answer here, not an error.
"""

from dataclasses import dataclass, field

from shared.errors import LogCorrupted
from shared.log.committed_position import Committed
from shared.log.file_system import FileSystem
from shared.log.frame import FrameDamaged
from shared.log.frame_index import FrameIndex
from shared.log.log_reader import SegmentSpan
from shared.log.names import requests_name
from shared.log.request_file import read_request_file
from shared.log.types import Damage, Position, PositionRange


@dataclass(slots=True)
class Verified:
    """What was read of a segment, and what of it is damaged."""

    events: int = 0
    bytes: int = 0
    damage: list[Damage] = field(default_factory=list)


def verify_log_file(fs: FileSystem, span: SegmentSpan, committed: Committed) -> Verified:
    """Decode every committed frame of a .log file. Raises FileNotFoundError where it was sealed meanwhile."""
    assert span.files.log is not None
    index = FrameIndex(fs, span.files.log, span.files.first)
    index.extend(committed.active_end if span.files.first == committed.active_first else None)
    verified = Verified(damage=index.damage(span.until))
    at = span.files.first
    while at < span.until:
        try:
            for batch in index.batches(at, span.until):
                batch.validate(full=True)
                verified.events += batch.num_rows
                at = Position(batch.column("position")[-1].as_py() + 1)
        except LogCorrupted as error:
            at = Position(int(error.metadata["last_position"]) + 1)
        else:
            at = span.until
    verified.bytes = fs.size(span.files.log)
    return verified


def verify_request_file(fs: FileSystem, positions: PositionRange) -> list[Damage]:
    """Check the request ids beside a sealed segment, where there are any."""
    name = requests_name(positions)
    try:
        read_request_file(fs, name)
    except FileNotFoundError:
        return []
    except FrameDamaged as error:
        problem = f"{error}: its events are whole, but a repeated request of theirs would be logged again"
        return [Damage(PositionRange(positions.first, Position(positions.first - 1)), name, problem)]
    return []
