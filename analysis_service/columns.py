"""The columns of events that analyses take: arrays of numpy, one row an event.

An analysis asks for fields by the names of the filter language ("type", "metadata.user", "payload.duration_ms");
the table must have been scanned with them. Rows may come in any order.

Invariants: nothing here changes a column; a column is converted once and kept. Positions and times are int64.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import Array, StringArray
from shared.columns.arrow import compute as pc
from shared.errors import EventAnalysisException

Integers: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]

MISSING = -1


@dataclass(frozen=True, slots=True)
class Labels:
    """A text column as codes into its distinct values.

    codes: one an event, from 0; MISSING where the event lacks the field. values: the text of each code.
    """

    codes: Integers
    values: tuple[str, ...]

    @classmethod
    def of(cls, column: Array) -> "Labels":
        """Labels of an Arrow column. What is not text is taken as its JSON text."""
        column = _flat(column)
        if not pa.types.is_dictionary(column.type):
            column = _text(column).dictionary_encode()
        codes = pc.fill_null(column.indices.cast(pa.int64()), MISSING).to_numpy(zero_copy_only=False)
        return cls(codes, tuple(_text(column.dictionary).to_pylist()))

    def text(self, code: int) -> str | None:
        """The text of a code, None of MISSING."""
        return None if code == MISSING else self.values[code]

    def take(self, rows: npt.NDArray[Any]) -> "Labels":
        """The same values for some of the rows."""
        return Labels(self.codes[rows], self.values)


class EventColumns:
    """Events as columns. Analyses read it and leave it as it is."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._labels: dict[str, Labels] = {}
        self._numbers: dict[str, Floats] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def positions(self) -> Integers:
        """Position of each event."""
        return self.whole("position")

    @cached_property
    def times(self) -> Integers:
        """Timestamp of each event, in nanoseconds since the epoch."""
        return self.whole("timestamp")

    def whole(self, field: str) -> Integers:
        """A field of whole numbers or times that every row has. Raises EventAnalysisException where it is missing."""
        column: Any = self._column(field)
        numbers: Integers = column.cast(pa.int64()).to_numpy()
        return numbers

    def has(self, field: str) -> bool:
        """Whether the field was scanned."""
        return column_name(field) in self.table.column_names

    def labels(self, field: str) -> Labels:
        """A field as labels. Raises EventAnalysisException where it was not scanned."""
        if field not in self._labels:
            self._labels[field] = Labels.of(self._column(field))
        return self._labels[field]

    def texts(self, field: str) -> StringArray:
        """A field as texts; what is not text as its JSON text. Raises EventAnalysisException where it is missing."""
        return _text(_flat(self._column(field)))

    def numbers(self, field: str) -> Floats:
        """A field as doubles, NaN where the event lacks it or has no number there.

        Raises EventAnalysisException where it was not scanned.
        """
        if field not in self._numbers:
            self._numbers[field] = _doubles(self._column(field))
        return self._numbers[field]

    def common_codes(self, first: str, second: str) -> tuple[Integers, Integers]:
        """Codes of two fields in which equal texts have equal codes, whichever field they are in.

        MISSING where the event lacks the field or has an empty text. Raises EventAnalysisException where one was
        not scanned.
        """
        columns = [_text(_flat(self._column(field))) for field in (first, second)]
        both = pa.chunked_array([pc.if_else(pc.equal(column, ""), None, column) for column in columns])
        encoded: Any = both.combine_chunks().dictionary_encode()
        codes: Integers = pc.fill_null(encoded.indices.cast(pa.int64()), MISSING).to_numpy(zero_copy_only=False)
        return codes[: len(self)], codes[len(self) :]

    def integers(self, field: str) -> tuple[Integers, Mask]:
        """A field as exact integers, and which events have one there.

        Raises EventAnalysisException where it was not scanned.
        """
        column = _flat(self._column(field))
        if not pa.types.is_integer(column.type):
            doubles = self.numbers(field)
            valid = ~np.isnan(doubles) & (np.abs(doubles) < 2.0**63)
            return np.where(valid, doubles, 0).astype(np.int64), valid
        numbers: Integers = pc.fill_null(column, 0).cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)
        return numbers, column.is_valid().to_numpy(zero_copy_only=False)

    def take(self, rows: npt.NDArray[Any]) -> "EventColumns":
        """Some of the events, by row numbers or by a mask."""
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)
        return EventColumns(self.table.take(pa.array(rows)))

    def _column(self, field: str) -> Array:
        if not self.has(field):
            raise EventAnalysisException(f"{field} was not scanned; name it among the columns of the scan")
        return self.table.column(column_name(field))


def together(*parts: EventColumns) -> EventColumns:
    """Events of several parts, with the columns that all of them have. There must be a part."""
    shared = [name for name in parts[0].table.column_names if all(name in each.table.column_names for each in parts)]
    return EventColumns(pa.concat_tables([each.table.select(shared) for each in parts]))


def event_order(events: EventColumns) -> Integers:
    """Rows in the order in which the events happened: by timestamp, then by position."""
    return np.lexsort((events.positions, events.times))


def joined_codes(columns: Iterable[Labels], count: int) -> tuple[Integers, list[tuple[str | None, ...]]]:
    """One code for each combination of labels that occurs, and the combinations. `count` is the number of rows."""
    chosen = list(columns)
    joined = np.zeros(count, np.int64)
    for labels in chosen:
        # Made small again after each column, so that the product of cardinalities never overflows.
        _, joined = np.unique(joined * (len(labels.values) + 1) + labels.codes + 1, return_inverse=True)
    found, first = np.unique(joined, return_index=True)
    combinations = [tuple(labels.text(int(labels.codes[row])) for labels in chosen) for row in first]
    return np.searchsorted(found, joined), combinations


def column_name(field: str) -> str:
    """What the column of a field is called."""
    return field.removeprefix("metadata.")


def _flat(column: Array) -> Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _text(column: Array) -> StringArray:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.string())
    return column.cast(pa.string())


def _doubles(column: Array) -> Floats:
    column = _flat(column)
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        numeric = pc.match_substring_regex(column, r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$")
        column = pc.if_else(numeric, column, None)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return np.full(len(column), np.nan)
    doubles: Floats = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return doubles
