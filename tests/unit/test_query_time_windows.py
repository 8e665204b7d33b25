"""Stretches of time that hold so many events, about: they always get somewhere, and never leave out a time."""

from hypothesis import given
from hypothesis import strategies as st

from query_service.time_windows import FIRST_NS, LAST_NS, Part, TimeWindows

_times = st.integers(-50, 50) | st.sampled_from([FIRST_NS, FIRST_NS + 1, LAST_NS - 1, LAST_NS])


@st.composite
def _parts(draw) -> Part:
    first, last = sorted([draw(_times), draw(_times)])
    return Part(first, last, draw(st.integers(1, 1_000)))


@given(st.lists(_parts(), max_size=6), st.integers(1, 2_000), st.booleans(), _times)
def test_steps_go_over_all_of_time_in_one_direction(
    parts: list[Part],
    rows: int,
    descending: bool,  # noqa: FBT001 — given by hypothesis, by position
    start: int,
) -> None:
    """Each begins behind the one before, and the last one says that it reaches the end."""
    windows = TimeWindows(parts, descending=descending)
    at = start
    for _ in range(50):
        end = windows.end_of(at, rows)
        if end is None:
            break
        assert end <= at if descending else end >= at
        assert end > FIRST_NS if descending else end < LAST_NS
        at = end - 1 if descending else end + 1


def test_even_parts_are_cut_where_the_number_is_reached() -> None:
    """Up and down."""
    parts = [Part(0, 999, 1_000), Part(1_000, 1_999, 1_000)]
    assert TimeWindows(parts, descending=False).end_of(0, 300) == 299
    assert TimeWindows(parts, descending=False).end_of(900, 300) == 1_199
    assert TimeWindows(parts, descending=False).end_of(1_900, 300) is None
    assert TimeWindows(parts, descending=True).end_of(1_999, 300) == 1_700
    assert TimeWindows(parts, descending=True).end_of(1_099, 300) == 800
    assert TimeWindows(parts, descending=True).end_of(99, 300) is None


def test_parts_that_overlap_add_up() -> None:
    """Where two parts hold events of the same time, a step is half as long."""
    parts = [Part(0, 999, 1_000), Part(0, 999, 1_000)]
    assert TimeWindows(parts, descending=False).end_of(0, 300) == 149
    assert TimeWindows(parts, descending=False).rows_between(0, 499) == 1_000


def test_a_step_crosses_times_without_events() -> None:
    """It costs nothing to look where nothing is."""
    parts = [Part(0, 99, 100), Part(10**9, 10**9 + 99, 100)]
    assert TimeWindows(parts, descending=False).end_of(0, 150) == 10**9 + 49
    assert TimeWindows([], descending=False).end_of(FIRST_NS, 1) is None
