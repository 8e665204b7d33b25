"""LIKE and ILIKE on Python strings, as functions compiled once. Pure.

Most patterns need no regular expression: the runs between the stars are found one after the other,
which takes time linear in the text for each run.
"""

from collections.abc import Callable

from shared.filters.patterns import literal_text, pattern_to_regex, split_pattern
from shared.filters.regular_expressions import finder


def like_matcher(pattern: str, *, ignore_case: bool) -> Callable[[str], bool]:
    """Return the function that tells whether a text as a whole fits a pattern."""
    if ignore_case:
        return _ignoring_case(pattern)
    texts = [literal_text(run) for run in split_pattern(pattern)]
    literals = [text for text in texts if text is not None]
    if len(literals) < len(texts):
        return finder(pattern_to_regex(pattern, ignore_case=False), is_like=True)
    return _runs_matcher(literals)


def _ignoring_case(pattern: str) -> Callable[[str], bool]:
    fits = finder(pattern_to_regex(pattern, ignore_case=True), is_like=True)
    if not pattern.isascii():
        return fits
    # Among ASCII texts, folding is lower case. Letters beyond ASCII fold into it: the Kelvin sign is a k.
    fits_lower = like_matcher(pattern.lower(), ignore_case=False)
    return lambda text: fits_lower(text.lower()) if text.isascii() else fits(text)


def _runs_matcher(runs: list[str]) -> Callable[[str], bool]:
    """Match literal texts with stars between them."""
    first, last = runs[0], runs[-1]
    if len(runs) == 1:
        return lambda text: text == first
    middle = [run for run in runs[1:-1] if run]
    if not middle and not last:
        return lambda text: text.startswith(first)
    if not middle and not first:
        return lambda text: text.endswith(last)
    if len(middle) == 1 and not first and not last:
        wanted = middle[0]
        return lambda text: wanted in text
    length_min = sum(map(len, runs))

    def fits(text: str) -> bool:
        if len(text) < length_min or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for run in middle:
            at = text.find(run, at, end)
            if at < 0:
                return False
            at += len(run)
        return True

    return fits
