"""Makes the syntax tree of what the grammar finds. Pure.

Invariant: what it gives is a tree as `tree` describes it, within the limits of nesting and of each
comparison by itself. The limits of the whole expression are the parser's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from lark import Token, Transformer, v_args

from shared.filters.checks import (
    check_leaf,
    check_like_pattern,
    check_regex,
    parse_field,
    parse_now,
    parse_number,
    value_for,
)
from shared.filters.limits import LIST_VALUES_MAX, NESTING_MAX
from shared.filters.problems import FilterProblem, PlacedProblem
from shared.filters.tree import (
    And,
    Between,
    Boolean,
    Comparison,
    Contains,
    Everything,
    Exists,
    Field,
    In,
    IsNull,
    Leaf,
    Like,
    Matches,
    Not,
    Operator,
    Or,
    Text,
    Tree,
    Value,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_OPERATORS: dict[str, Operator] = {"=": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the tree, and how deeply parentheses and NOT are nested in it."""

    tree: Tree
    depth: int = 0


@dataclass(frozen=True, slots=True)
class _Literal:
    """A literal where it stands. None: NULL, which nothing compares with."""

    value: Value | None
    token: Token


@v_args(inline=True)
class SyntaxCallbacks(Transformer[Token, Part]):
    """What the parser calls for each rule of the grammar, innermost first. Has no state."""

    def start(self, part: Part | None = None) -> Part:
        """Return the whole."""
        return part or Part(Everything())

    def disjunction(self, *parts: Part) -> Part:
        """Join by OR."""
        return _join(Or, parts)

    def conjunction(self, *parts: Part) -> Part:
        """Join by AND."""
        return _join(And, parts)

    def negation(self, token: Token, part: Part) -> Part:
        """Take the opposite."""
        return Part(Not(part.tree), _deeper(token, part))

    def group(self, token: Token, part: Part) -> Part:
        """Look at parentheses, which leave nothing in the tree."""
        return Part(part.tree, _deeper(token, part))

    def comparison(self, field: Token, operator: Token, literal: _Literal) -> Part:
        """Compare."""
        known = _field(field)
        return _leaf(field, Comparison(known, _OPERATORS[operator], _value(known, literal)))

    def like(self, field: Token, negation: Token | None, keyword: Token, string: Token) -> Part:
        """Match a pattern, with or without regard to case."""
        pattern = _unquote(string)
        _at(string, check_like_pattern, pattern)
        ignore_case = keyword.type == "ILIKE"
        return _leaf(field, Like(_field(field), pattern, ignore_case=ignore_case, negated=negation is not None))

    def contains(self, field: Token, negation: Token | None, _keyword: Token, literal: _Literal) -> Part:
        """Look for a substring or an element."""
        known = _field(field)
        # Whether the operator can hold at all is said before whether the literal fits.
        _at(field, check_leaf, Contains(known, literal.value or Text("")))
        return _leaf(field, Contains(known, _value(known, literal), negated=negation is not None))

    def matches(self, field: Token, negation: Token | None, _keyword: Token, string: Token) -> Part:
        """Search for a regular expression."""
        pattern = _unquote(string)
        _at(string, check_regex, pattern)
        return _leaf(field, Matches(_field(field), pattern, negated=negation is not None))

    def in_list(
        self, field: Token, negation: Token | None, _keyword: Token, _bracket: Token, *literals: _Literal
    ) -> Part:
        """Look for the value in a list."""
        if len(literals) > LIST_VALUES_MAX:
            problem = FilterProblem(
                f"the list has {len(literals)} values, at most {LIST_VALUES_MAX} are allowed: ask several times",
                reason="FILTER_LIST_TOO_LONG",
                limit=LIST_VALUES_MAX,
            )
            raise _placed(literals[LIST_VALUES_MAX].token, problem)
        known = _field(field)
        return _leaf(
            field, In(known, tuple(_value(known, literal) for literal in literals), negated=negation is not None)
        )

    def between(self, field: Token, negation: Token | None, _keyword: Token, low: _Literal, high: _Literal) -> Part:
        """Look whether the value lies between two others."""
        known = _field(field)
        leaf = Between(known, _value(known, low), _value(known, high), negated=negation is not None)
        return _leaf(field, leaf)

    def is_null(self, field: Token, _keyword: Token, negation: Token | None, _null: Token) -> Part:
        """Look whether there is no value."""
        return _leaf(field, IsNull(_field(field), negated=negation is not None))

    def exists(self, field: Token) -> Part:
        """Look whether there is a key."""
        return _leaf(field, Exists(_field(field)))

    def string(self, token: Token) -> _Literal:
        """Read a string."""
        return _Literal(Text(_unquote(token)), token)

    def number(self, token: Token) -> _Literal:
        """Read a number."""
        return _Literal(_at(token, parse_number, str(token)), token)

    def boolean(self, token: Token) -> _Literal:
        """Read TRUE or FALSE."""
        return _Literal(Boolean(token.type == "TRUE"), token)

    def null(self, token: Token) -> _Literal:
        """Take note of a NULL."""
        return _Literal(None, token)

    def now(self, token: Token, sign: Token | None, duration: Token | None) -> _Literal:
        """Read now() and what is added to it."""
        return _Literal(_at(duration or token, parse_now, sign, duration), token)


def _join(kind: type[And | Or], parts: tuple[Part, ...]) -> Part:
    if len(parts) == 1:
        return parts[0]
    return Part(kind(tuple(part.tree for part in parts)), max(part.depth for part in parts))


def _deeper(token: Token, part: Part) -> int:
    if part.depth == NESTING_MAX:
        problem = FilterProblem(
            f"parentheses and NOT are nested deeper than {NESTING_MAX} levels: write fewer",
            reason="FILTER_TOO_DEEP",
            limit=NESTING_MAX,
        )
        raise _placed(token, problem)
    return part.depth + 1


def _leaf(field: Token, leaf: Leaf) -> Part:
    _at(field, check_leaf, leaf)
    return Part(leaf)


def _field(token: Token) -> Field:
    return _at(token, parse_field, str(token))


def _value(field: Field, literal: _Literal) -> Value:
    if literal.value is None:
        problem = FilterProblem(
            "nothing compares with NULL; write IS NULL or IS NOT NULL", expected="IS NULL or IS NOT NULL"
        )
        raise _placed(literal.token, problem)
    return _at(literal.token, value_for, field, literal.value)


def _unquote(token: Token) -> str:
    quote = token[0]
    return token[1:-1].replace(quote * 2, quote)


def _at(token: Token, check: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function, and say of its problem that it is at a token."""
    try:
        return check(*args, **kwargs)
    except FilterProblem as problem:
        raise _placed(token, problem) from problem


def _placed(token: Token, problem: FilterProblem) -> PlacedProblem:
    return PlacedProblem(problem, token.start_pos or 0, len(token))
