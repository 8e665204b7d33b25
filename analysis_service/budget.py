"""What an analysis may spend: time, and whether anybody still wants the answer.

Invariant: once a budget is spent it stays so. Whoever stops for it says so in its answer.
"""

from collections.abc import Callable

# Told the stage that an analysis is in, and the share of it that is done, 0 to 1.
Tell = Callable[[str, float], None]


def silent(_stage: str, _share: float) -> None:
    """Report progress to nobody."""


class Unwanted(Exception):  # noqa: N818 — nothing went wrong
    """Nobody wants the answer any more."""


class Budget:
    """Asked between pieces of work. Not for use from several threads but for `cancel`.

    now_s: a monotonic clock. seconds: from now; None for no limit. progress: told how far the work is.
    """

    def __init__(
        self, now_s: Callable[[], float] | None = None, seconds: float | None = None, progress: Tell = silent
    ) -> None:
        self._now_s = now_s
        self._end_s = None if now_s is None or seconds is None else now_s() + seconds
        self._cancelled = False
        self.progress = progress

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the answer."""
        return self._cancelled

    @property
    def left_s(self) -> float | None:
        """Seconds until it is spent, not negative; None for no limit."""
        if self._now_s is None or self._end_s is None:
            return None
        return max(0.0, self._end_s - self._now_s())

    def spent(self) -> bool:
        """Whether to stop here."""
        return self._cancelled or self.left_s == 0

    def begin(self, stage: str) -> None:
        """Say what is done next. Raises Unwanted where nobody wants the answer; time may be up all the same."""
        if self._cancelled:
            raise Unwanted
        self.progress(stage, 0.0)
