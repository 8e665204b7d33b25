"""The quick views of columns say what Arrow itself says, for slices and nulls too."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from shared.columns.bytes_view import boolean_array, first_bytes, is_valid, value_lengths, value_offsets
from shared.columns.constants import constant

_COLUMNS = st.lists(st.one_of(st.none(), st.text("aü{", max_size=3)), max_size=20)


@given(_COLUMNS, st.integers(0, 20), st.integers(0, 20))
def test_views_of_texts_agree_with_arrow(values: list[str | None], skip: int, count: int) -> None:
    """Lengths, validity and first bytes are right in any slice of a column."""
    column = pa.array(values, pa.string()).slice(skip, count)
    values = values[skip : skip + count]
    texts = ["" if value is None else value for value in values]
    assert value_lengths(column).tolist() == pc.fill_null(pc.binary_length(column), 0).to_pylist()
    assert is_valid(column).tolist() == [value is not None for value in values]
    assert first_bytes(column).tolist() == [(text.encode() or b"\0")[0] for text in texts]
    assert len(value_offsets(column)) == len(column) + 1


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=3)), max_size=10), st.integers(0, 10))
def test_lengths_of_lists_agree_with_arrow(values: list[list[int] | None], skip: int) -> None:
    """Lists count their elements, null lists none."""
    column = pa.array(values, pa.list_(pa.int64())).slice(skip)
    assert value_lengths(column).tolist() == [len(value or []) for value in values[skip:]]


@given(st.lists(st.booleans(), max_size=40))
def test_a_mask_becomes_a_column(mask: list[bool]) -> None:
    """Any number of bits, none of them null."""
    column = boolean_array(np.array(mask, np.bool_))
    column.validate(full=True)
    assert column.to_pylist() == mask


def test_constants_keep_their_type() -> None:
    """Values that are equal in Python are different scalars."""
    assert constant(0).type == pa.int64()
    assert constant(value=False).type == pa.bool_()
    assert constant(0) is constant(0)
