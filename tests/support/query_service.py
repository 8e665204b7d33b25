"""A query service without a wire, over a log that a test writes, and its RPCs as plain calls."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from eventlog.v1 import event_pb2
from eventlog.v1 import query_service_pb2 as pb

from query_service.counting import CountCache
from query_service.database import Database
from query_service.exporters import ExportFormats
from query_service.lanes import Lane
from query_service.metrics import QueryMetrics
from query_service.reading import Engine
from query_service.servicer import QueryServicer
from shared.clock import SystemClock
from shared.columns.wire import WireCodec
from shared.log.file_system import LocalFileSystem
from shared.log.log_reader import LocalLogReader
from shared.log.names import SEGMENTS, list_segments
from shared.log.sealing import SealOrder, seal_segment
from shared.log.segment_columns import ColumnReader
from shared.log.token_key import TokenKey
from shared.telemetry.metrics import Metrics
from tests.support.builders import numbered_frame, open_writer
from tests.support.log_requests import FakeContext

MIB = 1024 * 1024
_DAY_S = 86_400


@dataclass
class Streamed:
    """A whole stream: its events, its bytes, and the summary at its end."""

    events: list[event_pb2.Event]
    data: bytes
    summary: pb.ReadSummary

    @property
    def positions(self) -> list[int]:
        """Positions of the events, in the order in which they came."""
        return [event.position for event in self.events]


@dataclass
class Aggregated:
    """A whole aggregation: its rows, how far each message says it is, how large each is, and the summary."""

    rows: list[dict[str, Any]]
    until: list[int]
    sizes: list[int]
    summary: pb.ReadSummary


class QueryUnderTest:
    """A query service over a directory, and the log's writer. Use it as an asynchronous context manager."""

    def __init__(self, root: Path, *, log_id: str, calls_max: int = 64, with_log: bool = True) -> None:
        self.fs = LocalFileSystem(root)
        self.log_id = log_id
        self.writer = open_writer(self.fs, new_log_id=log_id) if with_log else None
        self.registry = Metrics("query_service")
        metrics = QueryMetrics(self.registry)
        reader = LocalLogReader(self.fs)
        self.columns = ColumnReader(self.fs, reader, tail_bytes_max=64 * MIB, use_sidecars=True)
        self._database = Database(self.fs.path(SEGMENTS), threads=2, memory_bytes_max=512 * MIB)
        lanes = [
            Lane(name, running_max=2, calls_max=calls_max, metrics=metrics.lane(name))
            for name in ("lookups", "searches")
        ]
        self.lookups, self.searches = lanes
        self.servicer = QueryServicer(
            reader,
            Engine(self._database, self.columns),
            WireCodec(),
            SystemClock(),
            metrics=metrics,
            counts=CountCache(1_000),
            lookups=self.lookups,
            searches=self.searches,
            formats=ExportFormats(),
            token_key=TokenKey(self.fs),
            slow_s=1e9,
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self._database)
        self._stack.callback(self.columns.close)
        self._stack.callback(self.lookups.close)
        self._stack.callback(self.searches.close)
        if self.writer is not None:
            self._stack.callback(self.writer.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def append(self, frames: int = 1) -> None:
        """Append frames of five events."""
        assert self.writer is not None
        for _ in range(frames):
            self.writer.append(numbered_frame(self.writer.last_position + 1, 5))

    def rotate(self) -> None:
        """Close the active segment."""
        assert self.writer is not None
        assert self.writer.rotate()

    def seal(self) -> None:
        """Seal every segment but the active one."""
        segments = list_segments(self.fs.list(SEGMENTS))
        for segment, following in itertools.pairwise(segments):
            if segment.log is not None:
                self._seal(segment.first, following.first)

    def _seal(self, first: int, until: int) -> None:
        order = SealOrder(
            base_path="",
            log_id=self.log_id,
            first=first,
            until=until,
            retention_default_s=90 * _DAY_S,
            retention_by_type_s={},
            promoted_paths=[],
            compress=True,
            write_index=True,
        )
        seal_segment(self.fs, order)

    def flip(self, name: str, offset: int) -> None:
        """Turn a bit of a file round."""
        with self.fs.path(name).open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))

    async def get(self, time_remaining: float | None = None, **fields: Any) -> event_pb2.Event:
        """Call GetEvent."""
        answer = await self.servicer.get_event(pb.GetEventRequest(**fields), _context(time_remaining))
        return pb.GetEventResponse.FromString(answer).event

    async def list(
        self, request: pb.ListEventsRequest | None = None, time_remaining: float | None = None, **fields: Any
    ) -> pb.ListEventsResponse:
        """Call ListEvents."""
        asked = pb.ListEventsRequest()
        asked.CopyFrom(request or asked)
        asked.MergeFrom(pb.ListEventsRequest(**fields))
        answer = await self.servicer.list_events(asked, _context(time_remaining))
        return pb.ListEventsResponse.FromString(answer)

    async def list_all(self, **fields: Any) -> "list[int]":
        """Positions of the events of all pages."""
        found: list[int] = []
        token = ""
        while True:
            page = await self.list(page_token=token, **fields)
            found += [event.position for event in page.events]
            token = page.next_page_token
            if not token:
                return found

    async def query(self, **fields: Any) -> Streamed:
        """Call Query to its end."""
        stream = self.servicer.query(pb.QueryRequest(**fields), _context(None))
        messages = [pb.QueryResponse.FromString(message) async for message in stream]
        events = [event for message in messages for event in message.events]
        return Streamed(events, b"", messages[-1].summary)

    async def count(self, **fields: Any) -> pb.CountEventsResponse:
        """Call CountEvents."""
        return await self.servicer.count_events(pb.CountEventsRequest(**fields), _context(None))

    async def scan(self, **fields: Any) -> Streamed:
        """Call Scan to its end; its bytes are an Arrow IPC stream."""
        return await _joined(self.servicer.scan(pb.ScanRequest(**fields), _context(None)), "arrow_ipc")

    async def aggregate(self, request: pb.AggregateRequest) -> Aggregated:
        """Call Aggregate to its end."""
        first, *others, last = [answer async for answer in self.servicer.aggregate(request, _context(None))]
        assert first.snapshot_position
        data = b"".join(answer.arrow_ipc for answer in (first, *others))
        table = pa.ipc.open_stream(data).read_all()
        # Times as numbers: datetimes have no nanoseconds.
        columns = [
            column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in table.columns
        ]
        rows = pa.Table.from_arrays(columns, table.column_names).to_pylist()
        sizes = [answer.ByteSize() for answer in (first, *others)]
        return Aggregated(rows, [answer.until_position for answer in others], sizes, last.summary)

    async def export(self, **fields: Any) -> Streamed:
        """Call Export to its end."""
        return await _joined(self.servicer.export(pb.ExportRequest(**fields), _context(None)), "data")

    async def explain(self, **fields: Any) -> pb.ExplainFilterResponse:
        """Call ExplainFilter."""
        return await self.servicer.explain_filter(pb.ExplainFilterRequest(**fields), _context(None))


async def _joined(stream: AsyncIterator[Any], name: str) -> Streamed:
    messages = [message async for message in stream]
    return Streamed([], b"".join(getattr(message, name) for message in messages), messages[-1].summary)


def _context(time_remaining: float | None) -> Any:
    return FakeContext(time_remaining)
