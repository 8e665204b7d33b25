"""Comparisons of strings as SQL conditions on a VARCHAR expression. Pure.

A condition is TRUE exactly where the comparison holds, and FALSE or NULL elsewhere; it is NULL only
where the expression is. All that comes from the filter is a parameter.
"""

from shared.filters.patterns import literal_prefix, literal_text, pattern_to_regex, prefix_end, split_pattern
from shared.filters.printer import print_filter
from shared.filters.regular_expressions import is_portable
from shared.filters.sql_parameters import HOLDS_FUNCTION, Parameters
from shared.filters.tree import Between, Comparison, Contains, Field, In, Leaf, Like, Matches, Operator, Text, values_of

SQL_OPERATORS: dict[Operator, str] = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def text_condition(text: str, leaf: Leaf, parameters: Parameters) -> str:
    """Return the condition of a comparison other than IS NULL and EXISTS on a string expression.

    Literals that are no strings compare with nothing. The expression may occur more than once where it
    is a column; see `text_condition_once`.
    """
    if isinstance(leaf, Like) and not leaf.ignore_case and not leaf.negated:
        runs = split_pattern(leaf.pattern)
        prefix = literal_prefix(leaf.pattern)
        end = prefix_end(prefix)
        if len(runs) == 2 and not runs[1] and literal_text(runs[0]) == prefix and end is not None:
            # A range, unlike a function, is compared with the bounds of row groups.
            return f"({text} >= {parameters.text(prefix)} AND {text} < {parameters.text(end)})"
    return text_condition_once(text, leaf, parameters)


def text_condition_once(text: str, leaf: Leaf, parameters: Parameters) -> str:
    """Return the condition with one occurrence of the expression."""
    if isinstance(leaf, Comparison | In | Between | Contains):
        values = [parameters.text(value.value) for value in values_of(leaf) if isinstance(value, Text)]
        return _compare(text, leaf, values) if values else "FALSE"
    if isinstance(leaf, Like):
        return _not(leaf.negated) + _like(text, leaf, parameters)
    assert isinstance(leaf, Matches)
    return _not(leaf.negated) + _matches(text, leaf.pattern, parameters)


def is_portable_leaf(leaf: Leaf) -> bool:
    """Return whether DuckDB's regular expressions certainly find what Python's find, if the leaf has any."""
    if isinstance(leaf, Matches):
        return is_portable(leaf.pattern)
    return not isinstance(leaf, Like) or not leaf.ignore_case or leaf.pattern.isascii()


def _compare(text: str, leaf: Comparison | In | Between | Contains, values: list[str]) -> str:
    """Return the condition of a comparison with literals, at least one."""
    if isinstance(leaf, Comparison):
        return f"{text} {SQL_OPERATORS[leaf.operator]} {values[0]}"
    if isinstance(leaf, In):
        return f"{text} {_not(leaf.negated)}IN ({', '.join(values)})"
    if isinstance(leaf, Between):
        return f"({text} {_not(leaf.negated)}BETWEEN {values[0]} AND {values[1]})"
    return f"{_not(leaf.negated)}contains({text}, {values[0]})"


def _like(text: str, leaf: Like, parameters: Parameters) -> str:
    """Return the condition of a LIKE that is not negated. DuckDB's own LIKE may take exponential time."""
    if not leaf.ignore_case:
        runs = [literal_text(run) for run in split_pattern(leaf.pattern)]
        literals = [run for run in runs if run is not None]
        if len(literals) == len(runs) and (simple := _simple_like(text, literals, parameters)):
            return simple
    return _matches(text, pattern_to_regex(leaf.pattern, ignore_case=leaf.ignore_case), parameters)


def _simple_like(text: str, runs: list[str], parameters: Parameters) -> str | None:
    """Return the condition of a pattern that needs no regular expression, None if it needs one."""
    if len(runs) == 1:
        return f"({text} = {parameters.text(runs[0])})"
    if len(runs) == 2 and not runs[1]:
        return f"starts_with({text}, {parameters.text(runs[0])})"
    if len(runs) == 2 and not runs[0]:
        return f"ends_with({text}, {parameters.text(runs[1])})"
    if len(runs) == 3 and not runs[0] and not runs[2]:
        return f"contains({text}, {parameters.text(runs[1])})"
    return None


def _matches(text: str, pattern: str, parameters: Parameters) -> str:
    if is_portable(pattern):
        return f"regexp_matches({text}, {parameters.text(pattern)})"
    # Any field of text will do: the function puts the text there.
    expression = print_filter(Matches(Field("type"), pattern))
    return f"{HOLDS_FUNCTION}({text}, {parameters.text(expression)})"


def _not(negated: bool) -> str:  # noqa: FBT001 — a field of a leaf
    return "NOT " if negated else ""
