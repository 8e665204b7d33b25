"""What an analysis may spend: time, and whether anybody still wants the answer.

Invariant: once a budget is spent it stays so. Whoever stops for it says so in its answer.
"""

from collections.abc import Callable

Progress = Callable[[str, float], None]


def silent(_stage: str, _share: float) -> None:
    """Report progress to nobody."""


class Budget:
    """Asked between pieces of work. Not for use from several threads but for `cancel`.

    now_s: a monotonic clock. seconds: from now; None for no limit. progress: told the stage and the share of it
    that is done, 0 to 1.
    """

    def __init__(
        self, now_s: Callable[[], float] | None = None, seconds: float | None = None, progress: Progress = silent
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

    def spent(self) -> bool:
        """Whether to stop here."""
        if not self._cancelled and self._now_s is not None and self._end_s is not None:
            return self._now_s() >= self._end_s
        return self._cancelled
