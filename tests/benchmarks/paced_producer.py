"""Logs prepared batches at a steady rate, or as fast as those who receive them allow."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from eventlog.v1 import ingest_service_pb2 as pb

from tests.benchmarks.grpc_wire import UnaryConnection

_METHOD = "/eventlog.v1.IngestService/LogBatch"
_IN_FLIGHT_MAX = 64
_POLL_S = 0.0005


@dataclass(slots=True)
class Produced:
    """Batches acknowledged: the last position of each, and when that was known."""

    ends: list[int] = field(default_factory=list)
    acknowledged_s: list[float] = field(default_factory=list)

    @property
    def last_position(self) -> int:
        """The last position acknowledged."""
        return max(self.ends, default=0)

    def columns(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Both as columns, in the order of positions."""
        order = np.argsort(self.ends)
        return np.array(self.ends)[order], np.array(self.acknowledged_s)[order]


class Producer:
    """Logs to one ingest service."""

    def __init__(self, address: str, requests: Sequence[bytes], events_per_request: int) -> None:
        """Use requests again and again, all of the same number of events."""
        self._connection = UnaryConnection(address, _METHOD)
        self._requests = requests
        self._events = events_per_request
        self._started = 0
        self._in_flight = 0
        self.produced = Produced()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def at_rate(self, events_per_s: float, *, seconds: float) -> Produced:
        """Log at a rate, on a schedule that does not drift; returns when all is acknowledged."""
        begin = time.monotonic()
        for nth in range(round(events_per_s * seconds / self._events)):
            due = begin + nth * self._events / events_per_s
            while (early := due - time.monotonic()) > 0:
                if self._in_flight:
                    self._take()
                else:
                    time.sleep(min(early, _POLL_S))
            self._start()
        return self._finish()

    def within(self, window: int, received: Callable[[], int], *, seconds: float) -> Produced:
        """Log as fast as it goes with at most `window` events logged that not everybody has received."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sent = self._started * self._events
            if self._in_flight < _IN_FLIGHT_MAX and sent - received() < window:
                self._start()
            elif self._in_flight:
                self._take()
            else:
                time.sleep(_POLL_S)
        return self._finish()

    def _start(self) -> None:
        self._connection.start(self._requests[self._started % len(self._requests)])
        self._started += 1
        self._in_flight += 1
        if self._in_flight >= _IN_FLIGHT_MAX:
            self._take()
        else:
            self._connection.flush()

    def _take(self) -> None:
        for _, answer in self._connection.wait():
            batch = pb.LogBatchResponse.FromString(answer)
            self._in_flight -= 1
            self.produced.ends.append(batch.first_position + batch.count - 1)
            self.produced.acknowledged_s.append(time.monotonic())

    def _finish(self) -> Produced:
        while self._in_flight:
            self._take()
        return self.produced
