"""Whether and when to try a call again that failed for now. Waits for nothing itself."""

import grpc

from shared.client.back_off import BackOff
from shared.clock import Clock
from shared.rpc.remote_error import RemoteError

# Ends of calls that say nothing of what was asked.
_PASSING_CODES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


class Attempts:
    """The attempts at one thing. Belongs to one thread."""

    def __init__(self, back_off: BackOff, clock: Clock, *, give_up_after_s: float) -> None:
        """give_up_after_s: how long it may fail without any progress."""
        self._back_off = back_off
        self._clock = clock
        self._give_up_after_s = give_up_after_s
        self._failures = 0
        self._failing_since_s = 0.0

    def failed(self, error: RemoteError) -> float:
        """Return how many seconds to wait before the next attempt.

        Raises the error where a repetition would not mend it, or it has lasted too long.
        """
        now_s = self._clock.monotonic_s()
        if self._failures == 0:
            self._failing_since_s = now_s
        self._failures += 1
        delay_s = self._back_off.delay_s(self._failures, at_least_s=error.retry_delay_s or 0.0)
        if not is_passing(error) or now_s + delay_s - self._failing_since_s > self._give_up_after_s:
            raise error
        return delay_s

    def progressed(self) -> None:
        """Begin anew: something was achieved."""
        self._failures = 0


def is_passing(error: RemoteError) -> bool:
    """Whether a repetition may mend what a call failed with."""
    return error.retryable or error.code in _PASSING_CODES
