"""The bytes of text columns, looked at without a call to Arrow for each question.

A call to an Arrow function costs some ten microseconds whatever the number of rows, which is most of the
time that a small frame takes; these views cost one.
"""

from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import Array, BooleanArray, StringArray


def value_offsets(column: Array) -> npt.NDArray[np.int32]:
    """Where each value of a string, binary or list column begins in its data; one more than there are rows."""
    offsets = np.frombuffer(column.buffers()[1] or b"\0\0\0\0", np.int32)
    return offsets[column.offset : column.offset + len(column) + 1]


def value_lengths(column: Array) -> npt.NDArray[np.int32]:
    """Bytes (or elements) of each value of a string, binary or list column; 0 for nulls."""
    offsets = value_offsets(column)
    lengths = offsets[1:] - offsets[:-1]
    if column.null_count:
        lengths = np.where(is_valid(column), lengths, 0)
    return lengths


def is_valid(column: Array) -> npt.NDArray[np.bool_]:
    """Which values are not null."""
    if column.null_count == 0:
        return np.ones(len(column), np.bool_)
    bits = np.unpackbits(np.frombuffer(column.buffers()[0], np.uint8), bitorder="little")
    return cast("npt.NDArray[np.bool_]", bits[column.offset : column.offset + len(column)].astype(np.bool_))


def first_bytes(column: StringArray) -> npt.NDArray[np.uint8]:
    """First byte of each value of a string column; 0 for what is empty or null."""
    offsets = value_offsets(column)
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    firsts = np.zeros(len(column), np.uint8)
    filled = value_lengths(column) > 0
    firsts[filled] = data[offsets[:-1][filled]]
    return firsts


def boolean_array(mask: npt.NDArray[np.bool_]) -> BooleanArray:
    """A mask as an Arrow column."""
    bits = np.packbits(mask, bitorder="little")
    return pa.BooleanArray.from_buffers(pa.bool_(), len(mask), [None, pa.py_buffer(bits.data)])
