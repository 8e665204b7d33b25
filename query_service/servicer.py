"""QueryService over gRPC: checks requests, waits for positions, hands the reading to threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TypeVar

from eventlog.v1 import event_pb2, query_service_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from query_service.event_reader import PAGE_BYTES_MAX, EventReader, Page, PageRequest, not_found
from shared.clock import Clock
from shared.columns.answers import AnswerEncoder
from shared.columns.wire import WireCodec
from shared.errors import EventException, EventFilterException, EventValidationException, FieldViolation
from shared.events.ids import parse_event_id
from shared.log.committed_position import Committed
from shared.log.log_reader import LogReader
from shared.log.types import Position
from shared.rpc.call import Context
from shared.rpc.page_tokens import decode_page_token, encode_page_token
from shared.rpc.service import raw_response

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 10_000
READS_RUNNING_MAX = 4
READS_WAITING_MAX = 64
# Another process publishes the committed position in memory: there is nothing to wait on but time.
_POSITION_POLL_S = 0.002
_WAIT_MAX_S = 30.0
# Of the time a caller leaves, this share may go into reading; the rest brings the answer home.
_READING_SHARE = 0.8
# How much larger a payload usually is as a structure than as text.
_STRUCT_GROWTH = 4
_NANOS_PER_SECOND = 1_000_000_000

T = TypeVar("T")


class QueryServicer:
    """Answers questions about recorded events. The RPCs it lacks are not built yet."""

    def __init__(self, log: LogReader, codec: WireCodec, clock: Clock) -> None:
        self._log = log
        self._reader = EventReader(log)
        self._codec = codec
        self._clock = clock
        self._threads = ThreadPoolExecutor(READS_RUNNING_MAX, thread_name_prefix="read")
        self._reads = 0

    def close(self) -> None:
        """End the reading threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    @raw_response
    async def get_event(self, request: query_service_pb2.GetEventRequest, context: Context) -> bytes:
        """Return one event by id or position."""
        committed = await self._committed(request.min_position, context)
        position = _position_asked_for(request, committed)
        if position > committed.position:
            raise not_found(f"position {position} is not committed; the last one is {committed.position}")
        encoder = AnswerEncoder(self._codec, committed.log_id)
        as_struct = _as_struct(request.payload_form)
        return await self._read(lambda: encoder.encode(self._reader.get(position), payload_as_struct=as_struct))

    @raw_response
    async def list_events(self, request: query_service_pb2.ListEventsRequest, context: Context) -> bytes:
        """Return one page of events."""
        _refuse_what_is_not_built(request)
        committed = await self._committed(request.selection.min_position, context)
        key = blake2b(committed.log_id.encode(), digest_size=32).digest()
        wanted = _page_request(request, committed, key)
        if wanted.first is None:
            first = await self._read(self._log.first_position)
        else:
            first = wanted.first
        stopped = self._deadline_check(context)
        encoder = AnswerEncoder(self._codec, committed.log_id)
        as_struct = _as_struct(request.payload_form)

        def read() -> tuple[Page, bytes]:
            page = self._reader.page(wanted.request(first), stopped=stopped)
            return page, encoder.encode(page.events, payload_as_struct=as_struct)

        page, events = await self._read(read)
        rest = query_service_pb2.ListEventsResponse(
            next_page_token=_next_token(request, page, wanted.snapshot, key), snapshot_position=wanted.snapshot
        )
        return events + rest.SerializeToString()

    async def _committed(self, min_position: int, context: Context) -> Committed:
        committed = self._log.committed()
        give_up_s = self._clock.monotonic_s() + _patience_s(context)
        while committed.position < min_position:
            if self._clock.monotonic_s() >= give_up_s:
                raise EventFilterException(
                    f"position {min_position} is not committed yet; the last one is {committed.position}: retry later",
                    reason="POSITION_NOT_REACHED",
                    committed_position=committed.position,
                )
            await asyncio.sleep(_POSITION_POLL_S)
            committed = self._log.committed()
        return committed

    async def _read(self, read: Callable[[], T]) -> T:
        if self._reads >= READS_RUNNING_MAX + READS_WAITING_MAX:
            raise EventException(
                f"{self._reads} reads run and wait already: retry later, or ask for smaller pages",
                reason="TOO_MANY_REQUESTS",
            )
        self._reads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, read)
        finally:
            self._reads -= 1

    def _deadline_check(self, context: Context) -> Callable[[], bool]:
        end_s = self._clock.monotonic_s() + _patience_s(context)
        return lambda: self._clock.monotonic_s() > end_s


class _PageAsked:
    """What a page request asks for, with its token read. `first` is None for the first kept position."""

    def __init__(self, first: Position | None, until: Position, *, limit: int, snapshot: Position) -> None:
        self.first = first
        self.until = until
        self.limit = limit
        self.bytes_max = PAGE_BYTES_MAX
        self.snapshot = snapshot
        self.start_ns: int | None = None
        self.end_ns: int | None = None

    def request(self, first: Position) -> PageRequest:
        return PageRequest(first, self.until, self.limit, self.start_ns, self.end_ns, self.bytes_max)


def _page_request(request: query_service_pb2.ListEventsRequest, committed: Committed, key: bytes) -> _PageAsked:
    selection = request.selection
    if request.page_size < 0:
        raise _invalid("page_size", "must not be negative")
    limit = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
    snapshot = committed.position
    first = Position(selection.from_position) if selection.from_position else None
    if request.page_token:
        state = decode_page_token(request.page_token, _query_bytes(request), key=key)
        first, snapshot = Position(state["next"]), Position(state["snapshot"])
    until = Position(min(selection.until_position or snapshot + 1, snapshot + 1))
    asked = _PageAsked(first, until, limit=limit, snapshot=snapshot)
    if _as_struct(request.payload_form):
        asked.bytes_max //= _STRUCT_GROWTH
    time_range = selection.filters.time_range
    if time_range.HasField("start"):
        asked.start_ns = _nanoseconds("selection.filters.time_range.start", time_range.start)
    if time_range.HasField("end"):
        asked.end_ns = _nanoseconds("selection.filters.time_range.end", time_range.end)
    return asked


def _nanoseconds(field: str, time: Timestamp) -> int:
    nanoseconds = time.seconds * _NANOS_PER_SECOND + time.nanos
    if not -(2**63) <= nanoseconds < 2**63 or not 0 <= time.nanos < _NANOS_PER_SECOND:
        raise _invalid(field, "must lie between 1677-09-22 and 2262-04-11, with nanos from 0 to 999999999")
    return nanoseconds


def _next_token(request: query_service_pb2.ListEventsRequest, page: Page, snapshot: Position, key: bytes) -> str:
    if page.next_position is None:
        return ""
    return encode_page_token(_query_bytes(request), {"next": page.next_position, "snapshot": snapshot}, key=key)


def _query_bytes(request: query_service_pb2.ListEventsRequest) -> bytes:
    """What a page token is bound to: the request without its page."""
    query = query_service_pb2.ListEventsRequest()
    query.CopyFrom(request)
    query.ClearField("page_token")
    query.ClearField("page_size")
    query.selection.ClearField("min_position")
    return query.SerializeToString(deterministic=True)


def _refuse_what_is_not_built(request: query_service_pb2.ListEventsRequest) -> None:
    filters = event_pb2.EventFilters()
    filters.CopyFrom(request.selection.filters)
    filters.ClearField("time_range")
    if filters.ByteSize():
        raise EventException("filters other than time_range are not built yet", reason="NOT_IMPLEMENTED")
    if request.order not in {
        query_service_pb2.EVENT_ORDER_UNSPECIFIED,
        query_service_pb2.EVENT_ORDER_POSITION_ASCENDING,
    }:
        raise EventException("orders other than by ascending position are not built yet", reason="NOT_IMPLEMENTED")


def _position_asked_for(request: query_service_pb2.GetEventRequest, committed: Committed) -> Position:
    if bool(request.id) == bool(request.position):
        raise _invalid("id", "and position: set exactly one of them")
    if request.position:
        return Position(request.position)
    try:
        log_id, position = parse_event_id(request.id)
    except EventValidationException as error:
        raise EventValidationException(str(error), violations=error.violations, reason="INVALID_FIELD") from None
    if log_id != committed.log_id:
        raise not_found(f"{request.id} belongs to another log than this one, {committed.log_id}")
    return Position(position)


def _as_struct(form: int) -> bool:
    return form == event_pb2.PAYLOAD_FORM_STRUCT


def _patience_s(context: Context) -> float:
    remaining = context.time_remaining()
    return _WAIT_MAX_S if remaining is None else remaining * _READING_SHARE


def _invalid(field: str, description: str) -> EventValidationException:
    return EventValidationException(
        f"{field} {description}", violations=[FieldViolation(field, description)], reason="INVALID_FIELD"
    )
