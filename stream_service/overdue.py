"""Which consumers of a durable subscription leave what they have unacknowledged for too long. Pure.

An event's time runs while it is the first that its consumer has not acknowledged: what waits behind it at a consumer
that works on one after the other is not late. When the time is over, one of two things is the matter: the consumer
goes on with others, and that event's acknowledgement was lost or is not to come; or it does nothing at all any more.

Invariants: who acknowledges its first event in time is never overdue; who does not is told so at the first look after
timeout_s, and again only when another timeout_s is over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from stream_service.sharing import Consumer


class Overdue(Enum):
    """What is the matter."""

    # The consumer has acknowledged others meanwhile.
    EVENT = auto()
    # It has acknowledged nothing.
    CONSUMER = auto()


@dataclass(frozen=True, slots=True)
class _Wait:
    # Another one may come under its name.
    consumer: Consumer
    position: int
    done_count: int
    since_s: float


class Deadlines:
    """Watches the consumers of one subscription. Times are monotonic seconds."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._waits: dict[str, _Wait] = {}

    def look(self, consumers: Mapping[str, Consumer], now_s: float) -> dict[str, tuple[int, Overdue]]:
        """By the name of each consumer that is overdue, the position of the event and what is the matter."""
        overdue: dict[str, tuple[int, Overdue]] = {}
        waits: dict[str, _Wait] = {}
        for name, consumer in consumers.items():
            position = consumer.first_unacknowledged
            if position is None:
                continue
            wait = self._waits.get(name)
            if wait is None or wait.consumer is not consumer or wait.position != position:
                wait = _Wait(consumer, position, consumer.done_count, now_s)
            elif now_s - wait.since_s >= self._timeout_s:
                is_idle = consumer.done_count == wait.done_count
                overdue[name] = position, Overdue.CONSUMER if is_idle else Overdue.EVENT
                wait = _Wait(consumer, position, consumer.done_count, now_s)
            waits[name] = wait
        self._waits = waits
        return overdue
