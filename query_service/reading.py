"""Events that match, as they are found: what every reading has in common."""

import functools
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import pyarrow as pa

from query_service.database import Database
from query_service.question import Question
from query_service.statements import Projection
from query_service.walk import Walk
from query_service.work import Work
from shared.clock import Clock
from shared.errors import LogCorrupted
from shared.log.committed_position import Committed
from shared.log.segment_columns import ColumnReader

# Bytes of one chunk of events, about.
CHUNK_BYTES = 8 * 1024 * 1024
CHUNK_ROWS_MAX = 16_384

K = TypeVar("K")

DEADLINE = "DEADLINE"
LIMIT = "LIMIT"
DAMAGE = "DAMAGE"


@dataclass(frozen=True, slots=True)
class Chunk(Generic[K]):
    """Events that match, in order, maybe none; and where to go on after them."""

    events: pa.RecordBatch
    resume: K


@dataclass(slots=True)
class Costs:
    """What a reading has cost so far."""

    matched_events: int = 0
    scanned_events: int = 0
    matched_bytes: int = 0
    scanned_bytes: int = 0
    read_segments: int = 0
    pruned_segments: int = 0

    def scanned(self, events: int, row_bytes: int) -> None:
        """Count positions that were looked at, of events that take so many bytes in memory, about."""
        self.scanned_events += events
        self.scanned_bytes += events * row_bytes

    def found(self, events: pa.RecordBatch) -> None:
        """Count events that match."""
        self.matched_events += events.num_rows
        self.matched_bytes += events.nbytes

    def take(self, walk: Walk) -> None:
        """Count the segments of a walk."""
        self.read_segments = len(walk.read_segments)
        self.pruned_segments = len(walk.pruned_segments - walk.read_segments)


@dataclass(slots=True)
class Outcome(Generic[K]):
    """How far a reading came. `partial_reason` is empty where it came to the end; else it goes on at `resume`."""

    resume: K
    partial_reason: str = ""
    damage: LogCorrupted | None = None
    costs: Costs = field(default_factory=Costs)


class Reading(Protocol[K]):
    """A pass over the events that match, in an order. One thread at a time may use it."""

    outcome: Outcome[K]

    def chunks(self) -> Generator[Chunk[K], None, None]:
        """Yield what matches. Ends early where the time is up or damage comes: see `outcome`.

        Raises LogCorrupted where it would begin with damage, PositionTrimmed, WorkCancelled, OSError.
        """


@dataclass(frozen=True, slots=True)
class Engine:
    """What readings work with."""

    database: Database
    reader: ColumnReader


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a reading is to find, where, in what time, and in which form. limit: most events wanted, None for all."""

    engine: Engine
    question: Question
    committed: Committed
    work: Work
    clock: Clock
    projection: Projection
    limit: int | None


@functools.lru_cache(maxsize=64)
def nothing(schema: pa.Schema) -> pa.RecordBatch:
    """No events, with the columns of a result."""
    return pa.RecordBatch.from_pylist([], schema=schema)


def rows_of_a_chunk(row_bytes: int) -> int:
    """How many events of a size make a chunk."""
    return max(min(CHUNK_BYTES // max(row_bytes, 1), CHUNK_ROWS_MAX), 1)
