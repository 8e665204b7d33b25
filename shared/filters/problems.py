"""What is wrong with a filter expression, and where: the error that tells it. Pure.

    line 1, column 1: timestmp is not a field; did you mean timestamp?
      timestmp > '2024-01-20'
      ^^^^^^^^
"""

from dataclasses import dataclass

from shared.errors import EventFilterException

# Characters of a line that are shown on each side of the place.
_SHOWN_MAX = 60


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is in an expression: characters from the start, and how many."""

    start: int
    length: int = 1


class FilterProblem(Exception):  # noqa: N818 — never leaves the package
    """A problem at a place, raised while the expression is read; `invalid_filter` makes the error of it."""

    def __init__(self, message: str, place: Place, *, expected: str = "", limit: str = "") -> None:
        super().__init__(message)
        self.place = place
        self.expected = expected
        self.limit = limit


def invalid_filter(expression: str, problem: FilterProblem) -> EventFilterException:
    """Return the error: reason INVALID_FILTER; line and column count from 1, in characters.

    metadata: line, column, text (the offending one), and where they apply expected and limit.
    """
    start = min(problem.place.start, len(expression))
    before = expression[:start]
    line = before.count("\n") + 1
    line_start = before.rfind("\n") + 1
    column = start - line_start + 1
    line_end = expression.find("\n", start)
    shown = expression[line_start : len(expression) if line_end < 0 else line_end]
    metadata: dict[str, object] = {"line": line, "column": column}
    if text := expression[start : start + problem.place.length]:
        metadata["text"] = _printable(text[:_SHOWN_MAX])
    if problem.expected:
        metadata["expected"] = problem.expected
    if problem.limit:
        metadata["limit"] = problem.limit
    excerpt = _excerpt(shown, column - 1, problem.place.length)
    return EventFilterException(f"line {line}, column {column}: {problem}\n{excerpt}", **metadata)


def _excerpt(line: str, start: int, length: int) -> str:
    """Return the part of a line around a place, with carets below the place."""
    first = max(0, start - _SHOWN_MAX)
    shown = _printable(line[first : start + _SHOWN_MAX])
    lead = "…" if first else ""
    tail = "…" if start + _SHOWN_MAX < len(line) else ""
    before = start - first
    carets = "^" * max(1, min(length, len(shown) - before))
    return f"  {lead}{shown}{tail}\n  {' ' * (len(lead) + before)}{carets}"


def _printable(text: str) -> str:
    """Return the text with one visible character for each."""
    return "".join(each if each.isprintable() else " " if each.isspace() else "\N{REPLACEMENT CHARACTER}" for each in text)
