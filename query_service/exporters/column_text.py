"""Columns of events as text: times, JSON strings, JSON arrays of tags; without Python for each event."""

from typing import Literal

import numpy as np
import orjson
import pyarrow as pa

from shared.columns.arrow import Array, BooleanArray, ListArray, StringArray
from shared.columns.arrow import compute as pc
from shared.columns.bytes_view import value_offsets
from shared.columns.constants import constant

# What a JSON string must not hold as it is.
_ESCAPED = r'["\\\x00-\x1f]'
# Units from coarse to fine, and how many nanoseconds each has.
_UNITS: tuple[tuple[Literal["s", "ms", "us", "ns"], int], ...] = (
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
)


def joined(*pieces: "StringArray | str") -> StringArray:
    """Texts made of the pieces of each row, in their order; null where one is null. str: the same in each row."""
    columns = [constant(piece) if isinstance(piece, str) else piece for piece in pieces]
    return pc.binary_join_element_wise(*columns, constant(""))


def joined_bytes(*pieces: "StringArray | str") -> bytes:
    """The same texts, one after the other; none may be null."""
    texts = joined(*pieces)
    _, offsets, data = texts.buffers()
    end = int(np.frombuffer(offsets, np.int32)[len(texts)])
    return b"" if data is None else bytes(memoryview(data)[:end])


def found(texts: StringArray, pattern: str) -> BooleanArray:
    """In which texts an RE2 pattern is found; not in null."""
    return pc.fill_null(pc.match_substring_regex(texts, pattern), constant(False))  # noqa: FBT003


def timestamp_texts(times: Array) -> StringArray:
    """RFC 3339 with Z and as few of 0, 3, 6 or 9 fractional digits as are exact, as format_timestamp writes it."""
    nanoseconds = times.cast(pa.int64()).to_numpy()
    texts: StringArray = pa.nulls(len(times), pa.string())
    missing = np.ones(len(times), np.bool_)
    for unit, size in _UNITS:
        chosen = missing & (nanoseconds % size == 0)
        if chosen.any():
            # Without a zone: with one, Arrow formats thirty times slower.
            moments = pa.array(nanoseconds[chosen]).cast(pa.timestamp("ns")).cast(pa.timestamp(unit))
            texts = pc.replace_with_mask(texts, pa.array(chosen), moments.cast(pa.string()))
            missing &= ~chosen
    return joined(pc.binary_replace_slice(texts, 10, 11, "T"), "Z")


def json_strings(texts: StringArray) -> StringArray:
    """JSON strings in quotation marks; null for null, as text."""
    return pc.fill_null(joined('"', _escape(texts), '"'), constant("null"))


def json_lists(lists: ListArray) -> StringArray:
    """JSON arrays of strings, without spaces; no list is null."""
    strings = json_strings(lists.flatten())
    offsets = pa.array(value_offsets(lists) - value_offsets(lists)[0])
    return joined("[", pc.binary_join(pa.ListArray.from_arrays(offsets, strings), constant(",")), "]")


def _escape(texts: StringArray) -> StringArray:
    escaped = found(texts, _ESCAPED)
    if not pc.any(escaped).as_py():
        return texts
    # One by one, but only those that need it: with the escapes of to_document.
    written = [orjson.dumps(text)[1:-1].decode() for text in texts.filter(escaped).to_pylist()]
    return pc.replace_with_mask(texts, escaped, pa.array(written, pa.string()))
