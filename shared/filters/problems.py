"""What is wrong with a filter, and where: the error that tells it. Pure.

line 1, column 1: timestmp is no field; did you mean timestamp?
timestmp > '2024-01-20'
^^^^^^^^
"""

from shared.errors import EventFilterException

# The reason of the error where a maximum of `limits` is exceeded, by what the problem calls it.
_REASONS = {
    "expression_bytes": "FILTER_TOO_LONG",
    "nesting": "FILTER_TOO_DEEP",
    "comparisons": "FILTER_TOO_MANY_COMPARISONS",
    "list_values": "FILTER_LIST_TOO_LONG",
    "pattern_bytes": "FILTER_PATTERN_TOO_LONG",
    "regular_expression_memory": "FILTER_REGEX_TOO_LARGE",
    "path_segments": "FILTER_PATH_TOO_LONG",
    "exponent": "FILTER_LITERAL_OUT_OF_RANGE",
    "duration": "FILTER_LITERAL_OUT_OF_RANGE",
}
# Characters of a line that are shown on each side of the place, and of a wrong text.
_SHOWN_MAX = 60


class FilterProblem(Exception):  # noqa: N818 — never leaves the package
    """A problem of a filter, wherever it stands.

    expected: what should stand there. suggestion: what was probably meant. limit: the maximum that is exceeded.
    """

    def __init__(self, message: str, *, expected: str = "", suggestion: str = "", limit: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.suggestion = suggestion
        self.limit = limit

    @property
    def reason(self) -> str:
        """The reason of the error that tells it."""
        return _REASONS[self.limit] if self.limit else "INVALID_FILTER"


class PlacedProblem(Exception):  # noqa: N818 — never leaves the package
    """A problem at a place of an expression: characters from the start, and how many."""

    def __init__(self, problem: FilterProblem, start: int, length: int) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.start = start
        self.length = length


def invalid_expression(expression: str, placed: PlacedProblem) -> EventFilterException:
    """Return the error; line and column count from 1, in characters.

    Its metadata has line, column, text (the wrong one), and where they apply expected, suggestion and limit.
    """
    start = min(placed.start, len(expression))
    line = expression.count("\n", 0, start) + 1
    line_start = expression.rfind("\n", 0, start) + 1
    line_end = expression.find("\n", start)
    shown = expression[line_start : len(expression) if line_end < 0 else line_end]
    column = start - line_start + 1
    excerpt = _excerpt(shown, column - 1, placed.length)
    return EventFilterException(
        f"line {line}, column {column}: {placed.problem}\n{excerpt}",
        line=line,
        column=column,
        text=shorten(expression[start : start + placed.length]),
        reason=placed.problem.reason,
        **_details(placed.problem),
    )


def invalid_part(part: str, problem: FilterProblem) -> EventFilterException:
    """Return the error for a part of the structured form, which its metadata names as `part`."""
    return EventFilterException(f"{part}: {problem}", reason=problem.reason, part=part, **_details(problem))


def shorten(text: str) -> str:
    """Return a text as a message can show it."""
    return _printable(text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…")


def _details(problem: FilterProblem) -> dict[str, str]:
    details = {"expected": problem.expected, "suggestion": problem.suggestion, "limit": problem.limit}
    return {name: value for name, value in details.items() if value}


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
    replaced = {True: " ", False: "\N{REPLACEMENT CHARACTER}"}
    return "".join(each if each.isprintable() else replaced[each.isspace()] for each in text)
