"""Saves how far a running replay has got, as it goes.

What was handed to the connection may still be on its way when the service is killed. So while the replay runs, what
is saved is where it was a second before; at its end, where it is.

Invariants: a save at most every SAVE_EVERY_S, and one at the end; what is saved is never ahead of what was handed
over. A save that fails is counted and told in the log, and the replay goes on: what was saved before it stays.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from prometheus_client import Counter

from shared.errors import EventException
from stream_service.replay_run import Progress, ReplayRun

SAVE_EVERY_S = 1.0

_log = logging.getLogger("eventlog.replay")


class ReplayCheckpoint:
    """Saves the progress of one replay, in the background while its context is entered."""

    def __init__(self, run: ReplayRun, save: Callable[[Progress], Awaitable[None]], failures: Counter) -> None:
        self._run = run
        self._save = save
        self._failures = failures
        self._saved: Progress | None = None
        self._saving = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def save_now(self) -> None:
        """Save where the replay is."""
        await self._save_changed(self._run.passed)

    async def _keep(self) -> None:
        before = self._run.passed
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            await self._save_changed(before)
            before = self._run.passed

    async def _save_changed(self, progress: Progress) -> None:
        async with self._saving:
            if self._saved is not None and progress.position <= self._saved.position:
                return
            try:
                await self._save(progress)
            except EventException as error:
                self._failures.inc()
                _log.warning("the position of a replay was not saved", extra={"problem": str(error)})
            else:
                self._saved = progress
