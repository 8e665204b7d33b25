"""Many subscribers in one thread: what each has received, when, and whether all of it.

Each reads its call as `stream_wire` does. How far a message goes is read from its last bytes, the resume position:
an unfiltered subscription gets every position, so the distance between two is the number of events. That this is
so is checked: the first subscriber's messages are parsed whole, and every `_CHECK_EVERY`th of the others. Of a
filtered one those events are counted that are in the parsed messages.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
from eventlog.v1 import stream_service_pb2 as pb

from tests.benchmarks.stream_wire import StreamingCall, selector_of

METHOD = "/eventlog.v1.StreamService/Subscribe"
_CHECK_EVERY = 50
# The first byte of a SubscribeResponse that holds events, and of the resume position in an EventBatch.
_EVENTS_TAG = 0x12
_RESUME_TAG = 0x10


@dataclass(slots=True)
class Subscriber:
    """One subscription: events received, those that were not, and when it was where."""

    call: StreamingCall
    # Whether every message is parsed.
    parses: bool
    # Whether it gets every event: then the position tells how many.
    everything: bool
    # -1 until the subscription is confirmed.
    position: int = -1
    events: int = 0
    lost: int = 0
    times_s: list[float] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    _messages: int = 0

    def receive(self) -> None:
        """Take what has come."""
        for message in self.call.read():
            if message[0] == _EVENTS_TAG:
                self._take_events(message)
            else:
                self._take_control(pb.SubscribeResponse.FromString(message))

    def _take_events(self, message: bytes) -> None:
        self._messages += 1
        if self.parses or self._messages % _CHECK_EVERY == 1:
            batch = pb.SubscribeResponse.FromString(message).events
            positions = [event.position for event in batch.events]
            assert positions == sorted(set(positions)), "positions ascend"
            assert positions[-1] < batch.resume_position
            if self.everything:
                self.lost += positions[-1] - positions[0] + 1 - len(positions)
                self.lost += positions[0] - self.position - 1
            self.events += 0 if self.everything else len(positions)
            position = batch.resume_position - 1
        else:
            position = _resume_position(message) - 1
        if self.everything:
            self.events += position - self.position
        self.position = position
        self.times_s.append(time.monotonic())
        self.positions.append(position)

    def _take_control(self, message: pb.SubscribeResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "dropped":
            self.lost += message.dropped.count
        elif kind == "confirmed":
            self.position = message.confirmed.start_position - 1
        elif kind == "closing":
            raise RuntimeError(f"a subscription ended: {message.closing.reason}")


def _resume_position(message: bytes) -> int:
    """The varint at the end of a message of events: its bytes but the last have their highest bit set."""
    start = len(message) - 1
    while message[start - 1] & 0x80:
        start -= 1
    assert message[start - 1] == _RESUME_TAG, "the resume position comes last"
    position = 0
    for byte in reversed(message[start:]):
        position = position << 7 | byte & 0x7F
    return position


class SubscriberPool:
    """Subscribers read by one thread of their own, between `with`."""

    def __init__(self, address: str, requests: Sequence[pb.SubscribeRequest]) -> None:
        """Connect and subscribe; requests without filters get everything."""
        self.subscribers = [
            Subscriber(
                StreamingCall(address, METHOD, request.SerializeToString()),
                parses=index == 0,
                everything=not request.HasField("filters"),
            )
            for index, request in enumerate(requests)
        ]
        self._stop = False
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="subscribers")

    def __enter__(self) -> Self:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reading and hang up."""
        self._stop = True
        self._thread.join()
        for subscriber in self.subscribers:
            subscriber.call.close()

    def slowest(self) -> int:
        """The lowest position that any subscriber has got to. Raises what went wrong while reading."""
        if self._problem is not None:
            raise RuntimeError("a subscriber failed") from self._problem
        return min(subscriber.position for subscriber in self.subscribers)

    def wait_for(self, position: int, *, timeout_s: float) -> bool:
        """Wait until all have got to a position; False where they did not in time."""
        deadline_s = time.monotonic() + timeout_s
        while self.slowest() < position:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.002)
        return True

    def latencies_ms(
        self, ends: npt.NDArray[np.int64], acknowledged_s: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Milliseconds from the acknowledgement of each batch, which ends at a position, to each subscriber's receipt.

        ends ascend. A receipt before the acknowledgement was read counts as 0.
        """
        found = []
        for subscriber in self.subscribers:
            at = np.searchsorted(np.array(subscriber.positions), ends)
            received = at < len(subscriber.positions)
            times = np.array(subscriber.times_s)[at[received]]
            found.append(np.maximum(times - acknowledged_s[received], 0.0) * 1e3)
        return np.concatenate(found)

    def _run(self) -> None:
        by_call = {id(subscriber.call): subscriber for subscriber in self.subscribers}
        try:
            with selector_of([subscriber.call for subscriber in self.subscribers]) as selector:
                while not self._stop:
                    for key, _ in selector.select(0.1):
                        by_call[id(key.data)].receive()
        except BaseException as error:  # noqa: BLE001 — told where somebody asks
            self._problem = error
