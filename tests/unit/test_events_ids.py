"""Event ids."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import EventValidationException
from shared.events import following_event_ids, format_event_id, is_log_id, new_log_id, parse_event_id
from shared.events.ids import ALPHABET, POSITION_MAX

LOG_IDS = st.text(ALPHABET, min_size=8, max_size=8)
POSITIONS = st.integers(1, POSITION_MAX)


def test_ids_have_the_documented_form():
    """Prefix, log id, position in base 32 with the last digit last."""
    assert format_event_id("7Q2M4XKD", 1) == "evt_7Q2M4XKD0000000000001"
    assert format_event_id("7Q2M4XKD", 32 * 32 + 31) == "evt_7Q2M4XKD000000000010Z"
    assert format_event_id("00000000", POSITION_MAX) == "evt_00000000FZZZZZZZZZZZZ"


@settings(deadline=None)
@given(LOG_IDS, POSITIONS)
def test_ids_round_trip(log_id, position):
    """Log id and position come back."""
    assert parse_event_id(format_event_id(log_id, position)) == (log_id, position)


@settings(deadline=None)
@given(LOG_IDS, POSITIONS, POSITIONS)
def test_ids_sort_like_positions(log_id, one, other):
    """Within a log the order of ids is the order of positions."""
    assert (format_event_id(log_id, one) < format_event_id(log_id, other)) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "evt_",
        "evt_1234567890",
        "evt_7Q2M4XKD0000000000000",  # position 0
        "evt_7Q2M4XKDG000000000000",  # 2**64
        "evt_7Q2M4XKDZZZZZZZZZZZZZ",
        "evt_7Q2M4XKD000000000001",
        "evt_7Q2M4XKD00000000000001",
        "evt_7q2M4XKD0000000000001",
        "evt_7Q2M4XKD000000000000a",
        "evt_7Q2M4XKD000000000000I",
        "evt_7Q2M4XKD000000000000L",
        "evt_7Q2M4XKD000000000000O",
        "evt_7Q2M4XKD000000000000U",
        "evt_7Q2M4XKI0000000000001",
        "EVT_7Q2M4XKD0000000000001",
        "evt-7Q2M4XKD0000000000001",
        " evt_7Q2M4XKD000000000001",
        "evt_7Q2M4XKD000000000001\n",
        "evt_7Q2M4XKD000000000000\u0661",  # a digit, but not of the alphabet
    ],
)
def test_anything_else_is_no_id(text):
    """Ids are exact: no other spelling of one, no position out of range."""
    with pytest.raises(EventValidationException) as caught:
        parse_event_id(text)
    assert caught.value.violations[0].field == "id"
    assert caught.value.reason == "INVALID_EVENT"


@settings(deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"evt_[0-9A-Za-z]{21}", fullmatch=True))
def test_what_parses_is_canonical(text):
    """Any text is either refused or the one spelling of its id."""
    try:
        log_id, position = parse_event_id(text)
    except EventValidationException:
        return
    assert format_event_id(log_id, position) == text


@settings(deadline=None)
@given(LOG_IDS, st.integers(1, POSITION_MAX - 100), st.integers(0, 100))
def test_following_ids_are_those_of_the_next_positions(log_id, first, count):
    """The ids of a batch follow from its first."""
    expected = [format_event_id(log_id, first + index) for index in range(count)]
    assert following_event_ids(format_event_id(log_id, first), count) == expected


def test_following_ids_end_at_the_last_position():
    """A batch beyond the last position is refused, one up to it is not."""
    last = format_event_id("00000000", POSITION_MAX)
    assert following_event_ids(last, 1) == [last]
    with pytest.raises(EventValidationException):
        following_event_ids(last, 2)


def test_log_ids_are_random_and_well_formed():
    """New log ids are log ids, and differ."""
    made = {new_log_id() for _ in range(100)}
    assert all(is_log_id(log_id) for log_id in made)
    assert len(made) == 100
    assert not any(map(is_log_id, ["", "7Q2M4XK", "7Q2M4XKDD", "7Q2M4XKI", "7q2m4xkd"]))
