"""Ids of one log as positions: what a comparison of the id says of the position. Pure.

Ids of one log sort like their positions, so an order of ids is an order of positions.
"""

from decimal import Decimal

from shared.errors import EventValidationException
from shared.events.ids import POSITION_MAX, format_event_id, parse_event_id
from shared.filters.patterns import exact_text, literal_prefix, literal_text, prefix_end, split_pattern
from shared.filters.tree import Between, Comparison, Field, In, Leaf, Like, Number, Operator, Text

_POSITION = Field("position")


def about_positions(leaf: Leaf, log_id: str) -> Leaf | None:
    """Return the comparison of the position that holds for the same events of the log; None if there is none."""
    if isinstance(leaf, Comparison):
        return _compare(leaf.operator, leaf.value.value, log_id) if isinstance(leaf.value, Text) else _nowhere()
    if isinstance(leaf, In):
        texts = [value.value for value in leaf.values if isinstance(value, Text)]
        positions = [_number(_position_of(text, log_id)) for text in texts]
        return In(_POSITION, tuple(positions), negated=leaf.negated) if positions else _nowhere()
    if isinstance(leaf, Between):
        if not isinstance(leaf.low, Text) or not isinstance(leaf.high, Text):
            return _nowhere()
        first = _first_from(leaf.low.value, log_id)
        last = _first_from(leaf.high.value, log_id, after=True) - 1
        return Between(_POSITION, _number(first), _number(last), negated=leaf.negated)
    return _like(leaf, log_id) if isinstance(leaf, Like) and not leaf.ignore_case else None


def _like(leaf: Like, log_id: str) -> Leaf | None:
    """Return the comparison for a pattern that is one text, or one that only says how ids begin."""
    if (text := exact_text(leaf.pattern)) is not None:
        return _compare("!=" if leaf.negated else "=", text, log_id)
    runs, prefix = split_pattern(leaf.pattern), literal_prefix(leaf.pattern)
    end = prefix_end(prefix)
    if len(runs) != 2 or runs[1] or literal_text(runs[0]) != prefix or end is None:
        return None
    first, last = _first_from(prefix, log_id), _first_from(end, log_id) - 1
    return Between(_POSITION, _number(first), _number(last), negated=leaf.negated)


def _compare(operator: Operator, text: str, log_id: str) -> Leaf:
    if operator in {"=", "!="}:
        return Comparison(_POSITION, operator, _number(_position_of(text, log_id)))
    boundary = _first_from(text, log_id, after=operator in {"<=", ">"})
    return Comparison(_POSITION, "<" if operator[0] == "<" else ">=", _number(boundary))


def _nowhere() -> Leaf:
    """Return a comparison that never holds: positions start at 1."""
    return Comparison(_POSITION, "=", _number(0))


def _number(position: int) -> Number:
    return Number(Decimal(position))


def _position_of(text: str, log_id: str) -> int:
    """Return the position that an id of this log names, 0 if the text is no id of it."""
    try:
        found_log_id, position = parse_event_id(text)
    except EventValidationException:
        return 0
    return position if found_log_id == log_id else 0


def _first_from(text: str, log_id: str, *, after: bool = False) -> int:
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
