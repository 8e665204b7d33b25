r"""The patterns of LIKE and ILIKE: what they match, and functions that tell it. Pure.

`*` is any run of characters, `?` any one character, also line breaks; a backslash takes the next
character as it is. ILIKE ignores case as RE2 does: each character has one simple case folding.

Most patterns need no regular expression: the runs between the stars are found one after the other, which
takes time linear in the text for each run.
"""

from collections.abc import Callable

import re2  # type: ignore[import-untyped]

from shared.filters.regular_expressions import finder

_LAST_CHARACTER = "\U0010ffff"


def split_pattern(pattern: str) -> list[list[str | None]]:
    """Return the runs of a pattern between its stars; a run's parts are literal texts, and None for each `?`.

    A pattern without stars has one run. Raises ValueError if it ends with a backslash that escapes nothing.
    """
    runs: list[list[str | None]] = [[]]
    literal: list[str] = []

    def flush() -> None:
        if literal:
            runs[-1].append("".join(literal))
            literal.clear()

    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                raise ValueError("the backslash at the end escapes nothing")
            literal.append(escaped)
        elif character in "*?":
            flush()
            if character == "*":
                runs.append([])
            else:
                runs[-1].append(None)
        else:
            literal.append(character)
    flush()
    return runs


def escape_pattern(text: str) -> str:
    """Return the pattern that matches this text only."""
    return "".join(f"\\{character}" if character in "*?\\" else character for character in text)


def exact_text(pattern: str) -> str | None:
    """Return the one text that a pattern matches, None if it has wildcards."""
    runs = split_pattern(pattern)
    return literal_text(runs[0]) if len(runs) == 1 else None


def literal_text(run: list[str | None]) -> str | None:
    """Return the text of a run, None if it has a `?`."""
    return None if None in run else "".join(part for part in run if part is not None)


def literal_prefix(pattern: str) -> str:
    """Return what every text begins with that the pattern matches."""
    first = split_pattern(pattern)[0]
    return first[0] if first and first[0] is not None else ""


def prefix_end(prefix: str) -> str | None:
    """Return the smallest text above all texts that begin with a prefix, None if there is none.

    Texts are ordered by code point.
    """
    kept = prefix.rstrip(_LAST_CHARACTER)
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    # Half surrogate pairs are no characters.
    return kept[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)


def pattern_to_regex(pattern: str, *, ignore_case: bool) -> str:
    """Return the RE2 expression that finds exactly what the pattern matches."""
    runs = ["".join("." if part is None else re2.escape(part) for part in run) for run in split_pattern(pattern)]
    return f"(?s{'i' if ignore_case else ''})\\A{'.*'.join(runs)}\\z"


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
