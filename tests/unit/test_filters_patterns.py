"""Patterns of LIKE are read, told apart, and matched; regular expressions are RE2's."""

import time

import pytest

from shared.filters.patterns import (
    escape_pattern,
    exact_text,
    like_matcher,
    literal_prefix,
    pattern_to_regex,
    prefix_end,
    split_pattern,
)
from shared.filters.regular_expressions import compile_regex, finder, is_portable, too_large


def test_pattern_is_split_at_its_stars():
    """A run's parts are texts, and None for any one character; a backslash makes the next character plain."""
    assert split_pattern("a*b?c\\**") == [["a"], ["b", None, "c*"], []]
    assert split_pattern("") == [[]]
    with pytest.raises(ValueError, match="escapes nothing"):
        split_pattern("a\\")


def test_what_a_pattern_says_for_sure():
    """The one text that it matches, or how all begin."""
    assert exact_text("a\\*b") == "a*b"
    assert (exact_text("a*"), exact_text("a?"), exact_text("")) == (None, None, "")
    assert [literal_prefix(pattern) for pattern in ("ab*c", "?a", "*", "a\\?b?", "ab")] == ["ab", "", "", "a?b", "ab"]
    assert exact_text(escape_pattern("a*?\\b")) == "a*?\\b"


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("a", "b"),
        ("az", "a{"),
        ("a\U0010ffff", "b"),
        ("\U0010ffff", None),
        ("", None),
        ("\ud7ff", "\ue000"),
        ("\uffff", "\U00010000"),
    ],
)
def test_end_of_a_prefix(prefix, end):
    """The next text by code points that does not begin with it; half surrogate pairs are no characters."""
    assert prefix_end(prefix) == end


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        ("*", ["", "a\nb"], []),
        ("", [""], ["a"]),
        ("a*", ["a", "a\n"], ["ba", "A"]),
        ("*a", ["a", "ba"], ["ab"]),
        ("*a*", ["a", "bab"], ["b"]),
        ("a*a", ["aa", "aba"], ["a"]),
        ("ab*ba", ["abba", "abcba"], ["aba"]),
        ("a*b*c", ["abc", "axbxc"], ["acb", "ab"]),
        ("*ab*ab*", ["abab"], ["ab", "aab"]),
        ("a?c", ["abc", "a\nc", "a\U0001f600c"], ["ac", "abbc"]),
        ("_%", ["_%"], ["ab"]),
        ("\\**", ["*", "*a"], ["a"]),
        ("[a]", ["[a]"], ["a"]),
    ],
)
def test_like_matches_the_whole_text(pattern, fits, fails):
    """Also with line breaks, and as the regular expression that stands for the pattern."""
    holds = like_matcher(pattern, ignore_case=False)
    found = finder(pattern_to_regex(pattern, ignore_case=False), is_like=True)
    assert all(map(holds, fits))
    assert all(map(found, fits))
    assert not any(map(holds, fails))
    assert not any(map(found, fails))


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        *(
            ("ÉCOLE*", "école", True),
            ("k", "\u212a", True),
            ("\u212a", "K", True),
            ("ß", "ẞ", True),
            ("ss", "ß", False),
        ),
        *(("S*", "\u017f", True), ("İ", "i", False), ("a?", "AÉ", True)),
    ],
)
def test_ilike_folds_simply(pattern, text, fits):
    """One character for one, as RE2 folds: also the Kelvin sign and the long s."""
    assert like_matcher(pattern, ignore_case=True)(text) is fits


def test_like_with_a_thousand_wildcards_takes_linear_time():
    """No pattern within the limits can be made to take for ever."""
    for pattern in ("?" * 1_000, "*a" * 500, "*?" * 500, "a*" * 499 + "b"):
        for ignore_case in (False, True):
            holds = like_matcher(pattern, ignore_case=ignore_case)
            started = time.process_time()
            holds("a" * 100_000)
            assert time.process_time() - started < 2, pattern


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*x", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a?){500}a{500}"])
def test_catastrophic_expressions_return_at_once(pattern):
    """A backtracking engine takes exponential time for these; RE2 does not."""
    found = finder(pattern)
    started = time.process_time()
    found("a" * 10_000 + "!")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("pattern", ["(", "[a", "a**", "(?=a)", "\\1", "(?P<a>", "a{1001}", "\\"])
def test_what_re2_does_not_take_is_an_error(pattern):
    """With RE2's own message; none of them is about size."""
    with pytest.raises(ValueError, match=r"\S") as raised:
        compile_regex(pattern)
    assert not too_large(str(raised.value))


def test_expressions_are_bounded_in_memory():
    """One that would need more than its share is refused when it is read, not when it is used."""
    with pytest.raises(ValueError, match="too large") as raised:
        compile_regex("((\\pL{9}){9}){9}")
    assert too_large(str(raised.value))


@pytest.mark.parametrize(
    ("pattern", "portable"),
    [
        ("a", True),
        ("é", True),
        ("(?i)a", True),
        ("(?i)é", False),
        ("(?si)\\x{e9}", False),
        ("\\pL", False),
        ("\\PL", False),
    ],
)
def test_what_unicode_tables_may_differ_about(pattern, portable):
    """Classes of Unicode, and folding beyond ASCII."""
    assert is_portable(pattern) is portable
