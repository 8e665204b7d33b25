"""Comparisons of the id, which is not stored, as SQL conditions on the position. Pure."""

from shared.events.ids import ALPHABET, POSITION_CHARACTERS, PREFIX
from shared.filters.id_positions import about_positions
from shared.filters.sql_numbers import UBIGINT, IntegerColumn
from shared.filters.sql_parameters import Parameters, quote_identifier
from shared.filters.sql_text import text_condition_once
from shared.filters.tree import Leaf


def id_condition(leaf: Leaf, log_id: str, parameters: Parameters) -> str:
    """Return the condition of a comparison other than IS NULL and EXISTS on the id."""
    by_position = about_positions(leaf, log_id)
    if by_position is None:
        return text_condition_once(_id_text(log_id, parameters), leaf, parameters)
    return IntegerColumn(quote_identifier("position"), UBIGINT, parameters).condition(by_position)


def _id_text(log_id: str, parameters: Parameters) -> str:
    """Return the id as an expression, for what is not about order."""
    alphabet = parameters.text(ALPHABET)
    digits = [
        f"({alphabet})[((position >> {5 * place}::UBIGINT) & 31::UBIGINT)::INTEGER + 1]"
        for place in reversed(range(POSITION_CHARACTERS))
    ]
    return f"concat({parameters.text(PREFIX + log_id)}, {', '.join(digits)})"
