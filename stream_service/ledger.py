"""What the consumers of a durable subscription have, have acknowledged, and have failed at. Pure.

    history and ring ──add──▶ waiting, by consumer ──take──▶ sent ──acknowledge──▶ done
                                     ▲                          │
                                     └────── failed, lost ──────┘──▶ parked, after too many failures

Invariants:
- The checkpoint is the last position up to which every event is done with: acknowledged, parked, or no match. It
  never passes an event that is waiting or sent, and never goes back but by `reset`.
- What is held is bounded by WINDOW_EVENTS and WINDOW_BYTES and one block.
Who is given what is the business of `sharing`; what becomes of failures that of `failures`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from shared.columns.encoded_events import EncodedEvents
from shared.errors import EventStreamException
from stream_service.failures import Failure, Failures
from stream_service.parcel import Parcel
from stream_service.sharing import Consumer, Sharing
from stream_service.slots import Slots

WINDOW_EVENTS = 20_000
WINDOW_BYTES = 16 * 1024 * 1024

Positions = npt.NDArray[np.uint64]
_NONE: Positions = np.zeros(0, np.uint64)


class Ledger:
    """The state of one durable subscription."""

    def __init__(self, checkpoint: int, *, deliveries_max: int) -> None:
        self._checkpoint = checkpoint
        # First position that is not read yet.
        self.cursor = checkpoint + 1
        self.failures = Failures(deliveries_max=deliveries_max)
        # Positions beyond the checkpoint that are done with and not held any more.
        self.done: Positions = _NONE
        self._sharing = Sharing()
        # Positions sent to consumers that have all left, not done with: they are read, and sent, anew.
        self._lost: Positions = _NONE
        # While no consumer is here, the first position that was not sent.
        self._unsent = self.cursor
        self._last_sent = checkpoint

    @property
    def consumers(self) -> Mapping[str, Consumer]:
        """Those who are here, by name."""
        return self._sharing.consumers

    @property
    def checkpoint(self) -> int:
        """The last position up to which every event is done with."""
        opens = [parcel.first_open for parcel in self._sharing.parcels() if not parcel.retried]
        first_open = min((position for position in opens if position is not None), default=self.cursor)
        self._checkpoint = max(self._checkpoint, min(first_open, self.cursor) - 1)
        return self._checkpoint

    def done_beyond(self) -> Positions:
        """The positions beyond the checkpoint that are done with."""
        closed = [parcel.positions[~parcel.open] for parcel in self._sharing.parcels() if not parcel.retried]
        done = np.unique(np.concatenate([self.done, *closed]))
        return done[done > self.checkpoint]

    @property
    def has_room(self) -> bool:
        """Whether more may be read."""
        parcels = list(self._sharing.parcels())
        events = len(self.done) + sum(len(parcel.events) for parcel in parcels)
        return events < WINDOW_EVENTS and sum(len(parcel.events.data) for parcel in parcels) < WINDOW_BYTES

    @property
    def unacknowledged(self) -> int:
        """Events sent and not done with."""
        return len(self._lost) + sum(consumer.unacknowledged for consumer in self.consumers.values())

    # Consumers.

    def join(self, name: str, *, credit: int) -> None:
        """Let a consumer have its share, of what waits too."""
        self._sharing.join(name, credit=credit)

    def leave(self, name: str, *, failure: str | None, now_ns: int) -> list[int]:
        """Give what a consumer was not done with to the others; returns the positions that are parked by that.

        failure: the text of a failure that counts against the first event that it was not done with; None for none.
        """
        consumer = self._sharing.consumers.pop(name)
        parked = []
        if failure is not None and (first := consumer.first_unacknowledged) is not None:
            parked = self.failures.count(consumer.sent, Failure([first], failure, now_ns))
        self._remember_done(consumer.sent)
        left = [parcel.open_part() for parcel in (*consumer.sent, *consumer.waiting) if parcel.open.any()]
        if self.consumers:
            self._sharing.share(left)
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
        self._sharing.hand_out([again, new])

    def retry(self, events: EncodedEvents, slots: Slots) -> None:
        """Try parked events again, with those who are here. They stay parked until they are acknowledged."""
        if self.consumers:
            self._sharing.hand_out([Parcel(events, slots, delivered=True, retried=True)])

    def take(self, name: str, *, up_to: int) -> list[Parcel]:
        """What a consumer is to be sent next of positions up to there, within its credit; it is sent from now on."""
        taken = self._sharing.take(name, up_to=up_to)
        self._last_sent = max([self._last_sent, *(int(parcel.positions[-1]) for parcel in taken)])
        return taken

    # Outcomes.

    def acknowledge(self, positions: Sequence[int], *, up_to: int = 0, consumer: str = "") -> None:
        """Be done with events; up_to: with those sent up to there, to one consumer or, where it is "", to any.

        Raises EventStreamException (POSITION_NOT_DELIVERED), and then changes nothing.
        """
        wanted = np.unique(np.array(positions, np.uint64))
        self.check_delivered(positions, up_to=up_to)
        for name, held in self.consumers.items():
            held.close(wanted, up_to=up_to if consumer in {"", name} else 0)
        self.failures.succeeded(positions)
        self._acknowledge_lost(wanted, up_to)
        self._forget_passed()

    def fail(self, failure: Failure) -> list[int]:
        """Count failures; events go back to wait, or are parked: the positions of those.

        Raises EventStreamException (POSITION_NOT_DELIVERED), and then changes nothing.
        """
        self.check_delivered(failure.positions)
        parked: list[int] = []
        for consumer in self.consumers.values():
            parked += self.failures.count(consumer.sent, failure)
        self._sharing.take_back(np.unique(np.array(failure.positions, np.uint64)))
        self._forget_passed()
        return parked

    def reset(self, checkpoint: int) -> None:
        """Go on behind another position, without consumers. What is parked stays so."""
        assert not self.consumers
        self._checkpoint = self._last_sent = checkpoint
        self.cursor = self._unsent = checkpoint + 1
        self.failures.counts.clear()
        self.done = self._lost = _NONE

    def check_delivered(self, positions: Sequence[int], *, up_to: int = 0) -> None:
        """Raise EventStreamException (POSITION_NOT_DELIVERED) where a position was not sent since the start."""
        wanted = np.unique(np.array(positions, np.uint64))
        known = [self._lost, self.done, np.array(sorted(self.failures.parked), np.uint64)]
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

    # Bookkeeping.

    def _rest(self, left: Sequence[Parcel]) -> None:
        """Nobody is here any more: keep positions only, and read the events anew for whoever comes."""
        sent = [parcel.positions for parcel in left if parcel.delivered]
        self._lost = np.unique(np.concatenate([self._lost, *sent]))
        firsts = [int(parcel.positions[0]) for parcel in left if not parcel.delivered]
        self._unsent = min([self.cursor, *firsts])
        self._rest_cursor()

    def _rest_cursor(self) -> None:
        self.cursor = min([self._unsent, *self._lost[:1].tolist()])

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
        self._remember_done(self._sharing.let_go_of_done())
        checkpoint = self.checkpoint
        self.done = self.done[self.done > checkpoint]
        self.failures.forget_passed(checkpoint)

    def _delivered(self) -> Iterator[Parcel]:
        """What was sent at some time."""
        return (parcel for parcel in self._sharing.parcels() if parcel.delivered)
