"""A durable subscription at work: reads for all its consumers, and hands each its share.

Invariants: what is acknowledged is stored before that is confirmed; while nobody is connected nothing is read and only
positions are kept; a consumer that is blocked holds up others no earlier than when the ledger's window is full, and no
longer than until its acknowledgements are overdue.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.clock import Clock
from shared.columns.encoded_events import EncodedEvents
from shared.errors import EventException, EventStreamException, EventValidationException, FieldViolation
from stream_service.catch_up import CatchUp, Missing, ReadRange, Taken
from stream_service.checkpoints import Record
from stream_service.failures import Failure
from stream_service.group_consumer import GroupConsumer, Redelivered, Share
from stream_service.matcher import Matcher
from stream_service.overdue import Deadlines, Overdue
from stream_service.ring import Ring
from stream_service.slots import CONSUMERS_MAX, slots_of
from stream_service.stored_ledger import ledger_of, record_of
from stream_service.subscriber import Beat
from stream_service.subscription import CaughtUp, Dropped

# Notices that wait for a consumer that does not take them.
NOTICES_MAX = 100
# What is said of an event whose acknowledgement has not come.
_NOT_IN_TIME = "not acknowledged in time"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a group reads: the consumers of one group all ask for the same."""

    matcher: Matcher
    read: ReadRange
    # A number of the protos' PayloadForm, and whether it is that of structures.
    payload_form: int
    payload_as_struct: bool

    @property
    def key(self) -> tuple[bytes, int]:
        """Equal where the same is read."""
        return self.matcher.key, self.payload_form


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """What the configuration allows; see the section `streaming`."""

    deliveries_max: int
    acknowledge_timeout_s: float


class Group:
    """One durable subscription, by name. Belongs to one event loop."""

    def __init__(self, record: Record, ring: Ring, clock: Clock, limits: GroupLimits) -> None:
        self.name = record.name
        self.created_ns = record.created_ns
        self.ledger = ledger_of(record, deliveries_max=limits.deliveries_max)
        self._deadlines = Deadlines(limits.acknowledge_timeout_s)
        self.consumers: dict[str, GroupConsumer] = {}
        # Called with the number of events parked.
        self.on_parked: Callable[[int], None] = lambda _count: None
        self._ring = ring
        self._clock = clock
        # Whether somebody reads for it: see read_on.
        self.reads = False
        # Set when there may be something to read, or room for it.
        self.changed = asyncio.Event()
        self._reading: Reading | None = None
        self._caught_up = False
        # When the last event that was read was recorded.
        self._read_ns = 0

    @property
    def state(self) -> str:
        """How it is, in a word."""
        if not self.consumers:
            return "disconnected"
        return "live" if self._caught_up else "catching_up"

    @property
    def payload_form(self) -> int:
        """The form of payloads that its consumers have asked for."""
        return self._reading.payload_form if self._reading is not None else 0

    def record(self) -> Record:
        """What is to be stored of it now."""
        return record_of(self.name, self.created_ns, self.ledger)

    def check_joinable(self, reading: Reading) -> None:
        """Raise EventValidationException where a consumer cannot join those who are here."""
        if len(self.consumers) >= CONSUMERS_MAX:
            raise _invalid("subscription", f"has {CONSUMERS_MAX} consumers, as many as can share it")
        if self._reading is not None and self.consumers and reading.key != self._reading.key:
            raise _invalid("filters", "and payload_form must be those of the consumers that are connected already")

    def join(self, consumer: GroupConsumer, reading: Reading, *, credit: int) -> None:
        """Let a consumer take its share."""
        if self._reading is None or self._reading.key != reading.key:
            self._reading = reading
        self.ledger.join(consumer.name, credit=credit)
        if self._caught_up and self.consumers:
            consumer.notices.append(CaughtUp(self.ledger.cursor - 1))
        self.consumers[consumer.name] = consumer
        self._wake()

    def dismiss(self, consumer: GroupConsumer, error: EventException, *, failure: str | None = None) -> None:
        """End a consumer's stream with this error, and give what it has to the others now.

        failure: what it has failed with at the first event that it had not acknowledged.
        """
        consumer.end(error, failure=failure)
        self.leave(consumer)

    def make_way_for(self, name: str) -> None:
        """Dismiss the consumer of this name, if there is one: it has connected anew."""
        if (consumer := self.consumers.get(name)) is not None:
            self.dismiss(consumer, _replaced(name))

    def leave(self, consumer: GroupConsumer) -> None:
        """Give what a consumer has to the others. Once it was dismissed, this does nothing."""
        if self.consumers.get(consumer.name) is not consumer:
            return
        del self.consumers[consumer.name]
        parked = self.ledger.leave(consumer.name, failure=consumer.failure, now_ns=self._clock.now_ns())
        self.on_parked(len(parked))
        if not self.consumers:
            self._caught_up = False
        self._wake()

    def acknowledge(
        self, positions: list[int], *, up_to: int, consumer: str, failed: list[int], text: str
    ) -> list[int]:
        """Be done with events, and count failures; returns the positions that are parked by that.

        Raises EventStreamException (POSITION_NOT_DELIVERED), and then changes nothing.
        """
        self.ledger.check_delivered([*positions, *failed], up_to=up_to)
        parked = self.ledger.fail(Failure(failed, text, self._clock.now_ns())) if failed else []
        self.ledger.acknowledge(positions, up_to=up_to, consumer=consumer)
        self.on_parked(len(parked))
        self._wake()
        return parked

    def end_overdue(self) -> None:
        """Take from consumers what they have left unacknowledged for too long."""
        for name, (position, what) in self._deadlines.look(self.ledger.consumers, self._clock.monotonic_s()).items():
            if what is Overdue.EVENT:
                self.acknowledge([], up_to=0, consumer="", failed=[position], text=_NOT_IN_TIME)
            else:
                self.dismiss(self.consumers[name], _overdue(position), failure=_NOT_IN_TIME)

    def retry(self, events: EncodedEvents) -> int:
        """Try parked events again, with the consumers that are connected; returns how many."""
        if not self.consumers:
            return 0
        self.ledger.retry(events, slots_of(events.positions, events.correlation_column()))
        self._wake()
        return len(events)

    def dismiss_all(self, error: Callable[[], EventException]) -> None:
        """Dismiss all consumers, each with an error of its own."""
        for consumer in list(self.consumers.values()):
            self.dismiss(consumer, error())

    def share_of(self, consumer: GroupConsumer, *, up_to: int) -> Share | None:
        """What a consumer is to be sent next of positions up to there; None where there is nothing for now."""
        parcels = self.ledger.take(consumer.name, up_to=up_to)
        if not parcels:
            return None
        redelivered = [
            Redelivered(position, self.ledger.failures.of(position))
            for parcel in parcels
            if parcel.again
            for position in parcel.positions.tolist()
        ]
        return Share(parcels, redelivered)

    def awaits(self, consumer: GroupConsumer, *, up_to: int) -> bool:
        """Whether a consumer has still to be sent something of positions up to there."""
        return self.ledger.consumers[consumer.name].awaits(up_to)

    def resume_position(self) -> int:
        """The first position that is not done with."""
        return self.ledger.checkpoint + 1

    def lag_ns(self) -> int:
        """Age of the oldest event behind the checkpoint; 0 where there is none, or it is not known."""
        checkpoint = self.ledger.checkpoint
        if checkpoint + 1 >= self._ring.end:
            return 0
        block = next(self._ring.blocks_from(checkpoint + 1), None) if self._ring.holds(checkpoint + 1) else None
        recorded_ns = block.recorded_ns if block is not None else self._read_ns
        return max(self._clock.now_ns() - recorded_ns, 0) if recorded_ns else 0

    def beat(self, consumer: GroupConsumer) -> Beat:
        """Where the subscription is now."""
        checkpoint, head = self.ledger.checkpoint, self._ring.end - 1
        held = self.ledger.consumers.get(consumer.name)
        pressed = held is not None and held.unacknowledged >= held.credit
        return Beat(head, checkpoint + 1, max(head - checkpoint, 0), self.lag_ns(), pressed)

    async def read_on(self) -> None:
        """Read for the consumers until all have left. Raises EventException where what they ask for cannot be read."""
        while self.consumers:
            reading = self._reading
            assert reading is not None
            async with CatchUp(reading.read, self.changed) as catch_up:
                while self.consumers and self._reading is reading:
                    self.changed.clear()
                    if self.ledger.has_room and await self._read(reading, catch_up):
                        await asyncio.sleep(0)
                    else:
                        await self.changed.wait()

    async def _read(self, reading: Reading, catch_up: CatchUp) -> bool:
        """Read on; False where there is nothing to read for now."""
        cursor = self.ledger.cursor
        found: Taken | Missing | None
        if self._ring.holds(cursor):
            await catch_up.stop()
            found = self._from_ring(reading, cursor)
        elif cursor < self._ring.end:
            found = await catch_up.take(cursor, self._ring.end)
        else:
            found = None
        if not self.consumers or self.ledger.cursor != cursor:
            # Everyone has left meanwhile, or it was moved.
            await catch_up.stop()
            return True
        if isinstance(found, Missing):
            self._tell(Dropped(cursor, found.until - 1, 0, found.reason))
            found = Taken(None, found.until)
        if found is not None:
            self._add(found)
        if self.ledger.cursor == self._ring.end and not self._caught_up:
            self._caught_up = True
            self._tell(CaughtUp(self.ledger.cursor - 1))
        return found is not None

    def _from_ring(self, reading: Reading, cursor: int) -> Taken | None:
        block = next(self._ring.blocks_from(cursor), None)
        if block is None:
            return None
        return Taken(reading.matcher.events(block, cursor, payload_as_struct=reading.payload_as_struct), block.until)

    def _add(self, taken: Taken) -> None:
        events = taken.events
        if events is None or not len(events):
            self.ledger.add(None, np.zeros(0, np.uint16), taken.until)
            return
        self._read_ns = int(events.recorded_ns[-1])
        self.ledger.add(events, slots_of(events.positions, events.correlation_column()), taken.until)
        for consumer in self.consumers.values():
            consumer.changed.set()

    def _tell(self, notice: CaughtUp | Dropped) -> None:
        for consumer in self.consumers.values():
            consumer.notices = [*consumer.notices, notice][-NOTICES_MAX:]
            consumer.changed.set()

    def _wake(self) -> None:
        self.changed.set()
        for consumer in self.consumers.values():
            consumer.changed.set()


def _replaced(consumer: str) -> EventStreamException:
    return EventStreamException(
        f"another consumer named {consumer!r} has connected and taken this one's place: give each its own name",
        reason="CONSUMER_REPLACED",
    )


def _overdue(position: int) -> EventStreamException:
    return EventStreamException(
        f"position {position} was not acknowledged within streaming.acknowledge_timeout, nor anything else: subscribe "
        "again, acknowledge events one by one as they are done with, or let the service wait longer",
        reason="ACKNOWLEDGEMENT_OVERDUE",
        position=position,
    )


def _invalid(field_name: str, problem: str) -> EventValidationException:
    return EventValidationException(
        f"{field_name} {problem}", violations=[FieldViolation(field_name, problem)], reason="INVALID_FIELD"
    )
