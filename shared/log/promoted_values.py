"""The values under one path of one chunk of payloads, sorted by JSON kind into typed arrays.

The input is the JSON text that DuckDB's json_extract finds under the path in each row. Its first byte
tells its kind. See `promoted_columns` for the invariants.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import Array, BooleanArray, DoubleArray, IntegerArray, StringArray
from shared.columns.arrow import compute as pc
from shared.log.exact_numbers import doubles_are_exact, suspicious_rows
from shared.log.json_path import JsonPath

JsonKind = Literal["string", "integer", "double", "boolean"]

ARROW_TYPES: dict[JsonKind, Any] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
}

# Integers up to here are doubles without rounding.
_EXACT_INTEGER_MAX = 2**53

_MISSING, _NULL, _STRING, _BOOLEAN, _NUMBER, _OTHER = range(6)
_CODES: dict[JsonKind, int] = {"string": _STRING, "boolean": _BOOLEAN, "integer": _NUMBER, "double": _NUMBER}
_KIND_OF_FIRST_BYTE = np.full(256, _OTHER, np.uint8)
_KIND_OF_FIRST_BYTE[[ord("n")]] = _NULL
_KIND_OF_FIRST_BYTE[[ord('"')]] = _STRING
_KIND_OF_FIRST_BYTE[[ord("t"), ord("f")]] = _BOOLEAN
_KIND_OF_FIRST_BYTE[[ord(c) for c in "-0123456789"]] = _NUMBER


class Payloads:
    """A chunk of payloads, and what is computed of it at most once."""

    def __init__(self, texts: StringArray, unescape: Callable[[StringArray], StringArray]) -> None:
        self.texts = texts
        self.unescape = unescape

    @functools.cached_property
    def suspicious(self) -> npt.NDArray[np.bool_]:
        """For each row whether it may hold a number that its double does not mean exactly."""
        return suspicious_rows(self.texts)


@dataclass(frozen=True, slots=True)
class PathValues:
    """The values of one chunk under one path. Arrays have one value a row; None where there is no value at all.

    `counts` are the numbers of rows by kind. Numbers are in `integers` if all of them are integers of
    64 bits, else in `doubles` if all of them are exact there, else nowhere.
    """

    rows: int
    counts: tuple[int, ...]
    strings: StringArray | None
    booleans: BooleanArray | None
    integers: IntegerArray | None
    doubles: DoubleArray | None

    @classmethod
    def read(cls, path: JsonPath, found: StringArray, payloads: Payloads) -> "PathValues":
        """Sort what json_extract found in each row, null where the path is missing."""
        kinds = _kinds(found)
        counts = np.bincount(kinds, minlength=_OTHER + 1)
        strings = _strings(_only(found, kinds == _STRING), payloads.unescape) if counts[_STRING] else None
        booleans = _only(found, kinds == _BOOLEAN).cast(pa.bool_()) if counts[_BOOLEAN] else None
        integers = doubles = None
        if counts[_NUMBER]:
            numbers = _only(found, kinds == _NUMBER)
            integers = _integers(numbers)
            if integers is None:
                doubles = _doubles(path, numbers, payloads)
        return cls(len(found), tuple(counts.tolist()), strings, booleans, integers, doubles)

    def of_kind(self, kind: JsonKind) -> Array:
        """Return the values of a kind. Raises ValueError if the chunk's numbers have no place in that kind."""
        array: Array | None
        if kind == "string":
            array = self.strings
        elif kind == "boolean":
            array = self.booleans
        elif not self.counts[_NUMBER]:
            array = None
        elif kind == "integer":
            array = self._must_be(self.integers)
        else:
            array = self._must_be(self.as_doubles())
        return pa.nulls(self.rows, ARROW_TYPES[kind]) if array is None else array

    def as_doubles(self) -> DoubleArray | None:
        """Return the numbers as doubles, None if not all of them are exact there."""
        if self.integers is None:
            return self.doubles
        largest = pc.max(pc.max_element_wise(self.integers, pc.negate(self.integers))).as_py()
        smallest = pc.min(self.integers).as_py()
        if smallest == -(2**63) or (largest is not None and largest > _EXACT_INTEGER_MAX):
            return None
        return self.integers.cast(pa.float64())

    @staticmethod
    def _must_be(array: Array | None) -> Array:
        if array is None:
            raise ValueError("a number has no exact place in the promoted column")
        return array


class PathTally:
    """What the values under one path are, over all chunks seen so far."""

    def __init__(self) -> None:
        self._rows = 0
        self._counts = np.zeros(_OTHER + 1, np.int64)
        # Whether all numbers so far have a place among integers, or among doubles.
        self._integers = self._doubles = True

    def add(self, values: PathValues) -> None:
        """Count the values of the next chunk."""
        self._rows += values.rows
        self._counts += values.counts
        if values.counts[_NUMBER]:
            self._integers = self._integers and values.integers is not None
            self._doubles = self._doubles and values.as_doubles() is not None

    @property
    def number_kind(self) -> JsonKind | None:
        """The type in which all numbers have a place, None if there is none."""
        if self._integers:
            return "integer"
        return "double" if self._doubles else None

    def share(self, kind: JsonKind) -> float:
        """The fraction of the rows that have a value of a kind; 0 without rows."""
        return float(self._counts[_CODES[kind]]) / max(self._rows, 1)

    def has_only(self, kind: JsonKind) -> bool:
        """Whether the path has a value of this kind wherever it exists."""
        return bool(self._counts[_CODES[kind]] == self._rows - self._counts[_MISSING])


def kinds_to_promote(tally: PathTally, share_min: float) -> list[JsonKind]:
    """Return the kinds that deserve a column: more than the fraction `share_min` of the rows have one.

    Numbers deserve one only if all of them have an exact place in the same type.
    """
    kinds: list[JsonKind] = ["string", "boolean"]
    if (numbers := tally.number_kind) is not None:
        kinds.append(numbers)
    return [kind for kind in kinds if tally.share(kind) > share_min]


def _kinds(found: StringArray) -> npt.NDArray[np.uint8]:
    """Return the kind of each JSON text by its first byte."""
    if len(found) == 0:
        return np.zeros(0, np.uint8)
    _, offsets_buffer, data_buffer = found.buffers()
    assert offsets_buffer is not None
    offsets = np.frombuffer(offsets_buffer, np.int32, len(found), found.offset * 4)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    kinds = np.full(len(found), _MISSING, np.uint8)
    valid = np.asarray(found.is_valid())
    kinds[valid] = _KIND_OF_FIRST_BYTE[data[offsets[valid]]]
    return kinds


def _only(found: StringArray, rows: npt.NDArray[np.bool_]) -> StringArray:
    """Return the texts of some rows, null in the others."""
    if rows.all():
        return found
    return pc.if_else(pa.array(rows), found, pa.scalar(None, pa.string()))


def _strings(quoted: StringArray, unescape: Callable[[StringArray], StringArray]) -> StringArray:
    """Take the quotation marks off JSON strings, and the escapes out of the few that have any."""
    inner = pc.binary_slice(quoted.view(pa.binary()), 1, -1).view(pa.string())
    escaped = pc.fill_null(pc.match_substring(quoted, "\\"), False)  # noqa: FBT003
    if not pc.any(escaped).as_py():
        return inner
    return pc.replace_with_mask(inner, escaped, unescape(quoted.filter(escaped)))


def _integers(numbers: StringArray) -> IntegerArray | None:
    """Read the numbers as integers of 64 bits, None if one is none."""
    try:
        return numbers.cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def _doubles(path: JsonPath, numbers: StringArray, payloads: Payloads) -> DoubleArray | None:
    """Read the numbers as doubles, None if one of them is not exact."""
    is_integer = pc.match_substring_regex(numbers, r"^-?[0-9]+$")
    try:
        doubles = numbers.cast(pa.float64())
        integers = pc.if_else(is_integer, numbers, pa.scalar(None, pa.string())).cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    within = pc.and_(pc.less_equal(integers, _EXACT_INTEGER_MAX), pc.greater_equal(integers, -_EXACT_INTEGER_MAX))
    # Of no values, all are finite and all are within.
    if pc.all(pc.is_finite(doubles)).as_py() is False or pc.all(within).as_py() is False:
        return None
    doubtful = payloads.suspicious & np.asarray(pc.fill_null(pc.invert(is_integer), False))  # noqa: FBT003
    mask = pa.array(doubtful)
    if not doubles_are_exact(path, payloads=payloads.texts.filter(mask), found=numbers.filter(mask)):
        return None
    return doubles
