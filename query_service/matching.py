"""Finds the matching rows of one relation, in its order.

DuckDB reads Parquet files whole-heartedly: it skips what no row needs. Of tables in memory it would copy every
column before it looks at the first row; so there it only tells the positions, and the rows are taken by those.
Where every event matches, it is not asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from query_service.database import Database
from query_service.event_projection import POSITIONS, EventProjection, as_schema
from query_service.question import Question
from query_service.reading import nothing
from query_service.statements import Projection, Window, select
from query_service.work import Work
from shared.columns.arrow import Array
from shared.columns.schema import EVENT_SCHEMA
from shared.filters.tree import Everything
from shared.log.segment_columns import ArrowColumns, Columns
from shared.log.types import Position

# Positions that are fetched at once: 1 MiB.
_POSITIONS = 131_072
# Beyond ten thousand rows DuckDB searches for the first ones in one thread only.
_FEW_ROWS_MAX = 8_192


def matching(
    database: Database,
    columns: Columns,
    question: Question,
    window: Window,
    *,
    projection: Projection,
    work: Work,
    rows: int,
    limit: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield what matches in a window, with the columns of the projection, in batches of about `rows`, none empty.

    Raises WorkCancelled, WorkExpired, FileNotFoundError, OSError.
    """
    if isinstance(columns, ArrowColumns) and isinstance(projection, EventProjection):
        yield from _in_memory(database, columns, question, window, work=work, rows=rows, limit=limit)
        return
    # Most filters let little pass, which then is all; what is to be sorted is held as a whole, so it goes on like that.
    at_once = (limit is not None and limit <= rows) or not isinstance(question.tree, Everything)
    while at_once:
        few = min(rows, _FEW_ROWS_MAX, rows if limit is None else limit)
        found = database.few(select(columns, question, window, projection, limit=few), work)
        if found.num_rows:
            yield as_schema(found, projection.schema)
        if found.num_rows < few or found.num_rows == limit:
            return
        window = replace(window, first=Position(int(found.column("position")[-1].as_py()) + 1))
        limit = None if limit is None else limit - few
        at_once = question.loses_order
    for batch in database.batches(select(columns, question, window, projection, limit=limit), work, rows=rows):
        if batch.num_rows:
            yield as_schema(batch, projection.schema)


def in_order(
    batches: Sequence[pa.RecordBatch], names: Sequence[str], *, descending: bool, schema: pa.Schema
) -> pa.RecordBatch:
    """Join batches into one, in the order of some columns of whole numbers or times, of which no two rows are equal."""
    if not batches:
        return nothing(schema)
    joined = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    # As numbers: numpy sorts the earliest of all times, which it takes for none, behind the others.
    keys = [joined.column(name).view(pa.uint64() if name == "position" else pa.int64()) for name in reversed(names)]
    order = np.lexsort([key.to_numpy() for key in keys])
    rows: Array = pa.array(order[::-1] if descending else order)
    return joined.take(rows)


def _in_memory(
    database: Database,
    columns: ArrowColumns,
    question: Question,
    window: Window,
    *,
    work: Work,
    rows: int,
    limit: int | None,
) -> Iterator[pa.RecordBatch]:
    """What matches of events in memory; see matching."""
    if isinstance(question.tree, Everything) and window.low is None and window.high is None:
        work.check()
        yield from _within(columns.events, window, rows if limit is None else min(rows, limit))
        return
    found = database.batches(select(columns, question, window, POSITIONS, limit=limit), work, rows=_POSITIONS)
    for positions in found:
        yield from _taken(columns.events, positions.column(0).to_numpy(), rows)


def _within(events: pa.Table, window: Window, rows: int) -> Iterator[pa.RecordBatch]:
    """The events at the positions of a window."""
    for block in events.to_batches():
        held = block.column("position").to_numpy()
        start = 0 if window.first is None else int(np.searchsorted(held, np.uint64(window.first)))
        end = len(held) if window.until is None else int(np.searchsorted(held, np.uint64(window.until)))
        for at in range(start, end, rows):
            yield as_schema(block.slice(at, min(rows, end - at)), EVENT_SCHEMA)


def _taken(events: pa.Table, positions: npt.NDArray[np.uint64], rows: int) -> Iterator[pa.RecordBatch]:
    """The events at some ascending positions."""
    for block in events.to_batches():
        if not block.num_rows:
            continue
        held = block.column("position").to_numpy()
        found = positions[np.searchsorted(positions, held[0]) : np.searchsorted(positions, held[-1], side="right")]
        numbers = np.searchsorted(held, found)
        for at in range(0, len(numbers), rows):
            yield as_schema(_rows(block, numbers[at : at + rows]), EVENT_SCHEMA)


def _rows(block: pa.RecordBatch, numbers: npt.NDArray[np.intp]) -> pa.RecordBatch:
    """Rows by their ascending numbers."""
    if int(numbers[-1]) - int(numbers[0]) == len(numbers) - 1:
        return block.slice(int(numbers[0]), len(numbers))
    rows: Array = pa.array(numbers)
    return block.take(rows)
