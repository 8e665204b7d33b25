"""How much a step searches: little in a hurry, more by experience, never nothing."""

import pytest

from query_service import pace
from query_service.pace import Pace


@pytest.mark.parametrize(
    ("page", "left_s", "first"),
    [
        (False, None, pace.FIRST_ROWS),
        (True, None, pace.FIRST_ROWS_OF_A_PAGE),
        (False, 300.0, pace.FIRST_ROWS),
        (True, 300.0, pace.FIRST_ROWS_OF_A_PAGE),
        (False, 1.0, pace.CAUTIOUS_ROWS_PER_S // 2),
        (True, 0.05, pace.CAUTIOUS_ROWS_PER_S // 40),
        (True, 0.0, pace.ROWS_MIN),
    ],
)
def test_the_first_step_is_as_large_as_the_call_allows(page: bool, left_s: float | None, first: int) -> None:  # noqa: FBT001
    """Before anything is known of the speed, a call with little time goes by a low one."""
    assert Pace(for_a_page=page).rows(left_s) == first


def test_later_steps_fit_the_time_that_is_left() -> None:
    """By the speed of the step before, with half the time to spare."""
    steps = Pace()
    steps.observe(10_000, 0.01)
    assert steps.rows(0.1) == 50_000
    assert steps.rows(None) == 160_000, "no more than sixteen times the step before"
    steps.observe(160_000, 0.16)
    assert steps.rows(None) == 1_000_000 * pace.STEP_S, "no longer than a step may keep others waiting"


def test_a_step_is_never_empty() -> None:
    """However slow the last one was, and though no time is left: a call gets somewhere."""
    steps = Pace()
    steps.observe(5_000, 100.0)
    assert steps.rows(0.0) == pace.ROWS_MIN
    steps.observe(0, 100.0)
    assert steps.rows(None) == pace.ROWS_MIN
