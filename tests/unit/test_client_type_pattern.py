"""Patterns for event types."""

import fnmatch
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.client.type_pattern import matches_pattern


@pytest.mark.parametrize(
    ("pattern", "event_type", "matches"),
    [
        ("pipeline.*", "pipeline.started", True),
        ("pipeline.*", "pipeline.stage.completed", True),
        ("pipeline.*", "pipeline", False),
        ("*", "anything.at.all", True),
        ("*", "", True),
        ("*.completed", "pipeline.stage.completed", True),
        ("p*.s*.c*", "pipeline.stage.completed", True),
        ("hook.?", "hook.a", True),
        ("hook.?", "hook.ab", False),
        ("Pipeline.*", "pipeline.started", False),
        ("pipeline.started", "pipeline.started", True),
        ("pipeline.started", "pipeline.started.twice", False),
        ("[ab]", "a", False),
    ],
)
def test_pattern_matches_the_whole_type(pattern, event_type, matches):
    """* is any run, ? any one character, everything else is itself."""
    assert matches_pattern(pattern, event_type) is matches


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=12))
def test_pattern_agrees_with_the_standard_library(pattern, event_type):
    """Without brackets fnmatch means the same."""
    assert matches_pattern(pattern, event_type) == fnmatch.fnmatchcase(event_type, pattern)


def test_pattern_of_many_stars_is_quick():
    """A pattern that makes naive matchers backtrack exponentially is answered at once."""
    assert not matches_pattern("*a" * 50 + "b", string.ascii_lowercase[0] * 200)
