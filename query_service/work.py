"""One call's work: how much time it has, and how it is ended from another thread.

A call is ended in two ways. Cancelled, nobody waits for its answer: it stops at once. Expired, its time is up:
it stops too, once it has got somewhere, so that whoever goes on from there comes to an end some day.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from shared.clock import Clock


class WorkCancelled(Exception):  # noqa: N818 — it is no error: nobody waits any more
    """The caller has gone."""


class WorkExpired(Exception):  # noqa: N818 — it is no error: the answer is partial
    """The time is up, and what was interrupted has no result."""


class Interruptible(Protocol):
    """What a thread waits for, such as a DuckDB connection."""

    def interrupt(self) -> None:
        """Make it raise soon. Another thread calls this."""


class Work:
    """The time and the life of one call. One thread works; others may cancel and expire."""

    def __init__(self, clock: Clock, budget_s: float | None = None) -> None:
        """budget_s: seconds from now; None for no bound."""
        self._clock = clock
        self.began_s = clock.monotonic_s()
        self._end_s = None if budget_s is None else self.began_s + budget_s
        self._lock = threading.Lock()
        self._running: Interruptible | None = None
        self._cancelled = False
        self._expired = False
        self._interrupted = False
        # Set once an interrupted step would not mean that the call got nowhere.
        self.has_progress = False

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return self._clock.monotonic_s() - self.began_s

    @property
    def left_s(self) -> float | None:
        """Seconds left, not below 0; None where there is no bound."""
        return None if self._end_s is None else max(self._end_s - self._clock.monotonic_s(), 0.0)

    @property
    def is_over(self) -> bool:
        """Whether to begin nothing more: the time is up, and something was reached."""
        return self.has_progress and (self._expired or self.left_s == 0.0)

    def cancel(self) -> None:
        """End the work: nobody waits for it. Idempotent."""
        with self._lock:
            self._cancelled = True
            self._interrupt()

    def expire(self) -> None:
        """The time is up: interrupt what runs, if something was reached already. Idempotent."""
        with self._lock:
            self._expired = True
            if self.has_progress:
                self._interrupted = True
                self._interrupt()

    def check(self) -> None:
        """Raise WorkCancelled if it was cancelled."""
        if self._cancelled:
            raise WorkCancelled

    @contextmanager
    def running(self, thing: Interruptible) -> Iterator[None]:
        """Have a thing interrupted when the work ends; what it raises then becomes WorkCancelled or WorkExpired."""
        with self._lock:
            if self._cancelled:
                raise WorkCancelled
            self._running = thing
        try:
            yield
        except Exception as error:
            # Whatever a library makes of an interruption.
            if self._cancelled:
                raise WorkCancelled from error
            if self._interrupted:
                raise WorkExpired from error
            raise
        finally:
            with self._lock:
                self._running = None

    def _interrupt(self) -> None:
        if self._running is not None:
            self._running.interrupt()
