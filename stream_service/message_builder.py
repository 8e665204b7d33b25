"""Messages of live events: bytes that all subscribers at the same place with the same filter share.

Invariants: a message holds matching events only, in order, each once; between its first event and its resume
position nothing that matches is left out; it is no larger than MESSAGE_BYTES_MAX, unless one event alone is. No more
than KEPT_MAX messages are kept, and none beyond the next block.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from shared.columns.encoded_events import EncodedEvents
from stream_service.matcher import Matcher
from stream_service.ring import Ring

MESSAGE_BYTES_MAX = 1024 * 1024
KEPT_MAX = 16
# Looked at for one message: others get their turn while a rare match is sought.
BLOCKS_MAX = 16

# Joins the bytes of events to a message with this resume position.
Join = Callable[[Sequence[bytes], int], bytes]


@dataclass(frozen=True, slots=True)
class Message:
    """Events on their way to a subscriber: `count` of them; it goes on at `until`. Empty where none match."""

    data: bytes
    count: int
    until: int
    # When the oldest of its blocks was received, in monotonic seconds; None where that is not known.
    received_s: float | None = None


class MessageBuilder:
    """Builds messages from the ring."""

    def __init__(self, ring: Ring, join: Join) -> None:
        self._ring = ring
        self._join = join
        self._kept: OrderedDict[tuple[bytes, bool, int, int], Message] = OrderedDict()

    def build(self, matcher: Matcher, cursor: int, *, payload_as_struct: bool = False) -> Message:
        """The next message of a subscriber at this cursor, which the ring must hold."""
        key = (matcher.key, payload_as_struct, cursor, self._ring.end)
        message = self._kept.get(key)
        if message is None:
            message = self._kept[key] = self._build(matcher, cursor, payload_as_struct=payload_as_struct)
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return message

    def forget(self) -> None:
        """Let go of all messages: the ring has changed, nobody will ask for them again."""
        self._kept.clear()

    def _build(self, matcher: Matcher, cursor: int, *, payload_as_struct: bool) -> Message:
        pieces: list[bytes] = []
        count, room, until = 0, MESSAGE_BYTES_MAX, cursor
        received_s = None
        for block in islice(self._ring.blocks_from(cursor), BLOCKS_MAX):
            events = matcher.events(block, cursor, payload_as_struct=payload_as_struct)
            taken = _fitting(events, room, at_least=0 if count else 1)
            if len(taken):
                pieces.append(taken.data)
                count, room = count + len(taken), room - len(taken.data)
                received_s = received_s or block.received_s
            if len(taken) < len(events):
                until = int(events.positions[len(taken)])
                break
            until = block.until
        return Message(self._join(pieces, until) if count else b"", count, until, received_s)


def _fitting(events: EncodedEvents, bytes_max: int, *, at_least: int) -> EncodedEvents:
    """The first events that together take no more than bytes_max, or the first at_least."""
    if len(events.data) <= bytes_max:
        return events
    return events.slice(0, max(int(events.ends.searchsorted(bytes_max, side="right")), at_least))
