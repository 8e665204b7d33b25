"""History as the query service tells it, for replays and for subscriptions that catch up.

Invariants: every call has a deadline; what is read has no gap and nothing twice, in the order of positions, across
answers that were cut short, lost connections and restarts of the query service. A service that cannot be reached is
tried again for RETRY_S_MAX since the last answer; then the error is DEPENDENCY_UNAVAILABLE, or what it said itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import grpc
from eventlog.v1 import event_pb2, query_service_pb2

from shared.client.attempts import Attempts, is_passing
from shared.client.back_off import BackOff
from shared.clock import Clock
from shared.columns.encoded_events import EncodedEvents, read_answer
from shared.errors import EventException, LogCorrupted
from shared.events.ids import parse_event_id
from shared.events.timestamps import format_timestamp
from shared.filters.limits import LIST_VALUES_MAX
from shared.filters.printer import print_filter
from shared.filters.tree import Comparison, Field, IsNull, Text, Tree, all_of
from shared.rpc.reasons import reason_named
from shared.rpc.remote_error import RemoteError, from_rpc_error

CALL_S_MAX = 60.0
RETRY_S_MAX = 30.0

_SERVICE = "/eventlog.v1.QueryService"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Extent:
    """What there is: the first kept position, and the last committed; first is beyond it where there is nothing."""

    first_position: int
    committed_position: int
    # Id of the log; "" where it has no events.
    log_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which events: those of [from_position, until_position) that match."""

    from_position: int
    until_position: int
    # An encoded EventFilters, and a number of PayloadForm: passed on to the query service.
    filters: bytes = b""
    payload_form: int = event_pb2.PAYLOAD_FORM_UNSPECIFIED

    def following(self, position: int) -> "Selection":
        """What is left of it from this position on."""
        return replace(self, from_position=position)


class QueryHistory:
    """Reads history over a channel to the query service. Belongs to one event loop."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock, back_off: BackOff | None = None) -> None:
        self._clock = clock
        self._back_off = back_off or BackOff()
        self._list = channel.unary_unary(
            f"{_SERVICE}/ListEvents",
            request_serializer=query_service_pb2.ListEventsRequest.SerializeToString,
            response_deserializer=query_service_pb2.ListEventsResponse.FromString,
        )
        self._query: grpc.aio.UnaryStreamMultiCallable[query_service_pb2.QueryRequest, bytes] = channel.unary_stream(
            f"{_SERVICE}/Query",
            request_serializer=query_service_pb2.QueryRequest.SerializeToString,
            response_deserializer=None,
        )

    async def extent(self) -> Extent:
        """What there is now. A damaged event counts as kept. Raises EventException."""
        try:
            page = await self._page()
            first = page.events[0].position if page.events else page.snapshot_position + 1
        except LogCorrupted as error:
            # The first event cannot be read; whoever begins behind it must be able to.
            first = int(error.metadata["first_position"])
            page = await self._page(until_position=first)
        log_id = parse_event_id(page.events[0].id)[0] if page.events else ""
        return Extent(first, page.snapshot_position, log_id)

    async def first_recorded_since(self, time_ns: int, within: Extent) -> int:
        """The first position recorded at or after a time; the one after the last where there is none.

        recorded_at never decreases, so everything behind it is recorded later. Raises EventException.
        """
        recorded_since = event_pb2.EventFilters(expression=f"recorded_at >= '{format_timestamp(time_ns)}'")
        selection = Selection(
            from_position=within.first_position,
            until_position=within.committed_position + 1,
            filters=recorded_since.SerializeToString(),
        )
        async with aclosing(self.read(selection, limit=1)) as batches:
            async for events in batches:
                return int(events.positions[0])
        return within.committed_position + 1

    async def read(self, wanted: Selection, *, limit: int = 0) -> AsyncGenerator[EncodedEvents, None]:
        """The events, in batches that are not empty. limit: most of them; 0 for no limit. Raises EventException."""
        rest = _Rest(wanted, limit)
        attempts = self._attempts()
        while not rest.done:
            try:
                async with aclosing(_messages(self._query(rest.request(), timeout=CALL_S_MAX))) as messages:
                    async for message in messages:
                        if events := rest.take(message):
                            attempts.progressed()
                            yield events
                if rest.is_cut_off:
                    raise _cut_off()
            except RemoteError as error:
                await _wait_to_retry(attempts, error)

    async def _page(self, *, until_position: int = 0) -> query_service_pb2.ListEventsResponse:
        """The first event, and what is committed."""
        selection = query_service_pb2.EventSelection(until_position=until_position)
        request = query_service_pb2.ListEventsRequest(selection=selection, page_size=1)
        return await self._retrying(lambda: self._list(request, timeout=CALL_S_MAX))

    async def _retrying(self, call: Callable[[], Awaitable[T]]) -> T:
        attempts = self._attempts()
        while True:
            try:
                return await call()
            except grpc.RpcError as error:
                await _wait_to_retry(attempts, from_rpc_error(error))

    def _attempts(self) -> Attempts:
        return Attempts(self._back_off, self._clock, give_up_after_s=RETRY_S_MAX)


def session_filter(session_id: str, *, unchained: bool = False) -> bytes:
    """The filter for the events of a session; unchained: only those without a correlation id."""
    parts: list[Tree] = [Comparison(Field("metadata.session_id"), "=", Text(session_id))]
    if unchained:
        parts.append(IsNull(Field("correlation_id")))
    return event_pb2.EventFilters(expression=print_filter(all_of(parts))).SerializeToString()


def chains_filter(correlation_ids: Sequence[str]) -> bytes:
    """The filter for the events of at most LIST_VALUES_MAX correlation ids."""
    assert len(correlation_ids) <= LIST_VALUES_MAX, len(correlation_ids)
    return event_pb2.EventFilters(correlation_ids=correlation_ids).SerializeToString()


class _Rest:
    """What of a selection is still to be read."""

    def __init__(self, wanted: Selection, limit: int) -> None:
        self.done = wanted.from_position >= wanted.until_position
        self._wanted = wanted
        self._limit = limit
        self._asked = query_service_pb2.QueryRequest()
        self._token = ""
        self._summarised = False

    @property
    def is_cut_off(self) -> bool:
        """Whether the answer so far lacks its end."""
        return not self.done and not self._summarised

    def request(self) -> query_service_pb2.QueryRequest:
        """Ask for it: with the token of an answer that was cut short, which is for the same request, or anew."""
        if not self._token:
            wanted = self._wanted
            selection = query_service_pb2.EventSelection(
                from_position=wanted.from_position,
                until_position=wanted.until_position,
                # A replica that is behind waits, and does not say that there is nothing.
                min_position=wanted.until_position - 1,
            )
            selection.filters.MergeFromString(wanted.filters)
            self._asked = query_service_pb2.QueryRequest(
                selection=selection,
                limit=self._limit,
                payload_form=event_pb2.PayloadForm.ValueType(wanted.payload_form),
            )
        self._asked.resume_token = self._token
        self._summarised = False
        return self._asked

    def take(self, message: bytes) -> EncodedEvents | None:
        """The events of one message of an answer, where it has some."""
        events, encoded_summary = read_answer(message)
        if len(events):
            self._wanted = self._wanted.following(int(events.positions[-1]) + 1)
            self._token = ""
            if self._limit:
                self._limit -= len(events)
                self.done = self._limit <= 0
        if encoded_summary:
            self._summarised = True
            summary = query_service_pb2.ReadSummary.FromString(encoded_summary)
            self.done = self.done or not summary.partial
            self._token = summary.resume_token
        return events if len(events) else None


async def _wait_to_retry(attempts: Attempts, error: RemoteError) -> None:
    """Wait until the next attempt. Raises EventException where none would help, or they have failed for too long."""
    try:
        delay_s = attempts.failed(error)
    except RemoteError:
        if is_passing(error) and not reason_named(error.reason):
            raise _unreachable(error) from error
        raise
    await asyncio.sleep(delay_s)


def _cut_off() -> RemoteError:
    error = RemoteError("the query service ended an answer before its summary", reason="DEPENDENCY_UNAVAILABLE")
    error.code = grpc.StatusCode.UNAVAILABLE
    return error


def _unreachable(error: RemoteError) -> EventException:
    return EventException(
        f"the query service does not answer ({error}): try again when it is back", reason="DEPENDENCY_UNAVAILABLE"
    )


async def _messages(call: Any) -> AsyncGenerator[bytes, None]:
    """The answers of a call, which is over when the generator is. Raises RemoteError."""
    try:
        async for message in call:
            yield message
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    finally:
        call.cancel()
