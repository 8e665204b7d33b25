"""Texts as cells of CSV, column by column: guarded against formulas, quoted where needed, joined to rows.

A spreadsheet takes a cell for a formula that begins with = + - @ (or their full-width forms), or with a tab or a
line break before one. Such a cell gets an apostrophe in front, which spreadsheets take for "this is text".
Plain numbers such as -5 and +1.5e3 are left alone: they are nothing but numbers.
"""

from collections.abc import Callable, Sequence

import numpy as np

from query_service.exporters.column_text import found, joined, joined_bytes
from shared.columns.arrow import BooleanArray, StringArray
from shared.columns.arrow import compute as pc
from shared.columns.bytes_view import boolean_array, first_bytes
from shared.columns.constants import constant

_FORMULA = r"^[=+\-@\t\r\n\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}]"
# First bytes of those; that of the full-width forms begins other characters too.
_FORMULA_BYTES = np.frombuffer(b"=+-@\t\r\n\xef", np.uint8)
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_QUOTED = r'[",\r\n]|^$'


def cells(texts: StringArray) -> StringArray:
    """Cells of texts; empty for null, "" for an empty text."""
    texts = _where(texts, _formulas(texts), lambda formulas: joined("'", formulas))
    quoted = found(texts, _QUOTED)
    return pc.fill_null(_where(texts, quoted, _quote), constant(""))


def rows(columns: Sequence[StringArray]) -> bytes:
    """Rows of cells, each with its line break."""
    lines = pc.binary_join_element_wise(*columns, constant(","))
    return joined_bytes(lines, "\r\n")


def _formulas(texts: StringArray) -> BooleanArray:
    suspects = np.isin(first_bytes(texts), _FORMULA_BYTES)
    if not suspects.any():
        return boolean_array(suspects)
    return pc.and_not(found(texts, _FORMULA), found(texts, _NUMBER))


def _quote(texts: StringArray) -> StringArray:
    return joined('"', pc.replace_substring(texts, '"', '""'), '"')


def _where(texts: StringArray, mask: BooleanArray, change: Callable[[StringArray], StringArray]) -> StringArray:
    """Texts, changed where the mask says so."""
    if not pc.any(mask).as_py():
        return texts
    if pc.all(mask).as_py():
        return change(texts)
    return pc.replace_with_mask(texts, mask, change(texts.filter(mask)))
