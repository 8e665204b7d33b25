"""The syntax tree of a filter: immutable, comparable, hashable values. Pure.

Invariants:
- Two trees are equal exactly if they have the same shape and values; numbers are equal by value.
- And and Or have at least two operands.
- A literal has the type that its class says, so that TRUE is not 1.
- A tree from the parser or from the structured form makes sense: each operator can hold for its field,
  and what is compared with a time is an Instant or a Now.

What the nodes mean: a comparison with a missing value, or with a value of another type, is false, also
when it is negated (`!=`, NOT LIKE). Only Not turns false into true.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]
FieldName: TypeAlias = Literal[
    "id",
    "position",
    "timestamp",
    "recorded_at",
    "type",
    "source",
    "correlation_id",
    "metadata.host",
    "metadata.version",
    "metadata.user",
    "metadata.session_id",
    "metadata.tags",
    "payload",
]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an event. `path` is for the payload only: keys, and indexes of arrays from 0."""

    name: FieldName
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A string, which is Unicode: no half surrogate pairs."""

    value: str


@dataclass(frozen=True, slots=True)
class Number:
    """A number, exact and finite."""

    value: Decimal


@dataclass(frozen=True, slots=True)
class Boolean:
    """TRUE or FALSE."""

    value: bool


@dataclass(frozen=True, slots=True)
class Instant:
    """A time in nanoseconds since the epoch; of 64 bits."""

    ns: int


@dataclass(frozen=True, slots=True)
class Now:
    """now(), moved by an offset in nanoseconds."""

    offset_ns: int = 0


Value: TypeAlias = Text | Number | Boolean | Instant | Now


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field compared with a literal."""

    field: Field
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class Like:
    r"""Whether a string as a whole fits a pattern: * any run of characters, ? one character, \ escapes."""

    field: Field
    pattern: str
    ignore_case: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Contains:
    """Whether a string holds a string, or an array has an element."""

    field: Field
    value: Value
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Matches:
    """Whether an RE2 regular expression is found anywhere in a string."""

    field: Field
    pattern: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class In:
    """Whether a field equals one of some literals.

    Negated: it has the type of at least one of them, and equals none.
    """

    field: Field
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Between:
    """Whether a field lies between two literals of the same type, both included."""

    field: Field
    low: Value
    high: Value
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether a field is missing or JSON null."""

    field: Field
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether a field is there; JSON null is there."""

    field: Field


@dataclass(frozen=True, slots=True)
class Everything:
    """Holds for every event: the empty expression."""


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    operand: "Tree"


@dataclass(frozen=True, slots=True)
class And:
    """All of at least two."""

    operands: tuple["Tree", ...]

    def __post_init__(self) -> None:
        assert len(self.operands) >= 2


@dataclass(frozen=True, slots=True)
class Or:
    """Any of at least two."""

    operands: tuple["Tree", ...]

    def __post_init__(self) -> None:
        assert len(self.operands) >= 2


Leaf: TypeAlias = Comparison | Like | Contains | Matches | In | Between | IsNull | Exists
Tree: TypeAlias = Leaf | Everything | Not | And | Or


def leaves(tree: Tree) -> Iterator[Leaf]:
    """Yield the comparisons of a tree from left to right."""
    if isinstance(tree, Not):
        yield from leaves(tree.operand)
    elif isinstance(tree, And | Or):
        for operand in tree.operands:
            yield from leaves(operand)
    elif not isinstance(tree, Everything):
        yield tree


def values_of(leaf: Leaf) -> tuple[Value, ...]:
    """Return the literals of a comparison, patterns aside."""
    if isinstance(leaf, Comparison | Contains):
        return (leaf.value,)
    if isinstance(leaf, In):
        return leaf.values
    if isinstance(leaf, Between):
        return (leaf.low, leaf.high)
    return ()


def uses_now(tree: Tree) -> bool:
    """Return whether the tree means something else at another time."""
    return any(isinstance(value, Now) for leaf in leaves(tree) for value in values_of(leaf))


def all_of(trees: list[Tree]) -> Tree:
    """Return the tree that holds where all of the trees hold."""
    wanted = [tree for tree in trees if tree != Everything()]
    if not wanted:
        return Everything()
    return wanted[0] if len(wanted) == 1 else And(tuple(wanted))


def any_of(trees: list[Tree]) -> Tree:
    """Return the tree that holds where any of the trees holds; there is at least one."""
    return trees[0] if len(trees) == 1 else Or(tuple(trees))
