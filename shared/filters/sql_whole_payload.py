r"""Searches of the whole payload, as compact JSON text, as SQL conditions. Pure.

The stored text may have white space between tokens. Where that cannot matter, the stored text itself is
searched. Where it can, DuckDB takes the white space out, if it would change nothing else: it spells
escapes and numbers with a fraction or an exponent in its own way. A Python function does the rest.

When it cannot matter: in compact JSON, two scalars always have one of `{}[],:` between them, and stored
white space always has one beside it. So a text without these characters, which neither begins nor ends
with white space, is found in the compact text exactly if it is found in the stored one: inside a scalar.
"""

import re

from shared.filters.printer import print_filter
from shared.filters.sql_parameters import COMPACT_FUNCTION, HOLDS_FUNCTION, Parameters
from shared.filters.sql_text import is_portable_leaf
from shared.filters.tree import Contains, Leaf, Matches, Text

_WHITE_SPACE = " \t\r\n"
_STRUCTURE = re.compile(r"[{}\[\],:]")
# Stored white space that may be outside of strings.
_MAY_BE_SPACED = r"[{}\[\],:][ \t\r\n]|[ \t\r\n][{}\[\],:]"
# What DuckDB may spell in another way.
_MAY_BE_RESPELLED = r"\\|[0-9][.eE]|-0"

_COMPACT = f"""CASE
WHEN NOT regexp_matches(payload, '{_MAY_BE_SPACED}') THEN payload
WHEN regexp_matches(payload, '{_MAY_BE_RESPELLED}') THEN {COMPACT_FUNCTION}(payload)
ELSE COALESCE(TRY(json(payload)::VARCHAR), {COMPACT_FUNCTION}(payload))
END"""


def whole_payload_condition(leaf: Leaf, parameters: Parameters) -> str:
    """Return the condition of CONTAINS or MATCHES on the payload: TRUE or FALSE."""
    if isinstance(leaf, Matches):
        if not is_portable_leaf(leaf):
            return f"{HOLDS_FUNCTION}(payload, {parameters.text(print_filter(leaf))})"
        found = f"regexp_matches({_COMPACT}, {parameters.text(leaf.pattern)})"
    else:
        assert isinstance(leaf, Contains), "the checks let no other operator pass"
        assert isinstance(leaf.value, Text), "the checks let no other literal pass"
        found = _contains(leaf.value.value, parameters)
    return f"NOT {found}" if leaf.negated else found


def _contains(text: str, parameters: Parameters) -> str:
    pieces = [piece.strip(_WHITE_SPACE) for piece in _STRUCTURE.split(text)]
    if pieces == [text]:
        return f"contains(payload, {parameters.text(text)})"
    in_compact = f"contains({_COMPACT}, {parameters.text(text)})"
    longest = max(pieces, key=len)
    # Without a part of it, the whole is not there, either.
    return f"(contains(payload, {parameters.text(longest)}) AND {in_compact})" if longest else in_compact
