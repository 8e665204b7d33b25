"""A query, a count and an export, as their messages come in: what to ask next, and when it is complete. No I/O.

Invariants of a query: each event is given once and none is left out, however often it is interrupted; it is gone on
with by the service's token where the answer was partial, and behind the last event where the connection broke.
"""

from pathlib import Path

from eventlog.v1 import query_service_pb2

from shared.client.event_messages import event_of
from shared.client.query_answers import ExportProgress, ExportReport, OnProgress
from shared.errors import EventException, EventFilterException, LogCorrupted
from shared.events.model import RecordedEvent

_BY_TIMESTAMP = frozenset(
    {query_service_pb2.EVENT_ORDER_TIMESTAMP_ASCENDING, query_service_pb2.EVENT_ORDER_TIMESTAMP_DESCENDING}
)
# How often an export is begun anew that broke in the middle.
_RESTARTS_MAX = 3


class QueryRun:
    """The answer to one QueryRequest, over as many calls as it takes."""

    def __init__(self, request: query_service_pb2.QueryRequest, limit: int | None) -> None:
        """limit: most events to give; None for all."""
        request.limit = limit or 0
        self._request = request
        self._left = limit
        # Position of the last event that came since the request was last changed.
        self._last = 0
        self._ended = False
        self.complete = limit == 0

    def request(self) -> query_service_pb2.QueryRequest:
        """What to ask in the next call."""
        self._ended = False
        return self._request

    def take(self, response: query_service_pb2.QueryResponse) -> list[RecordedEvent]:
        """Take a message; return its events.

        Raises EventFilterException, LogCorrupted where the answer ends early and cannot be gone on with.
        """
        events = [event_of(event) for event in response.events]
        if self._left is not None:
            events = events[: self._left]
            self._left -= len(events)
        if events:
            self._last = events[-1].position
        if self._left == 0:
            self._ended = self.complete = True
        elif response.HasField("summary"):
            self._end(response.summary)
        return events

    def go_on(self) -> bool:
        """Prepare to go on where the last call broke off. False where that cannot be said."""
        if self._last == 0:
            return True
        if self._request.order in _BY_TIMESTAMP:
            # Positions say nothing there of what is still to come.
            return False
        self._request.resume_token = ""
        self._request.limit = self._left or 0
        if self._request.order == query_service_pb2.EVENT_ORDER_POSITION_DESCENDING:
            self._request.selection.until_position = self._last
            self.complete = self._last == 1
        else:
            self._request.selection.from_position = self._last + 1
        self._last = 0
        return True

    def check_ended(self) -> None:
        """Raise EventFilterException unless the call under way said that it was over."""
        if not self._ended:
            raise _no_summary("the answer")

    def _end(self, summary: query_service_pb2.ReadSummary) -> None:
        self._ended = True
        if not summary.partial:
            self.complete = True
            return
        if summary.resume_token in ("", self._request.resume_token):
            raise _cut_short(summary, "the answer")
        self._request.resume_token = summary.resume_token
        self._last = 0


class CountRun:
    """The answer to one CountEventsRequest, over as many calls as it takes."""

    def __init__(self, request: query_service_pb2.CountEventsRequest) -> None:
        self.request = request
        self.count = 0
        self.complete = False

    def take(self, response: query_service_pb2.CountEventsResponse) -> None:
        """Take an answer. Raises EventFilterException, LogCorrupted where it cannot be gone on with."""
        self.count += response.count
        summary = response.summary
        self.complete = not summary.partial
        if summary.partial and summary.resume_token in ("", self.request.resume_token):
            raise _cut_short(summary, "the count")
        self.request.resume_token = summary.resume_token


class ExportRun:
    """The file of one ExportRequest; a broken one begins anew."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._events = self._bytes = self._restarts = 0
        self._snapshot = 0
        self.complete = False

    def take(self, response: query_service_pb2.ExportResponse) -> bytes:
        """Take a message; return the next bytes of the file.

        Raises EventFilterException, LogCorrupted where the file would not be complete.
        """
        self._bytes += len(response.data)
        self._events = max(self._events, response.exported_events)
        self._tell()
        if response.HasField("summary"):
            if response.summary.partial:
                raise _cut_short(response.summary, "the export")
            self._snapshot = response.summary.snapshot_position
            self.complete = True
        return response.data

    def check_ended(self) -> None:
        """Raise EventFilterException unless the file is complete."""
        if not self.complete:
            raise _no_summary("the export")

    def restart(self) -> bool:
        """Begin anew; False if it was tried often enough."""
        if self._bytes:
            self._restarts += 1
        self._events = self._bytes = 0
        self._tell()
        return self._restarts <= _RESTARTS_MAX

    def report(self, path: Path) -> ExportReport:
        """What was exported."""
        assert self.complete
        return ExportReport(path=path, events=self._events, bytes=self._bytes, snapshot_position=self._snapshot)

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(ExportProgress(events=self._events, bytes=self._bytes))


def _cut_short(summary: query_service_pb2.ReadSummary, what: str) -> EventException:
    """The error for an answer that ends early and cannot be gone on with; its metadata says partial_reason."""
    if summary.partial_reason == "DAMAGE":
        return LogCorrupted(
            f"{what} is not complete: it came to damaged positions; VerifyLog tells which, ask around them",
            partial_reason=summary.partial_reason,
        )
    return EventFilterException(
        f"{what} is not complete ({summary.partial_reason}): give it more time, or ask for less",
        reason="INTERNAL",
        partial_reason=summary.partial_reason,
    )


def _no_summary(what: str) -> EventFilterException:
    return EventFilterException(
        f"{what} ended without a summary, so it may not be whole: is there a proxy between that cuts streams?",
        reason="INTERNAL",
    )
