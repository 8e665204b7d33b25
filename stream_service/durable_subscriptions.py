"""The durable subscriptions by name: opened, stored, moved, deleted.

Invariants: a subscription is stored before anyone is told of it; there are no more than subscriptions_max; what one
of them does on disk waits for no other but those before it. Checkpoints that move while nothing is acknowledged,
because nothing matches, are stored within SAVE_S.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from shared.clock import Clock
from shared.errors import EventException, EventStreamException
from stream_service.checkpoints import CheckpointStore, Record
from stream_service.group import Group, GroupLimits, Reading
from stream_service.group_consumer import GroupConsumer
from stream_service.hub import Hub
from stream_service.starts import Start, StartAsked, Starts
from stream_service.stream_metrics import StreamMetrics

SAVE_S = 1.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


class DurableSubscriptions:
    """Knows every durable subscription. Belongs to one event loop, in which `run` runs."""

    def __init__(
        self,
        store: CheckpointStore,
        hub: Hub,
        starts: Starts,
        clock: Clock,
        metrics: StreamMetrics,
        *,
        subscriptions_max: int,
        group_limits: GroupLimits,
    ) -> None:
        self._store = store
        self._hub = hub
        self._starts = starts
        self._clock = clock
        self._metrics = metrics
        self._subscriptions_max = subscriptions_max
        self._group_limits = group_limits
        self._groups: dict[str, Group] = {}
        self._saved: dict[str, Record] = {}
        self._saving: dict[str, asyncio.Lock] = {}
        self._opening = asyncio.Lock()
        self._running = False
        self._tasks = asyncio.TaskGroup()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")

    async def load(self) -> None:
        """Go on with what is stored. Raises StorageUnavailable."""
        for record in await self._on_disk(self._store.load):
            self._admit(record)

    async def run(self) -> None:
        """Read for those that have consumers, watch these, and store what moves, until cancelled."""
        async with self._tasks:
            self._running = True
            try:
                while True:
                    await asyncio.sleep(SAVE_S)
                    for group in list(self._groups.values()):
                        group.end_overdue()
                        await self._save_quietly(group)
            finally:
                self._running = False

    async def close(self) -> None:
        """Store everything a last time, when `run` has ended."""
        for group in list(self._groups.values()):
            await self._save_quietly(group)
        self._disk.shutdown(wait=True)

    def all(self) -> list[Group]:
        """Every subscription, by name."""
        return [self._groups[name] for name in sorted(self._groups)]

    def get(self, name: str) -> Group:
        """The subscription of a name. Raises EventStreamException (SUBSCRIPTION_NOT_FOUND)."""
        group = self._groups.get(name)
        if group is None:
            raise not_found(name)
        return group

    async def start(self, asked: StartAsked) -> Start:
        """Where a subscription begins that asks for this. Raises EventException."""
        if asked.checkpoint is not None:
            asked = StartAsked(position=self.get(asked.checkpoint).ledger.checkpoint + 1)
        return await self._starts.resolve(asked)

    async def open(self, name: str, asked: StartAsked) -> tuple[Group, Start]:
        """The subscription of a name, made where there is none, and where it goes on.

        Raises EventException (TOO_MANY_SUBSCRIPTIONS), and what finding the start and storing raise.
        """
        async with self._opening:
            group = self._groups.get(name)
            if group is not None:
                return group, await self._clamped(group)
            if len(self._groups) >= self._subscriptions_max:
                raise EventStreamException(
                    f"there are {len(self._groups)} durable subscriptions, as many as "
                    "streaming.max_durable_subscriptions allows: delete some",
                    reason="TOO_MANY_SUBSCRIPTIONS",
                )
            start = await self.start(asked)
            group = self._admit(Record(name, self._clock.now_ns(), start.position - 1))
            try:
                await self.save(group)
            except EventException:
                del self._groups[name]
                raise
            return group, start

    @contextmanager
    def joined(self, group: Group, consumer: GroupConsumer, reading: Reading, *, credit: int) -> Iterator[None]:
        """Let a consumer take part in a group."""
        if not group.reads:
            group.reads = True
            self._tasks.create_task(self._read(group))
        group.join(consumer, reading, credit=credit)
        try:
            yield
        finally:
            group.leave(consumer)
            if self._running:
                self._tasks.create_task(self._save_quietly(group))

    async def save(self, group: Group) -> None:
        """Return when what is known of a subscription now is stored. Raises StorageUnavailable."""
        wanted = group.record()
        async with self._saving[group.name]:
            # Who waited here stores what others want stored too.
            if self._saved.get(group.name) != wanted:
                wanted = group.record()
                await self._on_disk(lambda: self._store.save(wanted))
                self._saved[group.name] = wanted

    async def seek(self, name: str, asked: StartAsked) -> int:
        """Move a subscription; returns the next position. Raises EventException."""
        group = self.get(name)
        start = await self.start(asked)
        group.dismiss_all(lambda: _moved(name))
        group.ledger.reset(start.position - 1)
        await self.save(group)
        return start.position

    async def delete(self, name: str) -> None:
        """Delete a subscription. Raises EventException."""
        group = self.get(name)
        del self._groups[name]
        group.dismiss_all(lambda: not_found(name))
        async with self._saving[name]:
            if name not in self._groups:
                await self._on_disk(lambda: self._store.delete(name))
                self._saved.pop(name, None)

    def _admit(self, record: Record) -> Group:
        group = Group(record, self._hub.ring, self._clock, self._group_limits)
        label = self._metrics.label(record.name)
        group.on_parked = self._metrics.parked.labels(label).inc
        self._groups[record.name] = group
        self._saving.setdefault(record.name, asyncio.Lock())
        return group

    async def _clamped(self, group: Group) -> Start:
        """Where a subscription goes on: no further than the log goes, though it may have been there."""
        if group.consumers:
            return await self._starts.resolve(StartAsked(position=group.ledger.checkpoint + 1))
        start = await self._starts.resolve(StartAsked(position=group.ledger.checkpoint + 1))
        if start.clamped_position:
            _log.error(
                "a checkpoint lies beyond the end of the log; the subscription goes on at its end",
                extra={"subscription": group.name, "checkpoint": start.clamped_position - 1, "end": start.position},
            )
            group.ledger.reset(start.position - 1)
            await self.save(group)
        return start

    async def _read(self, group: Group) -> None:
        """Read for a group while it has consumers; what goes wrong ends those."""
        try:
            with self._hub.watching(group.changed):
                await group.read_on()
        except EventException as error:
            reason, text = error.reason, str(error)
            metadata: dict[str, Any] = dict(error.metadata)
            group.dismiss_all(lambda: EventStreamException(text, reason=reason, **metadata))
        finally:
            group.reads = False

    async def _save_quietly(self, group: Group) -> None:
        try:
            if self._groups.get(group.name) is group and self._saved.get(group.name) != group.record():
                await self.save(group)
        except EventException as error:
            _log.warning("cannot store a checkpoint; tried again", extra={"problem": str(error)})

    async def _on_disk(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)


def not_found(name: str) -> EventStreamException:
    """The error for a subscription that is not there."""
    return EventStreamException(
        f"there is no durable subscription {name!r}: subscribe with its name to make it",
        reason="SUBSCRIPTION_NOT_FOUND",
        subscription=name,
    )


def _moved(name: str) -> EventStreamException:
    return EventStreamException(
        f"the subscription {name!r} was moved to another start: subscribe again to go on there",
        reason="SUBSCRIPTION_MOVED",
    )
