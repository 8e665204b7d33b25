"""Who waits for an event, and how they learn what became of it. Shared by the threaded and the asyncio form."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from shared.client.submission import Failed, Request
from shared.clock import Clock
from shared.errors import EventException

_logger = logging.getLogger(__name__)

WARNING_INTERVAL_S = 1.0


@dataclass(slots=True, eq=False)
class Acknowledgement:
    """The handle of a submission in the outbox."""

    # Future of an event id, or of a list of them.
    future: Future[Any] | asyncio.Future[Any]
    single: bool
    # Whether the caller waits and so learns of a failure itself.
    awaited: bool

    def resolve(self, ids: list[str]) -> None:
        """The events are logged under these ids."""
        if not self.future.done():
            self.future.set_result(ids[0] if self.single else ids)

    def fail(self, error: EventException) -> None:
        """The events are not logged, or not for sure."""
        if not self.future.done():
            self.future.set_exception(error)
            # Asked for here, so that asyncio does not complain of an error that nobody asked for: those that
            # nobody waits for are reported below.
            self.future.exception()


def resolve_all(request: Request[Acknowledgement], ids: list[str]) -> None:
    """Tell each submission of a request its ids."""
    first = 0
    for submission in request.submissions:
        submission.handle.resolve(ids[first : first + submission.count])
        first += submission.count


@dataclass(slots=True)
class LossReporter:
    """Tells of events that nobody waited for: one warning a second at most, and the caller's own function."""

    clock: Clock
    on_lost: Callable[[int, EventException], None] | None
    _unreported: int = 0
    _last_error: EventException | None = None
    _warned_s: float = field(default=float("-inf"))

    def fail_all(self, failed: Sequence[Failed[Acknowledgement]]) -> None:
        """Fail the submissions, and report those that nobody waits for."""
        for each in failed:
            each.submission.handle.fail(each.error)
            if not each.submission.handle.awaited:
                self._report(each.submission.count, each.error)

    def report_rest(self) -> None:
        """Warn of the losses since the last warning, if there are any."""
        if self._unreported:
            _logger.warning("%d events were not logged; the last one: %s", self._unreported, self._last_error)
            self._unreported = 0
            self._warned_s = self.clock.monotonic_s()

    def _report(self, count: int, error: EventException) -> None:
        self._unreported += count
        self._last_error = error
        if self.clock.monotonic_s() - self._warned_s >= WARNING_INTERVAL_S:
            self.report_rest()
        if self.on_lost is not None:
            try:
                self.on_lost(count, error)
            except Exception:
                _logger.exception("on_lost failed; the events in question are not logged either way")
