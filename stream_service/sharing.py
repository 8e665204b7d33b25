"""Which consumer of a durable subscription has which events: what waits for each, and what each was sent. Pure.

Invariants: events of one slot are with one consumer at a time, in order: when a slot changes hands, its new owner gets
nothing of it until the old one is done with all it was sent, or has left. A consumer is sent no more than its credit.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream_service.parcel import Parcel
from stream_service.slots import SLOTS, Owners, owners_of

MESSAGE_BYTES_MAX = 1024 * 1024


@dataclass(eq=False, slots=True)
class Consumer:
    """One consumer: how many events it may hold, and which it holds."""

    credit: int
    waiting: deque[Parcel] = field(default_factory=deque)
    sent: list[Parcel] = field(default_factory=list)
    # Events that it was sent and is done with, since it came.
    done_count: int = 0

    @property
    def unacknowledged(self) -> int:
        """Events that it was sent and is not done with."""
        return sum(parcel.open_count for parcel in self.sent)

    @property
    def first_unacknowledged(self) -> int | None:
        """The lowest position that it was sent and is not done with."""
        opens = [parcel.first_open for parcel in self.sent]
        return min((position for position in opens if position is not None), default=None)

    def awaits(self, up_to: int) -> bool:
        """Whether something waits for it of positions up to there, but for what is tried again."""
        return any(parcel.positions[0] <= up_to for parcel in self.waiting if not parcel.retried)

    def close(self, wanted: npt.NDArray[np.uint64], *, up_to: int = 0) -> None:
        """Be done with these positions, which grow, and with what it was sent up to there.

        That holds for what waits for it, where it was sent to somebody before.
        """
        before = self.unacknowledged
        for parcel in self.sent:
            parcel.close(parcel.rows_at(wanted))
            parcel.close(np.arange(parcel.positions.searchsorted(up_to, side="right")))
        self.done_count += before - self.unacknowledged
        for parcel in self.waiting:
            if parcel.delivered:
                parcel.close(parcel.rows_at(wanted))


class Sharing:
    """Shares events among the consumers that are here."""

    def __init__(self) -> None:
        self.consumers: dict[str, Consumer] = {}
        self._names: list[str] = []
        self._owners: Owners = np.zeros(SLOTS, np.intp)
        self._changing_hands = False

    def join(self, name: str, *, credit: int) -> None:
        """Let a consumer have its share, of what waits too."""
        assert name not in self.consumers, name
        self.consumers[name] = Consumer(credit)
        self.share([])

    def share(self, returned: Sequence[Parcel]) -> None:
        """Give every slot its owner, and what waits, and what was returned, to the owner of its slot."""
        self._names = sorted(self.consumers)
        self._owners = owners_of(self._names)
        self._changing_hands = True
        waiting = [parcel for parcel in returned if parcel.open.any()]
        for consumer in self.consumers.values():
            waiting += consumer.waiting
            consumer.waiting.clear()
        self.hand_out(sorted(waiting, key=lambda parcel: int(parcel.positions[0])))

    def hand_out(self, parcels: Sequence[Parcel], *, first: bool = False) -> None:
        """Let events wait for the owners of their slots; first: before what waits already."""
        for parcel in reversed(parcels) if first else parcels:
            owners = self._owners[parcel.slots]
            for index in np.unique(owners[parcel.open]).tolist():
                part = parcel.pick(np.flatnonzero((owners == index) & parcel.open))
                waiting = self.consumers[self._names[index]].waiting
                (waiting.appendleft if first else waiting.append)(part)

    def take(self, name: str, *, up_to: int) -> list[Parcel]:
        """What a consumer is to be sent next of positions up to there, within its credit; it is sent from now on."""
        consumer = self.consumers[name]
        changing = self._slots_changing_hands()
        room, credit = MESSAGE_BYTES_MAX, consumer.credit - consumer.unacknowledged
        taken: list[Parcel] = []
        kept: list[Parcel] = []
        while consumer.waiting and credit > 0 and room > 0:
            parcel = consumer.waiting.popleft()
            ready = parcel.open & (parcel.positions <= up_to)
            if changing is not None:
                ready &= ~changing[parcel.slots]
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
            if len(rows) < np.count_nonzero(ready):
                break
        consumer.waiting.extendleft(reversed(kept))
        consumer.sent += taken
        return taken

    def take_back(self, wanted: npt.NDArray[np.uint64]) -> None:
        """Let events of these positions, which grow, that were sent wait again, before all else."""
        returned: list[Parcel] = []
        for consumer in self.consumers.values():
            for index, parcel in enumerate(consumer.sent):
                rows = parcel.rows_at(wanted)
                back = np.zeros(len(parcel.events), np.bool_)
                back[rows[parcel.open[rows]]] = True
                if back.any():
                    returned.append(parcel.pick(np.flatnonzero(back)))
                    consumer.sent[index] = parcel.pick(np.flatnonzero(~back))
        self.hand_out(returned, first=True)

    def let_go_of_done(self) -> list[Parcel]:
        """Keep nothing that is done with; returns the parcels in which something was."""
        done: list[Parcel] = []
        for consumer in self.consumers.values():
            done += [parcel for parcel in consumer.sent if not parcel.open.any()]
            done += [parcel for parcel in consumer.waiting if not parcel.open.all()]
            consumer.sent = [parcel for parcel in consumer.sent if parcel.open.any()]
            consumer.waiting = deque(parcel.open_part() for parcel in consumer.waiting if parcel.open.any())
        return done

    def parcels(self) -> Iterator[Parcel]:
        """Everything that is held."""
        for consumer in self.consumers.values():
            yield from consumer.sent
            yield from consumer.waiting

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


def _fitting(parcel: Parcel, rows: npt.NDArray[np.intp], bytes_max: int) -> npt.NDArray[np.intp]:
    """The first of these rows that together take no more than bytes_max; one at least, however large."""
    sizes = np.diff(parcel.events.ends, prepend=0)[rows]
    return rows[: max(int(np.cumsum(sizes).searchsorted(bytes_max, side="right")), 1)]
