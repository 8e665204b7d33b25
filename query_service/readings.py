"""Readings in any order, and pages of them."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from query_service.ascending_reading import AscendingReading
from query_service.descending_reading import DescendingReading
from query_service.message_sizes import fitting
from query_service.pace import STEP_S
from query_service.question import Order, Question
from query_service.reading import Assignment, Chunk, Engine, Reading, nothing
from query_service.statements import Key, Projection
from query_service.timestamp_reading import HIGHEST, LOWEST, TimestampReading
from query_service.work import Work
from shared.clock import Clock
from shared.columns.schema import EVENT_SCHEMA
from shared.log.committed_position import Committed
from shared.log.types import Position

Place = Position | Key


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reading is to give: which events, in which order, from which place on, and how many."""

    question: Question
    committed: Committed
    order: Order
    place: Place | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """Events (EVENT_SCHEMA), and where the next page begins; None on the last."""

    events: pa.RecordBatch
    next_place: Place | None


def open_reading(engine: Engine, clock: Clock, asked: Asked, work: Work, projection: Projection) -> Reading[Any]:
    """Begin a reading. Raises OSError."""
    question, place = asked.question, asked.place
    assignment = Assignment(engine, question, asked.committed, work, clock, projection, asked.limit)
    if asked.order in {Order.TIMESTAMP_ASCENDING, Order.TIMESTAMP_DESCENDING}:
        down = asked.order.descends
        start = place if isinstance(place, tuple) else (HIGHEST if down else LOWEST)
        return TimestampReading(assignment, start=start, descending=down)
    assert not isinstance(place, tuple), "a place is one of its order"
    if asked.order is Order.POSITION_DESCENDING:
        return DescendingReading(assignment, start=question.until if place is None else place)
    return AscendingReading(assignment, start=place or question.first or engine.reader.first_position())


def worth_a_step(reading: Reading[Any], clock: Clock) -> Generator[Chunk[Any], None, None]:
    """The chunks of a reading without those that have no events, but one at least every STEP_S, about."""
    with contextlib.closing(reading.chunks()) as chunks:
        end_s = clock.monotonic_s() + STEP_S
        for chunk in chunks:
            if chunk.events.num_rows or clock.monotonic_s() >= end_s:
                yield chunk
                end_s = clock.monotonic_s() + STEP_S


class PageReading:
    """Fills one page: at most asked.limit events and about bytes_max bytes, but at least one event if there is one.

    It ends early, with a place to go on from, where the time is up or damage comes. One thread at a time may use it.
    """

    def __init__(self, reading: Reading[Any], asked: Asked, clock: Clock, *, bytes_max: int) -> None:
        self._reading = reading
        self._asked = asked
        self._clock = clock
        self._bytes_left = bytes_max
        self._chunks = reading.chunks()
        self._found: list[pa.RecordBatch] = []
        self.page: Page | None = None

    def step(self) -> bool:
        """Read for STEP_S, about; whether the page is there. Raises as Reading.chunks."""
        end_s = self._clock.monotonic_s() + STEP_S
        for chunk in self._chunks:
            if not self._take(chunk.events):
                # Here and not when it is forgotten: that may be in the event loop's thread.
                self._chunks.close()
                self.page = Page(_joined(self._found), _place_after(self._asked.order, self._found[-1]))
                return True
            if self._clock.monotonic_s() >= end_s:
                return False
        events, outcome = _joined(self._found), self._reading.outcome
        is_full = events.num_rows == self._asked.limit and not _is_end(self._asked, outcome.resume)
        self.page = Page(events, outcome.resume if outcome.partial_reason or is_full else None)
        return True

    def _take(self, events: pa.RecordBatch) -> bool:
        """Take what fits; whether that is all."""
        taken, size = fitting(events, self._bytes_left, at_least=0 if self._found else 1)
        self._bytes_left -= size
        if taken.num_rows:
            self._found.append(taken)
        return taken.num_rows == events.num_rows


def read_page(reading: Reading[Any], asked: Asked, clock: Clock, *, bytes_max: int) -> Page:
    """Read one page at a stretch; see PageReading."""
    pages = PageReading(reading, asked, clock, bytes_max=bytes_max)
    while not pages.step():
        pass
    assert pages.page is not None
    return pages.page


def _is_end(asked: Asked, place: Place) -> bool:
    """Whether nothing can follow a place."""
    if isinstance(place, tuple):
        return False
    if asked.order.descends:
        return place <= (asked.question.first or 1)
    return place >= asked.question.until


def _place_after(order: Order, events: pa.RecordBatch) -> Place:
    """The place behind the last of some events."""
    position = int(events.column("position")[-1].as_py())
    behind = Position(position if order.descends else position + 1)
    if order in {Order.POSITION_ASCENDING, Order.POSITION_DESCENDING}:
        return behind
    return int(events.column("timestamp")[-1].value), behind


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if not batches:
        return nothing(EVENT_SCHEMA)
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
