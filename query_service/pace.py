"""How much to search in the next step, so that a call can answer in time and lets others have their turn. Pure.

A step that cannot be interrupted without losing its result must end before the time does; a step that takes long
keeps others waiting. So steps begin small where time is short, and grow by what the steps before have shown.
"""

# Seconds that one step should take at most.
STEP_S = 0.25
ROWS_MIN = 4_096
# Of a call that wants all it can get, and of one that wants few events.
FIRST_ROWS = 1_048_576
FIRST_ROWS_OF_A_PAGE = 131_072
# Before anything is known of the speed: that of a search that reads the JSON text of every payload, and more.
CAUTIOUS_ROWS_PER_S = 330_000
_GROWTH_MAX = 16
# Of the time left, a step may plan for this share.
_SHARE = 0.5


class Pace:
    """The rows of the next step, by those of the last ones."""

    def __init__(self, *, for_a_page: bool = False) -> None:
        self._last = FIRST_ROWS_OF_A_PAGE if for_a_page else FIRST_ROWS
        self._rows_per_s: float | None = None

    def rows(self, left_s: float | None) -> int:
        """How many rows to search next, where so many seconds are left; None: no bound."""
        if self._rows_per_s is None:
            rows = self._last if left_s is None else min(self._last, int(CAUTIOUS_ROWS_PER_S * left_s * _SHARE))
        else:
            seconds = STEP_S if left_s is None else min(STEP_S, left_s * _SHARE)
            rows = min(int(self._rows_per_s * seconds), self._last * _GROWTH_MAX)
        return max(rows, ROWS_MIN)

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a step."""
        if rows:
            self._last = max(rows, ROWS_MIN)
            self._rows_per_s = rows / max(seconds, 1e-6)
