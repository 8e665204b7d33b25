"""Comparisons of the id, which is not stored, as SQL conditions on the position. Pure.

Ids of one log sort like their positions, so an order of ids is an order of positions.
"""

from decimal import Decimal

from shared.errors import EventValidationException
from shared.events.ids import ALPHABET, POSITION_CHARACTERS, POSITION_MAX, PREFIX, format_event_id, parse_event_id
from shared.filters.patterns import exact_text
from shared.filters.sql_numbers import UBIGINT, IntegerColumn
from shared.filters.sql_parameters import Parameters
from shared.filters.sql_text import text_condition
from shared.filters.tree import Between, Comparison, Field, In, Leaf, Like, Number, Operator, Text, Value

_POSITION = Field("position")


def id_condition(leaf: Leaf, log_id: str, parameters: Parameters) -> str:
    """Return the condition of a comparison other than IS NULL and EXISTS on the id."""
    if isinstance(leaf, Like) and not leaf.ignore_case and (text := exact_text(leaf.pattern)) is not None:
        leaf = Comparison(leaf.field, "!=" if leaf.negated else "=", Text(text))
    if isinstance(leaf, Comparison):
        by_position = _comparison(leaf, log_id)
    elif isinstance(leaf, In):
        by_position = _in(leaf, log_id)
    elif isinstance(leaf, Between):
        by_position = _between(leaf, log_id)
    else:
        return text_condition(_id_text(log_id, parameters), leaf, parameters)
    if by_position is None:
        return "FALSE"
    return IntegerColumn('"position"', UBIGINT, parameters).condition(by_position)


def position_of(log_id: str, text: str) -> int | None:
    """Return the position that an id of this log names, None if the text is no id of it."""
    try:
        found_log_id, position = parse_event_id(text)
    except EventValidationException:
        return None
    return position if found_log_id == log_id else None


def first_position_from(log_id: str, text: str, *, after: bool = False) -> int:
    """Return the smallest position whose id is at least a text, or after it; 2**64 if there is none."""
    low, high = 1, POSITION_MAX + 1
    while low < high:
        middle = (low + high) // 2
        found = format_event_id(log_id, middle)
        if found < text or (after and found == text):
            low = middle + 1
        else:
            high = middle
    return low


def position_comparison(log_id: str, operation: Operator, value: Value) -> Comparison | None:
    """Return the comparison of the position that means the same as one of the id, None if none holds."""
    if not isinstance(value, Text):
        return None
    text = value.value
    if operation in {"=", "!="}:
        # There is no position 0, so nothing equals it.
        position = position_of(log_id, text) or 0
        return Comparison(_POSITION, operation, Number(Decimal(position)))
    boundary = first_position_from(log_id, text, after=operation in {"<=", ">"})
    return Comparison(_POSITION, "<" if operation[0] == "<" else ">=", Number(Decimal(boundary)))


def _comparison(leaf: Comparison, log_id: str) -> Leaf | None:
    return position_comparison(log_id, leaf.operator, leaf.value)


def _in(leaf: In, log_id: str) -> Leaf | None:
    texts = [value.value for value in leaf.values if isinstance(value, Text)]
    positions = [Number(Decimal(position_of(log_id, text) or 0)) for text in texts]
    return In(_POSITION, tuple(positions), negated=leaf.negated) if positions else None


def _between(leaf: Between, log_id: str) -> Leaf | None:
    if not isinstance(leaf.low, Text) or not isinstance(leaf.high, Text):
        return None
    low = Number(Decimal(first_position_from(log_id, leaf.low.value)))
    high = Number(Decimal(first_position_from(log_id, leaf.high.value, after=True) - 1))
    return Between(_POSITION, low, high, negated=leaf.negated)


def _id_text(log_id: str, parameters: Parameters) -> str:
    """Return the id as an expression, for what is not about order."""
    alphabet = parameters.text(ALPHABET)
    digits = [
        f"{alphabet}[(({'"position"'} >> {5 * place}::UBIGINT) & 31::UBIGINT)::INTEGER + 1]"
        for place in reversed(range(POSITION_CHARACTERS))
    ]
    return f"concat({parameters.text(PREFIX + log_id)}, {', '.join(digits)})"
