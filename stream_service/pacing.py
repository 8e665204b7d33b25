"""When the events of a replay are due. Pure: whoever asks says what time it is.

    timeline   the events' times → playback time: nanoseconds since the first event, at speed 1
    playback   playback time ↔ the monotonic clock, at a speed that may change
    rate limit how many may be sent now, whatever is due

Invariants: playback time is counted from the first event and never decreases, so that nothing drifts however many
events there are: what is sent late moves nothing that comes after it. Due is a matter of the schedule alone; a
consumer or a history that was late is caught up with as fast as it goes.
"""

import math

import numpy as np
import numpy.typing as npt

# Speed of a replay that goes as fast as it can.
UNPACED = 0.0
# Events due within this of each other go together: at most 500 messages a second, for an error as small.
TOGETHER_S = 0.002
# What a rate limit lets through at once, in seconds' worth of events; at least one event.
BURST_S = 0.01

_SECOND = 1_000_000_000

Times = npt.NDArray[np.int64]
PlaybackTimes = npt.NDArray[np.uint64]


class Timeline:
    """Turns the times of events, in the order of their positions, into playback times.

    An event earlier than one before it is due together with the latest before it.
    """

    def __init__(self, gap_max_ns: int | None = None) -> None:
        """gap_max_ns: longer pauses between two events are cut down to it."""
        self._gap_max = None if gap_max_ns is None else np.uint64(gap_max_ns)
        self._latest: np.int64 | None = None
        self._end = np.uint64(0)

    def extend(self, times_ns: Times) -> PlaybackTimes:
        """Playback times of the events that follow."""
        if len(times_ns) == 0:
            return np.empty(0, np.uint64)
        before = times_ns[0] if self._latest is None else self._latest
        latest = np.maximum.accumulate(np.concatenate(([before], times_ns)))
        # Unsigned, because two times may be further apart than 63 bits can say.
        gaps = np.diff(latest.view(np.uint64))
        if self._gap_max is not None:
            gaps = np.minimum(gaps, self._gap_max)
        playback: PlaybackTimes = self._end + np.cumsum(gaps, dtype=np.uint64)
        self._latest, self._end = latest[-1], playback[-1]
        return playback


class Playback:
    """Where a replay should be at a moment, at a speed that may change and with pauses."""

    def __init__(self, *, speed: float, now_s: float) -> None:
        """Begin at playback time 0. speed: UNPACED, or a multiple of the recorded pace."""
        self.speed = speed
        self.paused = False
        self._anchor_s = now_s
        self._anchor_ns = 0

    def due_s(self, playback_ns: int) -> float:
        """When a playback time is due, by the monotonic clock; infinite while paused."""
        if self.paused:
            return math.inf
        if self.speed == UNPACED:
            return -math.inf
        return self._anchor_s + (playback_ns - self._anchor_ns) / (self.speed * _SECOND)

    def due_count(self, playback: PlaybackTimes, now_s: float) -> int:
        """How many of these are due now, or so soon that they go together with those."""
        if self.paused:
            return 0
        if self.speed == UNPACED:
            return len(playback)
        reached_ns = self._reached_ns(now_s + TOGETHER_S)
        if reached_ns < 0:
            return 0
        return int(np.searchsorted(playback, np.uint64(min(reached_ns, 2**64 - 1)), side="right"))

    def restart(self, now_s: float) -> None:
        """Let playback time 0 be now."""
        self._anchor_s, self._anchor_ns = now_s, 0

    def change(self, now_s: float, *, given_ns: int, speed: float | None = None, paused: bool | None = None) -> None:
        """Change what is given, from now on. given_ns: playback time of the last event that was sent."""
        if not self.paused:
            self._anchor_ns = given_ns if self.speed == UNPACED else self._reached_ns(now_s)
        self._anchor_s = now_s
        self.speed = self.speed if speed is None else speed
        self.paused = self.paused if paused is None else paused

    def _reached_ns(self, now_s: float) -> int:
        return self._anchor_ns + int((now_s - self._anchor_s) * self.speed * _SECOND)


class RateLimit:
    """Lets through so many events a second: over any second no more than one, and 1 %, above the limit."""

    def __init__(self, events_per_second: float) -> None:
        self._interval_s = 1.0 / events_per_second
        # When the next event may go.
        self.next_s = -math.inf

    def take(self, wanted: int, now_s: float) -> int:
        """How many of the wanted events may go now; they count as gone."""
        free_s = max(self.next_s, now_s - BURST_S)
        taken = min(wanted, math.floor((now_s - free_s) / self._interval_s) + 1) if free_s <= now_s else 0
        if taken > 0:
            self.next_s = free_s + taken * self._interval_s
        return max(taken, 0)
