r"""Searches of the whole payload, as compact JSON text, as SQL conditions. Pure.

The stored text may have white space between tokens. Where that cannot matter, the stored text itself is
searched; where it can, a Python function takes out the white space first, for those rows that have any.

When it cannot matter: in compact JSON, two scalars always have one of `{}[],:` between them, and stored
white space always has one beside it. So a text without these characters, which neither begins nor ends
with white space, is found in the compact text exactly if it is found in the stored one: inside a scalar.
"""

import re

from shared.filters.printer import print_filter
from shared.filters.sql_parameters import HOLDS_FUNCTION, Parameters
from shared.filters.sql_text import is_portable_leaf
from shared.filters.tree import Contains, Leaf, Matches, Text

_WHITE_SPACE = " \t\r\n"
_STRUCTURE = re.compile(r"[{}\[\],:]")
# Stored white space that may be outside of strings.
_MAY_BE_SPACED = r"[{}\[\],:][ \t\r\n]|[ \t\r\n][{}\[\],:]"


def whole_payload_condition(leaf: Leaf, parameters: Parameters) -> str:
    """Return the condition of CONTAINS or MATCHES on the payload: TRUE or FALSE."""
    ask_python = f"{HOLDS_FUNCTION}(payload, {parameters.text(print_filter(leaf))})"
    sign = ""
    if isinstance(leaf, Matches):
        if not is_portable_leaf(leaf):
            return ask_python
        in_stored = f"regexp_matches(payload, {parameters.text(leaf.pattern)})"
        first = ""
    else:
        assert isinstance(leaf, Contains)
        assert isinstance(leaf.value, Text)
        text = leaf.value.value
        in_stored = f"contains(payload, {parameters.text(text)})"
        pieces = [piece.strip(_WHITE_SPACE) for piece in _STRUCTURE.split(text)]
        if pieces == [text]:
            return f"{'NOT ' if leaf.negated else ''}{in_stored}"
        longest = max(pieces, key=len)
        # Without a part of it, the whole is not there, either.
        first = f"NOT contains(payload, {parameters.text(longest)})" if longest else ""
    sign = "NOT " if leaf.negated else ""
    absent = f"WHEN {first} THEN {'TRUE' if leaf.negated else 'FALSE'} " if first else ""
    spaced = f"WHEN regexp_matches(payload, '{_MAY_BE_SPACED}') THEN {ask_python}"
    return f"CASE {absent}{spaced} ELSE {sign}{in_stored} END"
