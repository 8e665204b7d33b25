"""What is wrong with a filter, and where: the error that tells it. Pure.

    line 1, column 1: timestmp is no field; did you mean timestamp?
      timestmp > '2024-01-20'
      ^^^^^^^^

Every error is EventFilterException. Its metadata, whose order is that of importance, has `field`, the part of the
structured form, which is "expression" for an expression; for that also `line` and `column`, which count from 1 in
characters, and `excerpt`, the two lines that show the place; where they apply `limit`, the maximum that is exceeded,
`suggestion`, what was probably meant, and `expected`, what should stand there.
"""

from typing import Any

from shared.errors import EventFilterException

# Characters of a wrong text that a message shows.
_TEXT_MAX = 60
# Characters of a line that an excerpt shows on each side of the place: as many as fit.
_SIDES = (60, 40, 20)
# No value of an error's metadata travels with more.
EXCERPT_BYTES_MAX = 256


class FilterProblem(Exception):  # noqa: N818 — never leaves the package
    """A problem of a filter, wherever it stands.

    reason: one of ErrorReason; each limit has its own. limit: the maximum that is exceeded.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "INVALID_FILTER",
        limit: int | None = None,
        suggestion: str = "",
        expected: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        details = {"limit": limit, "suggestion": suggestion, "expected": expected}
        self.details: dict[str, Any] = {name: value for name, value in details.items() if value}


class PlacedProblem(Exception):  # noqa: N818 — never leaves the package
    """A problem at a place of an expression: characters from the start, and how many."""

    def __init__(self, problem: FilterProblem, start: int, length: int) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.start = start
        self.length = length


def invalid_expression(expression: str, placed: PlacedProblem) -> EventFilterException:
    """Return the error for a problem at a place of an expression."""
    start = min(placed.start, len(expression))
    line = expression.count("\n", 0, start) + 1
    line_start = expression.rfind("\n", 0, start) + 1
    line_end = expression.find("\n", start)
    shown = expression[line_start : len(expression) if line_end < 0 else line_end]
    column = start - line_start + 1
    excerpt = _excerpt(shown, column - 1, placed.length)
    indented = excerpt.replace("\n", "\n  ")
    return EventFilterException(
        f"line {line}, column {column}: {placed.problem}\n  {indented}",
        reason=placed.problem.reason,
        field="expression",
        line=line,
        column=column,
        **placed.problem.details,
        excerpt=excerpt,
    )


def invalid_part(field: str, problem: FilterProblem) -> EventFilterException:
    """Return the error for a part of the structured form; "" is the whole of it."""
    if not field:
        return EventFilterException(str(problem), reason=problem.reason, **problem.details)
    return EventFilterException(f"{field}: {problem}", reason=problem.reason, field=field, **problem.details)


def shorten(text: str) -> str:
    """Return a text as a message can show it."""
    return _printable(text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 1]}…")


def _excerpt(line: str, start: int, length: int) -> str:
    """Return the part of a line around a place, and below it carets below the place."""
    excerpts = [_excerpt_of(line, start, length, side) for side in _SIDES]
    return next(excerpt for excerpt in excerpts if len(excerpt.encode(errors="replace")) <= EXCERPT_BYTES_MAX)


def _excerpt_of(line: str, start: int, length: int, side: int) -> str:
    first = max(0, start - side)
    shown = _printable(line[first : start + side])
    lead = "…" if first else ""
    tail = "…" if start + side < len(line) else ""
    before = start - first
    carets = "^" * max(1, min(length, len(shown) - before))
    return f"{lead}{shown}{tail}\n{' ' * (len(lead) + before)}{carets}"


def _printable(text: str) -> str:
    """Return the text with one visible character for each."""
    replaced = {True: " ", False: "\N{REPLACEMENT CHARACTER}"}
    return "".join(each if each.isprintable() else replaced[each.isspace()] for each in text)
