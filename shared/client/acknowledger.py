"""Acknowledgements of a durable subscription: gathered, sent together, tried until they are confirmed.

Invariants: what `done` was told of is sent within acknowledge_after_s, or at the end; what is not confirmed yet is
known by `is_done`, so that the program is not given it again; an acknowledgement that the service does not know,
because it has started anew, is dropped: the event comes again, and is acknowledged then.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from shared.client.stream_options import StreamOptions
from shared.rpc.remote_error import RemoteError

# Sends one request. Raises RemoteError.
Send = Callable[[list[int]], Awaitable[None]]


class Acknowledger:
    """Sends the acknowledgements of one consumer, by a task of its own while its context is entered."""

    def __init__(self, send: Send, options: StreamOptions) -> None:
        self._send = send
        self._options = options
        self._waiting: dict[int, None] = {}
        self._sending: list[int] = []
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def done(self, position: int) -> None:
        """The program is done with an event."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        self._waiting[position] = None
        self._some.set()
        if len(self._waiting) >= self._options.acknowledge_at_count:
            self._enough.set()

    def is_done(self, position: int) -> bool:
        """Whether the program is done with an event that the service does not know of yet."""
        return position in self._waiting or position in self._sending

    async def close(self) -> None:
        """Send what waits, and end. Raises RemoteError where it cannot be sent."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._waiting = dict.fromkeys([*self._sending, *self._waiting])
        while self._waiting:
            await self._send_some()

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._options.acknowledge_after_s):
                    await self._enough.wait()
            try:
                while self._waiting:
                    await self._send_some()
                failures = 0
            except RemoteError as error:
                failures += 1
                await asyncio.sleep(self._options.back_off.delay_s(failures, at_least_s=error.retry_delay_s or 0.0))
                continue
            self._some.clear()
            self._enough.clear()

    async def _send_some(self) -> None:
        self._sending = list(self._waiting)[: self._options.acknowledge_at_count]
        try:
            await self._send_known(self._sending)
        except RemoteError:
            self._sending = []
            raise
        for position in self._sending:
            del self._waiting[position]
        self._sending = []

    async def _send_known(self, positions: list[int]) -> None:
        """Send, without those that the service says it does not know."""
        while positions:
            try:
                await self._send(positions)
            except RemoteError as error:
                if error.reason != "POSITION_NOT_DELIVERED":
                    raise
                unknown = int(error.metadata["position"])
                positions = [position for position in positions if position != unknown]
            else:
                return
