"""What the analyses read: columns, events and counts of the log, from the query service.

Invariants: every call has a deadline; a scan that stops early says why in its coverage; memory is bounded by
EVENTS_MAX events for what is kept whole, and what is a sample for that reason says so in its coverage.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import grpc
import pyarrow as pa
from eventlog.v1 import event_pb2, query_service_pb2
from eventlog.v1.query_service_pb2_grpc import QueryServiceStub

from analysis_service.columns import EventColumns, column_name
from analysis_service.coverage import Coverage
from analysis_service.expressions import all_of
from analysis_service.group_sample import GroupSample
from analysis_service.scan_columns import ScanColumns, as_text, columns_of
from analysis_service.statistics.sums import Sums
from shared.filters.tree import uses_now
from shared.rpc.filters import tree_of
from shared.rpc.remote_error import from_rpc_error

EVENTS_MAX = 3_000_000
# Events that an answer has whole: many clients take no message of more than 4 MiB, and an answer has more than events.
SAMPLES_MAX, SAMPLE_BYTES_MAX = 10_000, 2 * 1024 * 1024
# Of one question: a filter expression has at most 8 KiB, and a position at most 19 digits. Of the first question fewer,
# for events may be large.
_POSITIONS_AT_ONCE, _POSITIONS_AT_FIRST = 200, 16
_DAMAGE_NOTE = "the log is damaged: nothing behind that was looked at; VerifyLog names the positions that are lost"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events, and what of them, where they are scanned.

    expressions must hold too; until_position 0: everything committed.
    """

    filters: event_pb2.EventFilters
    columns: ScanColumns = field(default_factory=ScanColumns)
    expressions: tuple[str, ...] = ()
    from_position: int = 0
    until_position: int = 0

    @property
    def uses_now(self) -> bool:
        """Whether what is wanted changes as time goes by. Raises as selection."""
        return uses_now(tree_of(self.filters))

    def selection(self) -> query_service_pb2.EventSelection:
        """The same as a message. Raises EventFilterException, EventValidationException where the filters are wrong."""
        # An expression that is not whole could mean anything in brackets.
        tree_of(self.filters)
        filters = event_pb2.EventFilters()
        filters.CopyFrom(self.filters)
        own = f"({filters.expression})" if filters.expression else ""
        filters.expression = all_of(own, *self.expressions)
        return query_service_pb2.EventSelection(
            filters=filters, from_position=self.from_position, until_position=self.until_position
        )

    def share_until(self, position: int, snapshot: int) -> float:
        """Share of the positions to read that lies up to one of them. snapshot: the last committed one."""
        first = max(self.from_position, 1)
        last = min(self.until_position - 1, snapshot) if self.until_position else snapshot
        return (position - first + 1) / max(last - first + 1, 1)


class LogSource:
    """Asks the query service. Belongs to one event loop."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = QueryServiceStub(channel)

    async def batches(
        self, wanted: Wanted, coverage: Coverage, *, timeout_s: float
    ) -> AsyncGenerator[EventColumns, None]:
        """The events in batches, in the order of positions. Raises EventException."""
        request = query_service_pb2.ScanRequest(selection=wanted.selection(), columns=wanted.columns.names)
        coverage.read(0, share=0.0)
        async with aclosing(_arrow(self._stub.Scan(request, timeout=timeout_s), coverage)) as answers:
            async for batch, _ in answers:
                table = wanted.columns.table(batch)
                position = table.column("position")[-1].as_py()
                coverage.read(table.num_rows, share=wanted.share_until(position, coverage.snapshot_position))
                yield EventColumns(table)

    async def sums(
        self, wanted: Wanted, sums: Sums, coverage: Coverage, *, timeout_s: float, part: tuple[float, float]
    ) -> AsyncGenerator[EventColumns, None]:
        """Rows of sums of the events, in pieces; see Sums. part: of all reading, from where to where this is.

        Raises EventException.
        """
        request = query_service_pb2.AggregateRequest(
            selection=wanted.selection(),
            group_by=[as_text(field) for field in sums.fields],
            value_field=sums.value_field,
            by_value=sums.by_value,
            value_error=sums.value_error,
        )
        if sums.time_bucket_s:
            request.time_bucket.FromSeconds(sums.time_bucket_s)
        begin, end = part
        coverage.read(0, share=begin)
        async with aclosing(_arrow(self._stub.Aggregate(request, timeout=timeout_s), coverage)) as answers:
            async for batch, answer in answers:
                share = wanted.share_until(answer.until_position - 1, coverage.snapshot_position)
                coverage.read(0, share=begin + (end - begin) * share)
                names = [*map(column_name, sums.fields), *batch.schema.names[len(sums.fields) :]]
                yield EventColumns(pa.Table.from_arrays(batch.columns, names))

    async def events(self, wanted: Wanted, coverage: Coverage, *, timeout_s: float) -> EventColumns:
        """The events whole, the first EVENTS_MAX of them. Raises EventException."""
        tables: list[pa.Table] = []
        async with aclosing(self.batches(wanted, coverage, timeout_s=timeout_s)) as batches:
            async for batch in batches:
                tables.append(batch.table)
                if coverage.events >= EVENTS_MAX:
                    coverage.cut("EVENTS_MAX")
                    coverage.notes.append(f"only the first {coverage.events} events were looked at: narrow the filter")
                    break
        return columns_of(tables, wanted.columns)

    async def groups(self, wanted: Wanted, coverage: Coverage, *, key: str, timeout_s: float) -> EventColumns:
        """The events of whole groups, EVENTS_MAX of them at most; see GroupSample. Raises EventException."""
        sample = GroupSample(key, events_max=EVENTS_MAX)
        async with aclosing(self.batches(wanted, coverage, timeout_s=timeout_s)) as batches:
            async for batch in batches:
                await asyncio.to_thread(sample.add, batch)
        if sample.one_in > 1:
            coverage.cut("SAMPLED")
            coverage.notes.append(
                f"a sample of {sample.events} of {coverage.events} events: those of one in {sample.one_in} of the "
                f"values of {key}, chosen by their hash. What is counted is the sample: multiply it by "
                f"{sample.one_in} for an estimate of all, or narrow the filter"
            )
        return columns_of([each.table for each in sample.kept], wanted.columns)

    async def at_positions(
        self, positions: Iterable[int], coverage: Coverage, *, timeout_s: float, bytes_max: int = SAMPLE_BYTES_MAX
    ) -> dict[int, event_pb2.Event]:
        """Events by position: the first ones of those wanted, at most SAMPLES_MAX, of at most bytes_max together.

        Missing are those that do not fit, and those that cannot be read in time or at all. Raises EventException.
        """
        wanted = list(dict.fromkeys(positions))[:SAMPLES_MAX]
        found: dict[int, event_pb2.Event] = {}
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        asked, at_once, size = 0, _POSITIONS_AT_FIRST, 0
        while asked < len(wanted) and size < bytes_max:
            some = wanted[asked : asked + at_once]
            read = await self._events_at(sorted(some), coverage, timeout_s=end_s - loop.time())
            for event in (read[position] for position in some if position in read):
                size += event.ByteSize()
                if size > bytes_max:
                    break
                found[event.position] = event
            if coverage.partial_reason == "DEADLINE":
                break
            asked += len(some)
            # As many as will fit if they are like those before, and perhaps one more.
            at_once = min(_POSITIONS_AT_ONCE, 1 + max(0, bytes_max - size) * asked // max(1, size))
        return found

    async def _events_at(
        self, positions: list[int], coverage: Coverage, *, timeout_s: float
    ) -> dict[int, event_pb2.Event]:
        """Events at a few ascending positions, as far as they can be read in time."""
        listed = ", ".join(map(str, positions))
        request = query_service_pb2.QueryRequest(
            selection=query_service_pb2.EventSelection(
                filters=event_pb2.EventFilters(expression=f"position IN ({listed})"),
                from_position=positions[0],
                until_position=positions[-1] + 1,
            )
        )
        found: dict[int, event_pb2.Event] = {}
        call = self._stub.Query(request, timeout=max(0.0, timeout_s))
        try:
            async for response in call:
                found.update((event.position, event) for event in response.events)
                if response.HasField("summary"):
                    _take_summary(coverage, response.summary)
        except grpc.RpcError as failure:
            if not _is_deadline(failure):
                raise from_rpc_error(failure) from failure
            coverage.cut("DEADLINE")
        finally:
            call.cancel()
        return found

    async def count_since(self, wanted: Wanted, position: int, *, timeout_s: float) -> int:
        """How many of the wanted events came after a position. Raises EventException."""
        selection = wanted.selection()
        selection.from_position = position + 1
        request = query_service_pb2.CountEventsRequest(selection=selection)
        try:
            answer = await self._stub.CountEvents(request, timeout=timeout_s)
        except grpc.RpcError as failure:
            raise from_rpc_error(failure) from failure
        return int(answer.count)


async def _arrow(call: Any, coverage: Coverage) -> AsyncGenerator[tuple[pa.RecordBatch, Any], None]:
    """The record batches of a stream, each with its message. Raises EventException.

    The next message is on its way while the caller works on a batch.
    """
    schema = None
    coming = asyncio.ensure_future(call.read())
    try:
        while (response := await coming) is not grpc.aio.EOF:
            coming = asyncio.ensure_future(call.read())
            if response.HasField("summary"):
                _take_summary(coverage, response.summary)
            elif schema is None:
                schema = pa.ipc.read_schema(pa.py_buffer(response.arrow_ipc))
                coverage.took_into_account(response.snapshot_position)
            elif response.arrow_ipc:
                batch = pa.ipc.read_record_batch(pa.py_buffer(response.arrow_ipc), schema)
                yield batch, response
    except grpc.RpcError as failure:
        if not _is_deadline(failure):
            raise from_rpc_error(failure) from failure
        coverage.cut("DEADLINE")
    finally:
        call.cancel()
        await asyncio.gather(coming, return_exceptions=True)


def _take_summary(coverage: Coverage, summary: query_service_pb2.ReadSummary) -> None:
    coverage.took_into_account(summary.snapshot_position)
    if summary.partial:
        coverage.cut(summary.partial_reason)
    if summary.partial_reason == "DAMAGE" and _DAMAGE_NOTE not in coverage.notes:
        coverage.notes.append(_DAMAGE_NOTE)


def _is_deadline(failure: grpc.RpcError) -> bool:
    return bool(failure.code() == grpc.StatusCode.DEADLINE_EXCEEDED)
