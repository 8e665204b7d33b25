"""Whether the numbers of a payload mean exactly the doubles that DuckDB reads them as.

A number is exact if the shortest decimal text that names its double has the value that the payload
says: 0.1, 1.50 and 1e23 are exact, 0.1000000000000000055 is not. Only exact numbers may be promoted,
because a filter must not find by the column what it would not find by the text.

DuckDB's json_extract gives the shortest text. What the payload says can differ from it only where a
number has 16 digits or more, or an exponent beyond the range of doubles. Such rows are found by one
regular expression, nearly all of them are cleared by comparing the text after the key with DuckDB's,
and the few that are left are read one by one.
"""

import json
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import StringArray
from shared.columns.arrow import compute as pc
from shared.log.json_path import JsonPath

# Rows of one call that are read one by one. With more, the numbers count as inexact.
SLOW_ROWS_MAX = 5_000

_HARMLESS_KEY = re.compile(r"""[^\x00-\x1f"\\/,:\[\]{}]+""")
_SUSPICIOUS = r"[0-9.]{16}|[0-9][eE][-+]?[0-9]{3}"


def suspicious_rows(payloads: StringArray) -> npt.NDArray[np.bool_]:
    """Return for each payload whether it may hold a number that its double does not mean exactly."""
    return np.asarray(pc.match_substring_regex(payloads, _SUSPICIOUS))


def doubles_are_exact(path: JsonPath, *, payloads: StringArray, found: StringArray) -> bool:
    """Return whether every number under a path means exactly its double.

    `payloads` are the suspicious rows that hold a number there, `found` what json_extract found in each.
    """
    if len(payloads) == 0:
        return True
    slow = ~_cleared_by_text(path, payloads, found)
    if np.count_nonzero(slow) > SLOW_ROWS_MAX:
        return False
    mask = pa.array(slow)
    pairs = zip(payloads.filter(mask).to_pylist(), found.filter(mask).to_pylist(), strict=True)
    return all(_is_exact(path, str(payload), str(text)) for payload, text in pairs)


def _cleared_by_text(path: JsonPath, payloads: StringArray, found: StringArray) -> npt.NDArray[np.bool_]:
    r"""Return for which rows the payload's text after the key is the text that was found.

    It is where the text has the quoted key once, outside of strings, and no other spelling of it:
    - a key of harmless characters can be spelled differently only with a \u escape;
    - inside a string a quotation mark has a backslash in front, and between two strings there is always
      a comma, colon or bracket, so what begins with a brace, comma or blank and a quotation mark and
      ends with a quotation mark and a colon is a key.
    """
    if not _HARMLESS_KEY.fullmatch(path[-1]):
        return np.zeros(len(payloads), np.bool_)
    key = f'[{{,\\s]"{re.escape(path[-1])}"\\s*:\\s*'
    escaped = np.asarray(pc.match_substring(payloads, "\\u"))
    once = np.asarray(pc.count_substring_regex(payloads, key)) == 1
    numbers = pc.struct_field(pc.extract_regex(payloads, f"{key}(?P<number>-?[0-9][-+.0-9eE]*)"), "number")
    same = np.asarray(pc.fill_null(pc.equal(numbers, found), False))  # noqa: FBT003
    cleared: npt.NDArray[np.bool_] = ~escaped & once & same
    return cleared


def _is_exact(path: JsonPath, payload: str, found: str) -> bool:
    """Read one payload with its numbers as text, and compare the values."""
    try:
        value: Any = json.loads(
            payload, object_pairs_hook=_first_wins, parse_float=str, parse_int=str, parse_constant=str
        )
        for key in path:
            value = value[key]
        return Decimal(value) == Decimal(found)
    except (ValueError, KeyError, TypeError, InvalidOperation, RecursionError):
        return False


def _first_wins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object whose duplicate keys have their first value, as DuckDB reads them."""
    return dict(reversed(pairs))
