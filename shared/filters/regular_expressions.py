r"""Regular expressions of RE2, bounded in memory, and the same in DuckDB. Pure.

RE2's defaults hold: `.` is any character but a line feed, `^` and `$` are the ends of the text, case
matters; `(?s)`, `(?m)` and `(?i)` at the start change that. DuckDB has an RE2 of its own, with the same
defaults. Its Unicode tables are older, and differ for some letters: `is_portable` tells which
expressions cannot meet them.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import re2  # type: ignore[import-untyped]

from shared.filters.limits import REGEX_MEMORY_BYTES_MAX

# A LIKE with a thousand `?` must fit: 13 instructions of 16 bytes for each.
_LIKE_MEMORY_BYTES_MAX = 8 << 20

_IGNORES_CASE = re.compile(r"\(\?[A-Za-z]*i")


def compile_regex(pattern: str) -> Any:
    """Compile an RE2 expression. Raises ValueError with RE2's message if it is wrong or needs too much memory."""
    return _compile(pattern, REGEX_MEMORY_BYTES_MAX)


def too_large(message: str) -> bool:
    """Return whether a message of RE2 says that an expression needs too much memory."""
    return "too large" in message


def finder(pattern: str, *, is_like: bool = False) -> Callable[[str], bool]:
    """Return the function that tells whether an expression is found anywhere in a text."""
    search = _compile(pattern, _LIKE_MEMORY_BYTES_MAX if is_like else REGEX_MEMORY_BYTES_MAX).search
    # Searching bytes is four times faster: places need no counting of characters. Half a surrogate pair
    # is no character for RE2, whatever its bytes.
    return lambda text: search(text.encode("utf-8", "surrogatepass")) is not None


def is_portable(pattern: str) -> bool:
    r"""Return whether DuckDB's RE2 certainly finds the same.

    Classes of Unicode (`\p{...}`) may differ, and case folding of letters beyond ASCII.
    """
    if "\\p" in pattern or "\\P" in pattern:
        return False
    return not _IGNORES_CASE.search(pattern) or (pattern.isascii() and "\\x" not in pattern)


@functools.lru_cache(maxsize=256)
def _compile(pattern: str, memory_bytes_max: int) -> Any:
    options = re2.Options()
    options.max_mem = memory_bytes_max
    options.log_errors = False
    try:
        # Through re2.compile it would stay in a cache of the library, too.
        return re2.compile(pattern, options)
    except re2.error as error:
        message = error.args[0]
        raise ValueError(message.decode(errors="replace") if isinstance(message, bytes) else str(message)) from error
