"""The replays that run now: how many there may be, and where to find one.

Invariants: never more than replays_max; a replay is found under its id as long as it runs, and not after. After
`close` none begins. Belongs to one event loop.
"""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from shared.errors import EventException, EventStreamException
from shared.rpc.drain import draining_error
from stream_service.replay_metrics import ReplayMetrics
from stream_service.replay_run import ReplayRun

_ID_BYTES = 9


@dataclass(frozen=True, slots=True)
class RunningReplay:
    """A replay, and the filter that it was begun with, as an encoded EventFilters."""

    run: ReplayRun
    filters: bytes


class RunningReplays:
    """Admits replays and knows those that run."""

    def __init__(self, replays_max: int, metrics: ReplayMetrics) -> None:
        self._replays_max = replays_max
        self._metrics = metrics
        self._admitted = 0
        self._replays: dict[str, RunningReplay] = {}
        self._closed = False
        self._all_ended = asyncio.Event()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place for one replay. Raises EventException (TOO_MANY_REQUESTS, SERVER_DRAINING)."""
        if self._closed:
            raise draining_error("the stream service")
        if self._admitted >= self._replays_max:
            self._metrics.refused.inc()
            raise EventException(
                f"{self._admitted} replays run already, as many as replay.max_replays allows: try again when one has "
                "ended",
                reason="TOO_MANY_REQUESTS",
                replays_max=self._replays_max,
            )
        self._admitted += 1
        self._metrics.running.set(self._admitted)
        try:
            yield
        finally:
            self._admitted -= 1
            self._metrics.running.set(self._admitted)
            if not self._admitted:
                self._all_ended.set()

    @contextmanager
    def running(self, replay: RunningReplay) -> Iterator[str]:
        """Let a replay be found, under the id that this yields."""
        replay_id = f"rpl_{secrets.token_urlsafe(_ID_BYTES)}"
        self._replays[replay_id] = replay
        if self._closed:
            replay.run.end(draining_error("the stream service"))
        try:
            yield replay_id
        finally:
            del self._replays[replay_id]

    def find(self, replay_id: str) -> RunningReplay:
        """The replay of an id. Raises EventStreamException (REPLAY_NOT_FOUND)."""
        try:
            return self._replays[replay_id]
        except KeyError:
            raise EventStreamException(
                f"no replay {replay_id[:80]!r} is running: it has ended, or began at another server",
                reason="REPLAY_NOT_FOUND",
            ) from None

    async def close(self) -> None:
        """End all replays with SERVER_DRAINING, and wait until they have ended."""
        self._closed = True
        for replay in self._replays.values():
            replay.run.end(draining_error("the stream service"))
        if self._admitted:
            await self._all_ended.wait()
