"""How much is searched in the next step."""

import itertools

from query_service.pace import FIRST_ROWS, FIRST_ROWS_IN_A_HURRY, ROWS_MIN, STEP_S, Pace


def test_a_call_in_a_hurry_begins_small() -> None:
    """Its first step cannot be interrupted without losing everything."""
    assert Pace(in_a_hurry=True).rows(0.05) == FIRST_ROWS_IN_A_HURRY
    assert Pace(in_a_hurry=False).rows(None) == FIRST_ROWS


def test_steps_grow_by_what_was_seen_but_not_at_once() -> None:
    """A first step may have been a lucky one."""
    pace = Pace(in_a_hurry=False)
    pace.observe(10_000, 0.0001)
    grown = [pace.rows(None)]
    for _ in range(3):
        pace.observe(grown[-1], grown[-1] / 1e8)
        grown.append(pace.rows(None))
    assert grown[0] < 1e8 * STEP_S
    assert all(later <= 16 * earlier for earlier, later in itertools.pairwise(grown))
    assert grown[-1] == int(1e8 * STEP_S)


def test_a_step_takes_half_of_what_is_left_at_most() -> None:
    """And never less than a few thousand rows, so that each call gets somewhere."""
    pace = Pace(in_a_hurry=True)
    pace.observe(100_000, 0.1)
    assert pace.rows(0.1) == 50_000
    assert pace.rows(0.0) == ROWS_MIN
    assert pace.rows(1000) == pace.rows(None) == 250_000


def test_a_step_without_rows_or_time_teaches_nothing_wrong() -> None:
    """Neither is divided by."""
    pace = Pace(in_a_hurry=False)
    pace.observe(0, 5.0)
    assert pace.rows(None) == FIRST_ROWS
    pace.observe(5, 0.0)
    assert ROWS_MIN <= pace.rows(None) <= 16 * ROWS_MIN
