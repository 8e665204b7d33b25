"""Comparisons of the values of a batch, made once for each distinct value. Pure."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from shared.columns.arrow import StringArray
from shared.columns.arrow import compute as pc
from shared.filters.event_batch import Mask, Values
from shared.filters.patterns import pattern_to_regex
from shared.filters.regular_expressions import is_portable
from shared.filters.tree import Comparison, Contains, In, Leaf, Like, Matches, Text, values_of
from shared.filters.value_tests import Test, test_of

# Says for which of some texts a comparison holds.
Search: TypeAlias = Callable[[list[str]], Mask]

# For so many texts, Arrow compiles a regular expression anew in less time than Python takes to pass them one by one.
_ARROW_TEXTS_MIN = 128


def comparer(leaf: Leaf) -> Callable[[Values], Mask]:
    """Compile a comparison of values that tests can tell without exact numbers."""
    texts = looked_up_texts(leaf)
    if texts is not None:
        return lambda values: _is_one_of(values, texts)
    if not isinstance(leaf, Like | Matches):
        test = test_of(leaf)
        return lambda values: by_value(values, test)
    search = text_search(leaf)

    def compare(values: Values) -> Mask:
        # For all that is no text it does not hold.
        table = np.zeros(len(values.distinct), np.bool_)
        table[list(values.texts.values())] = search(list(values.texts))
        found: Mask = table[values.codes]
        return found

    return compare


def text_search(leaf: Contains | Like | Matches) -> Search:
    """Compile a comparison of strings to one of many at once."""
    if isinstance(leaf, Contains):
        assert isinstance(leaf.value, Text), "the checks let no other literal pass"
        part = leaf.value.value
        return lambda texts: np.array([(part in text) is not leaf.negated for text in texts], np.bool_)
    test = test_of(leaf)
    regex = pattern_to_regex(leaf.pattern, ignore_case=leaf.ignore_case) if isinstance(leaf, Like) else leaf.pattern
    arrow_finds_the_same = is_portable(regex)

    def search(texts: list[str]) -> Mask:
        column = _column_of(texts) if arrow_finds_the_same and len(texts) >= _ARROW_TEXTS_MIN else None
        if column is None:
            return np.array([test(text) for text in texts], np.bool_)
        found: Mask = pc.match_substring_regex(column, regex).to_numpy(zero_copy_only=False)
        return ~found if leaf.negated else found

    return search


def by_value(values: Values, test: Test) -> Mask:
    """Test each distinct value."""
    table = np.array([bool(test(value)) for value in values.distinct], np.bool_)
    found: Mask = table[values.codes]
    return found


def looked_up_texts(leaf: Leaf) -> list[str] | None:
    """Return the texts one of which the comparison wants, None if it is another comparison."""
    if not isinstance(leaf, Comparison | In):
        return None
    wants_equal = leaf.operator == "=" if isinstance(leaf, Comparison) else not leaf.negated
    texts = [value.value for value in values_of(leaf) if isinstance(value, Text)]
    return texts if wants_equal and len(texts) == len(values_of(leaf)) else None


def _is_one_of(values: Values, texts: list[str]) -> Mask:
    places = [values.texts[text] for text in texts if text in values.texts]
    if len(places) == 1:
        found: Mask = values.codes == places[0]
        return found
    return np.isin(values.codes, places)


def _column_of(texts: list[str]) -> StringArray | None:
    """Return the texts as a column, None where one is half a surrogate pair, which Arrow does not take."""
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return None
