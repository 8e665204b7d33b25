"""Which segments an answer needs, and why. Pure: it decides by what is known of segments without reading them.

Invariants: a segment that is left out holds no event of the answer, and no damage either: what damaged
positions held nobody knows, so nobody may skip them in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from query_service.question import Question
from shared.filters.bounds import Bounds
from shared.log.segment_columns import SegmentColumns, SegmentFile
from shared.log.types import Position


@dataclass(frozen=True, slots=True)
class Decision:
    """A segment of an answer: the positions [first, until) of it, and the names of the files to read.

    `read`: whether it is read; `why`, in words.
    """

    segment: SegmentColumns
    first: Position
    until: Position
    files: tuple[str, ...]
    read: bool
    why: str


def decide(segment: SegmentColumns, question: Question, *, first: Position, until: Position) -> Decision:
    """Decide about a segment, of which the positions of [first, until) are wanted."""
    bounds = question.bounds
    kept = tuple(file.name for file in segment.files if _exclusion(file, bounds) is None)
    decided = _Decider(segment, first, until, kept)
    if why := _outside(segment, bounds, first=first, until=until):
        return decided.pruned(why)
    if segment.is_careful:
        return decided.read_all("it holds damage, or a file is not as it was written")
    if not segment.files:
        return decided.read("it is not sealed")
    if not kept:
        fields = sorted({exclusion for file in segment.files if (exclusion := _exclusion(file, bounds))})
        return decided.pruned(f"the index tells that nothing matches by {', '.join(fields)}")
    return decided.read(_why(segment.files, kept))


def _outside(segment: SegmentColumns, bounds: Bounds, *, first: Position, until: Position) -> str:
    """Why a segment, damaged or not, is outside of what the filter asks for; empty where it is not."""
    if bounds.is_empty:
        return "the filter contradicts itself"
    if not bounds.position.overlaps(first, until - 1):
        return "the filter asks for other positions"
    ends = segment.timestamps
    if ends is not None and not segment.is_careful and not bounds.timestamp.overlaps(ends.first_ns, ends.last_ns):
        return "the filter asks for other timestamps"
    return ""


def narrowed(question: Question, *, first: Position, until: Position) -> tuple[Position, Position]:
    """Narrow [first, until) to the positions that the filter leaves possible; empty where first >= until."""
    position = question.bounds.position
    if question.bounds.is_empty:
        return first, first
    low = first if position.first is None else max(first, position.first)
    high = until if position.last is None else min(until, position.last + 1)
    return Position(low), Position(high)


@dataclass(frozen=True, slots=True)
class _Decider:
    segment: SegmentColumns
    first: Position
    until: Position
    files: tuple[str, ...]

    def read(self, why: str) -> Decision:
        first, until = self.first, self.until
        return Decision(self.segment, first, until, self.files, read=True, why=why)

    def read_all(self, why: str) -> Decision:
        files = tuple(file.name for file in self.segment.files)
        return Decision(self.segment, self.first, self.until, files, read=True, why=why)

    def pruned(self, why: str) -> Decision:
        return Decision(self.segment, self.first, self.until, (), read=False, why=why)


def _exclusion(file: SegmentFile, bounds: Bounds) -> str | None:
    """The field by which a file has nothing for the filter, None if it may have."""
    return bounds.exclusion(file.sidecar) if file.sidecar is not None else None


def _why(files: Sequence[SegmentFile], kept: Sequence[str]) -> str:
    if any(file.sidecar is None for file in files):
        return "it has no index"
    if len(kept) < len(files):
        return f"the index leaves {len(kept)} of its {len(files)} files"
    return "the index does not rule it out"
