"""What the consumers of a durable subscription have, have acknowledged, and have failed at. Pure.

    history and ring ──add──▶ waiting, by consumer ──take──▶ sent ──acknowledge──▶ done
                                     ▲                          │
                                     └────── failed, lost ──────┘──▶ parked, after too many failures

Invariants:
- The checkpoint is the last position up to which every event is done with: acknowledged, parked, or no match. It
  never passes an event that is waiting or sent, and never goes back but by `reset`.
- Events of one slot are with one consumer at a time, in order: when a slot changes hands, its new owner gets nothing of
  it until the old one is done with all it was sent, or has left.
- What is held is bounded by WINDOW_EVENTS and WINDOW_BYTES and one block; a consumer is sent no more than its credit.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from shared.columns.encoded_events import EncodedEvents
from shared.errors import EventStreamException
from stream_service.failures import Failure, Parked
from stream_service.parcel import Parcel
from stream_service.slots import SLOTS, Owners, Slots, owners_of

WINDOW_EVENTS = 20_000
WINDOW_BYTES = 16 * 1024 * 1024
MESSAGE_BYTES_MAX = 1024 * 1024

Positions = npt.NDArray[np.uint64]
_NONE: Positions = np.zeros(0, np.uint64)


@dataclass(eq=False, slots=True)
class Consumer:
    """One consumer: how many events it may hold, and which it holds."""

    credit: int
    waiting: deque[Parcel] = field(default_factory=deque)
    sent: list[Parcel] = field(default_factory=list)

    @property
    def unacknowledged(self) -> int:
        """Events that it was sent and is not done with."""
        return sum(parcel.open_count for parcel in self.sent)


class Ledger:
    """The state of one durable subscription."""

    def __init__(self, checkpoint: int, *, deliveries_max: int) -> None:
        self._deliveries_max = deliveries_max
        self._checkpoint = checkpoint
        # First position that is not read yet.
        self.cursor = checkpoint + 1
        self.consumers: dict[str, Consumer] = {}
        # How often events beyond the checkpoint have failed.
        self.failures: dict[int, int] = {}
        self.parked: dict[int, Parked] = {}
        # Positions beyond the checkpoint that are done with and not held any more.
        self.done: Positions = _NONE
        # Positions sent to consumers that have all left, not done with: they are read, and sent, anew.
        self._lost: Positions = _NONE
        # While no consumer is here, the first position that was not sent.
        self._unsent = self.cursor
        self._last_sent = checkpoint
        self._names: list[str] = []
        self._owners: Owners = np.zeros(SLOTS, np.intp)
        self._changing_hands = False

    @property
    def checkpoint(self) -> int:
        """The last position up to which every event is done with."""
        opens = [parcel.first_open for parcel in self._parcels() if not parcel.retried]
        first_open = min((position for position in opens if position is not None), default=self.cursor)
        self._checkpoint = max(self._checkpoint, min(first_open, self.cursor) - 1)
        return self._checkpoint

    def done_beyond(self) -> Positions:
        """The positions beyond the checkpoint that are done with."""
        closed = [parcel.positions[~parcel.open] for parcel in self._parcels() if not parcel.retried]
        done = np.unique(np.concatenate([self.done, *closed]))
        return done[done > self.checkpoint]

    @property
    def has_room(self) -> bool:
        """Whether more may be read."""
        parcels = list(self._parcels())
        events = len(self.done) + sum(len(parcel.events) for parcel in parcels)
        return events < WINDOW_EVENTS and sum(len(parcel.events.data) for parcel in parcels) < WINDOW_BYTES

    @property
    def unacknowledged(self) -> int:
        """Events sent and not done with."""
        return len(self._lost) + sum(consumer.unacknowledged for consumer in self.consumers.values())

    # Consumers.

    def join(self, name: str, *, credit: int) -> None:
        """Let a consumer have its share, of what waits too."""
        assert name not in self.consumers, name
        self.consumers[name] = Consumer(credit)
        self._share()

    def leave(self, name: str, *, blamed: bool, now_ns: int) -> list[int]:
        """Give what a consumer was not done with to the others; returns the positions that are parked by that.

        blamed: it was lost with the first event it was not done with, which counts as a failure of that.
        """
        consumer = self.consumers.pop(name)
        opens = [parcel.first_open for parcel in consumer.sent]
        first = min((position for position in opens if position is not None), default=None)
        parked = []
        if blamed and first is not None:
            parked = self._count_failures(consumer.sent, Failure([first], "", now_ns))
        self._remember_done(consumer.sent)
        left = [parcel.open_part() for parcel in (*consumer.sent, *consumer.waiting) if parcel.open.any()]
        if self.consumers:
            self._share(left)
        else:
            self._rest([parcel for parcel in left if not parcel.retried])
        self._forget_passed()
        return parked

    # Events.

    def add(self, events: EncodedEvents | None, slots: Slots, until: int) -> None:
        """Take the events up to `until` that match. Some consumer is here."""
        assert until >= self.cursor, (until, self.cursor)
        self.cursor = until
        if events is None or not len(events):
            return
        fresh, lost = ~np.isin(events.positions, self.done), np.isin(events.positions, self._lost)
        again = Parcel(events, slots, delivered=True).pick(np.flatnonzero(fresh & lost))
        new = Parcel(events, slots).pick(np.flatnonzero(fresh & ~lost))
        self._lost = self._lost[self._lost >= until]
        # In each slot, what was sent before comes before what was not.
        self._hand_out([again, new])

    def retry(self, events: EncodedEvents, slots: Slots) -> None:
        """Try parked events again, with those who are here. They stay parked until they are acknowledged."""
        if self.consumers:
            self._hand_out([Parcel(events, slots, delivered=True, retried=True)])

    def take(self, name: str) -> list[Parcel]:
        """What a consumer is to be sent next, within its credit; it is sent from now on."""
        consumer = self.consumers[name]
        changing = self._slots_changing_hands()
        room, credit = MESSAGE_BYTES_MAX, consumer.credit - consumer.unacknowledged
        taken: list[Parcel] = []
        kept: list[Parcel] = []
        while consumer.waiting and credit > 0 and room > 0:
            parcel = consumer.waiting.popleft()
            ready = parcel.open if changing is None else parcel.open & ~changing[parcel.slots]
            rows = _fitting(parcel, np.flatnonzero(ready)[:credit], room)
            left = parcel.open.copy()
            left[rows] = False
            if left.any():
                kept.append(parcel.pick(np.flatnonzero(left)))
            if len(rows):
                part = parcel.pick(rows)
                part.delivered, part.again = True, part.delivered
                taken.append(part)
                credit, room = credit - len(rows), room - len(part.events.data)
                self._last_sent = max(self._last_sent, int(part.positions[-1]))
            if len(rows) < np.count_nonzero(ready):
                break
        consumer.waiting.extendleft(reversed(kept))
        consumer.sent += taken
        return taken

    # Outcomes.

    def acknowledge(self, positions: Sequence[int], *, up_to: int = 0, consumer: str = "") -> None:
        """Be done with events; up_to: with those sent up to there, to one consumer or, where it is "", to any.

        Raises EventStreamException (POSITION_NOT_DELIVERED), and then changes nothing.
        """
        wanted = np.unique(np.array(positions, np.uint64))
        self.check_delivered(positions, up_to=up_to)
        for parcel in self._delivered():
            parcel.close(parcel.rows_at(wanted))
        for name in self.consumers if not consumer else [consumer] if consumer in self.consumers else []:
            for parcel in self.consumers[name].sent:
                parcel.close(np.arange(parcel.positions.searchsorted(up_to, side="right")))
        for position in positions:
            self.parked.pop(position, None)
        self._acknowledge_lost(wanted, up_to)
        self._forget_passed()

    def fail(self, failure: Failure) -> list[int]:
        """Count failures; events go back to wait, or are parked: the positions of those.

        Raises EventStreamException (POSITION_NOT_DELIVERED), and then changes nothing.
        """
        wanted = np.unique(np.array(failure.positions, np.uint64))
        self.check_delivered(failure.positions)
        returned: list[Parcel] = []
        parked: list[int] = []
        for consumer in self.consumers.values():
            parked += self._count_failures(consumer.sent, failure)
            for index, parcel in enumerate(consumer.sent):
                rows = parcel.rows_at(wanted)
                failed = np.zeros(len(parcel.events), np.bool_)
                failed[rows[parcel.open[rows]]] = True
                if failed.any():
                    returned.append(parcel.pick(np.flatnonzero(failed)))
                    consumer.sent[index] = parcel.pick(np.flatnonzero(~failed))
        self._hand_out(returned, first=True)
        self._forget_passed()
        return parked

    def reset(self, checkpoint: int) -> None:
        """Go on behind another position, without consumers. What is parked stays so."""
        assert not self.consumers
        self._checkpoint = self._last_sent = checkpoint
        self.cursor = self._unsent = checkpoint + 1
        self.failures.clear()
        self.done = self._lost = _NONE

    def check_delivered(self, positions: Sequence[int], *, up_to: int = 0) -> None:
        """Raise EventStreamException (POSITION_NOT_DELIVERED) where a position was not sent since the start."""
        wanted = np.unique(np.array(positions, np.uint64))
        known = [self._lost, self.done, np.array(sorted(self.parked), np.uint64)]
        known += [parcel.positions for parcel in self._delivered()]
        unknown = wanted[(wanted > self.checkpoint) & ~np.isin(wanted, np.concatenate(known))]
        if len(unknown) or up_to > self._last_sent:
            position = int(unknown[0]) if len(unknown) else up_to
            raise EventStreamException(
                f"position {position} was not delivered: acknowledge positions of events received on a stream that "
                f"is open; the last of them is {self._last_sent}",
                reason="POSITION_NOT_DELIVERED",
                position=position,
                last_position=self._last_sent,
            )

    def _count_failures(self, parcels: Sequence[Parcel], failure: Failure) -> list[int]:
        """Count failures of events that are sent; closes those that are parked by that, and returns their positions."""
        wanted = np.unique(np.array(failure.positions, np.uint64))
        parked = []
        for parcel in parcels:
            rows = parcel.rows_at(wanted)
            for row in rows[parcel.open[rows]].tolist():
                position = int(parcel.positions[row])
                if self._count_failure(position, failure):
                    parcel.close(np.array([row]))
                    parked.append(position)
        return parked

    def _count_failure(self, position: int, failure: Failure) -> bool:
        if (before := self.parked.get(position)) is not None:
            self.parked[position] = replace(before, failures=before.failures + 1, failure=failure.text)
            return True
        failures = self.failures.pop(position, 0) + 1
        if failures >= self._deliveries_max:
            self.parked[position] = Parked(failures, failure.text, failure.now_ns)
            return True
        self.failures[position] = failures
        return False

    # Sharing.

    def _share(self, returned: Sequence[Parcel] = ()) -> None:
        """Give every slot its owner, and what waits to the owner of its slot."""
        self._names = sorted(self.consumers)
        self._owners = owners_of(self._names)
        self._changing_hands = True
        waiting = [parcel for parcel in returned if parcel.open.any()]
        for consumer in self.consumers.values():
            waiting += consumer.waiting
            consumer.waiting.clear()
        self._hand_out(sorted(waiting, key=lambda parcel: int(parcel.positions[0])))

    def _hand_out(self, parcels: Sequence[Parcel], *, first: bool = False) -> None:
        for parcel in reversed(parcels) if first else parcels:
            owners = self._owners[parcel.slots]
            for index in np.unique(owners[parcel.open]).tolist():
                part = parcel.pick(np.flatnonzero((owners == index) & parcel.open))
                waiting = self.consumers[self._names[index]].waiting
                (waiting.appendleft if first else waiting.append)(part)

    def _slots_changing_hands(self) -> npt.NDArray[np.bool_] | None:
        """The slots of which another than their owner holds events; None where there are none."""
        if not self._changing_hands:
            return None
        changing = np.zeros(SLOTS, np.bool_)
        for index, name in enumerate(self._names):
            for parcel in self.consumers[name].sent:
                slots = parcel.slots[parcel.open]
                changing[slots[self._owners[slots] != index]] = True
        self._changing_hands = bool(changing.any())
        return changing if self._changing_hands else None

    def _rest(self, left: Sequence[Parcel]) -> None:
        """Nobody is here any more: keep positions only, and read the events anew for whoever comes."""
        sent = [parcel.positions for parcel in left if parcel.delivered]
        self._lost = np.unique(np.concatenate([self._lost, *sent]))
        firsts = [int(parcel.positions[0]) for parcel in left if not parcel.delivered]
        self._unsent = min([self.cursor, *firsts])
        self._rest_cursor()

    def _rest_cursor(self) -> None:
        self.cursor = min([self._unsent, *self._lost[:1].tolist()])

    # Bookkeeping.

    def _acknowledge_lost(self, wanted: Positions, up_to: int) -> None:
        done = np.isin(self._lost, wanted)
        if not self.consumers:
            done |= self._lost <= up_to
        self.done = np.union1d(self.done, self._lost[done])
        self._lost = self._lost[~done]
        if not self.consumers:
            self._rest_cursor()

    def _remember_done(self, parcels: Sequence[Parcel]) -> None:
        closed = [parcel.positions[~parcel.open] for parcel in parcels if not parcel.retried]
        self.done = np.unique(np.concatenate([self.done, *closed]))

    def _forget_passed(self) -> None:
        """Let go of what is done with, and of everything that the checkpoint has passed."""
        for consumer in self.consumers.values():
            self._remember_done([parcel for parcel in consumer.sent if not parcel.open.any()])
            self._remember_done([parcel for parcel in consumer.waiting if not parcel.open.all()])
            consumer.sent = [parcel for parcel in consumer.sent if parcel.open.any()]
            consumer.waiting = deque(parcel.open_part() for parcel in consumer.waiting if parcel.open.any())
        checkpoint = self.checkpoint
        self.done = self.done[self.done > checkpoint]
        self.failures = {at: count for at, count in self.failures.items() if at > checkpoint}

    def _parcels(self) -> Iterator[Parcel]:
        for consumer in self.consumers.values():
            yield from consumer.sent
            yield from consumer.waiting

    def _delivered(self) -> Iterator[Parcel]:
        """What was sent at some time."""
        return (parcel for parcel in self._parcels() if parcel.delivered)


def _fitting(parcel: Parcel, rows: npt.NDArray[np.intp], bytes_max: int) -> npt.NDArray[np.intp]:
    """The first of these rows that together take no more than bytes_max; one at least, however large."""
    sizes = np.diff(parcel.events.ends, prepend=0)[rows]
    return rows[: max(int(np.cumsum(sizes).searchsorted(bytes_max, side="right")), 1)]
