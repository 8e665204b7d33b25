"""Reads filter expressions. Pure.

Every error is EventFilterException, reason INVALID_FILTER or that of a limit, whose metadata says line, column, the
wrong text, what was expected or meant, and the limit where one is exceeded; its message shows the place.
"""

import re

from lark import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from shared.filters.grammar import describe_expected, parse_structure
from shared.filters.limits import COMPARISONS_MAX, EXPRESSION_BYTES_MAX
from shared.filters.problems import FilterProblem, PlacedProblem, invalid_expression, shorten
from shared.filters.tree import Tree, leaves

# What other languages write, and what to write here.
_FOREIGN = {
    "==": "=",
    "&&": "AND",
    "||": "OR",
    "!": "NOT",
    "=~": "MATCHES",
    "~": "MATCHES",
}
# What is written where a string is expected, and what was meant.
_WITHOUT_QUOTES = {"NULL": "IS NULL", "NOW": "now()"}
_UNQUOTED_TIME = re.compile(r"[0-9]{4}-[0-9]{2}")


def parse_filter(expression: str) -> Tree:
    """Return the tree of an expression; an empty one holds for every event.

    Raises EventFilterException.
    """
    try:
        _check_size(expression)
        tree = _parse(expression)
        check_comparisons(tree)
    except PlacedProblem as placed:
        raise invalid_expression(expression, placed) from placed.problem
    except FilterProblem as problem:
        raise invalid_expression(expression, PlacedProblem(problem, 0, len(expression))) from problem
    return tree


def parse_printed(expression: str) -> Tree:
    """Return the tree of an expression that this package printed, whatever its length."""
    return _parse(expression)


def check_comparisons(tree: Tree) -> None:
    """Raise FilterProblem if a tree has too many comparisons."""
    count = sum(1 for _ in leaves(tree))
    if count > COMPARISONS_MAX:
        raise FilterProblem(
            f"the filter has {count} comparisons, at most {COMPARISONS_MAX} are allowed: use IN, or ask several times",
            reason="FILTER_TOO_MANY_COMPARISONS",
            limit=COMPARISONS_MAX,
        )


def _parse(expression: str) -> Tree:
    try:
        return parse_structure(expression).tree
    except UnexpectedInput as error:
        raise _syntax_problem(expression, error) from error


def _check_size(expression: str) -> None:
    try:
        size = len(expression.encode())
    except UnicodeEncodeError as error:
        problem = FilterProblem("half a surrogate pair is no character", expected="Unicode text")
        raise PlacedProblem(problem, error.start, error.end - error.start) from error
    if size > EXPRESSION_BYTES_MAX:
        fits = expression.encode()[:EXPRESSION_BYTES_MAX].decode(errors="ignore")
        problem = FilterProblem(
            f"the expression has {size} bytes, at most {EXPRESSION_BYTES_MAX} are allowed: ask several times",
            reason="FILTER_TOO_LONG",
            limit=EXPRESSION_BYTES_MAX,
        )
        raise PlacedProblem(problem, len(fits), 1)


def _syntax_problem(expression: str, error: UnexpectedInput) -> PlacedProblem:
    start, found = error.pos_in_stream, ""
    if isinstance(error, UnexpectedCharacters):
        found = error.char
    elif isinstance(error, UnexpectedToken) and error.token.type != "$END":
        found = str(error.token)
    expected = describe_expected(expression)
    if not found or start is None:
        problem = FilterProblem(f"the expression ends too early; expected {expected}", expected=expected)
        return PlacedProblem(problem, len(expression.rstrip()), 1)
    if found in {"'", '"'}:
        message = "the string that begins here does not end; close it with the same quotation mark"
        return PlacedProblem(FilterProblem(message, expected=expected), start, 1)
    if foreign := _foreign_at(expression, start):
        start, found = foreign
        message, meant = f"{found} is not known here; write {_FOREIGN[found]}", _FOREIGN[found]
        return PlacedProblem(FilterProblem(message, expected=expected, suggestion=meant), start, len(found))
    message = f"unexpected {shorten(found)}; expected {expected}{_hint(expression, start, found, expected)}"
    return PlacedProblem(FilterProblem(message, expected=expected), start, len(found))


def _foreign_at(expression: str, start: int) -> tuple[int, str] | None:
    """Return the place and the text of an operator of another language of which some character was not expected."""
    for foreign in _FOREIGN:
        for at in range(max(0, start + 1 - len(foreign)), start + 1):
            if expression.startswith(foreign, at):
                return at, foreign
    return None


def _hint(expression: str, start: int, found: str, expected: str) -> str:
    if _UNQUOTED_TIME.match(expression, max(0, start - 4)):
        return "; a time is written in quotes"
    if "string" in expected and found.upper() in _WITHOUT_QUOTES:
        return f"; write {_WITHOUT_QUOTES[found.upper()]}"
    if "string" in expected and (found[0].isalpha() or found[0] == "_"):
        return f"; a string is written in quotes: '{shorten(found)}'"
    if "number" in expected and found[0] in "0123456789.+-":
        return "; a number is written 15, -1.5 or 1.5e3"
    if found[0] in ".[":
        return '; a key with other characters than letters, digits and _ $ @ - is written payload."a key"'
    return ""
