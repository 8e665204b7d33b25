"""A batch of events as filters look at it: what several filters ask for is made once, when it is first asked for. Pure.

Invariant: a value of a row is what `LiveEvent` has for the event: None where the event lacks the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.answers import event_ids
from shared.columns.arrow import Array
from shared.columns.arrow import compute as pc
from shared.filters.fields import kind_of
from shared.filters.payload_document import PayloadDocument, path_reader
from shared.filters.tree import Field

Mask = npt.NDArray[np.bool_]

_NUMBERS = frozenset({int, float, Decimal})


@dataclass(slots=True)
class ColumnValues:
    """The values of a field: row r has distinct[codes[r]]. Not every value need be there once only."""

    distinct: Sequence[Any]
    codes: npt.NDArray[np.intp]
    # Places of distinct values; empty where they are not looked up.
    places: dict[Any, int]


class EventBatch:
    """Events of one batch, in columns (EVENT_SCHEMA). Not for several threads."""

    def __init__(self, events: pa.RecordBatch, *, log_id: str) -> None:
        """Look at events of the log of this id."""
        self._events = events
        self._log_id = log_id
        self._columns: dict[Field, ColumnValues] = {}
        self._paths: dict[tuple[str | int, ...], list[Any]] = {}
        self._numbers: dict[tuple[str | int, ...], npt.NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return self._events.num_rows

    @cached_property
    def documents(self) -> list[PayloadDocument]:
        """The payload of each row."""
        payloads: Array = self._events.column("payload")
        return [PayloadDocument(text) for text in payloads.to_pylist()]

    def column(self, field: Field) -> ColumnValues:
        """The values of a field outside of the payload."""
        found = self._columns.get(field)
        if found is None:
            found = self._columns[field] = self._read_column(field)
        return found

    def path(self, path: tuple[str | int, ...]) -> list[Any]:
        """What lies under a path of the payload in each row, as `path_reader` reads it."""
        found = self._paths.get(path)
        if found is None:
            read = path_reader(path)
            found = self._paths[path] = [read(document) for document in self.documents]
        return found

    def numbers(self, path: tuple[str | int, ...]) -> npt.NDArray[np.float64]:
        """The doubles next to the numbers under a path; NaN in rows that have none."""
        found = self._numbers.get(path)
        if found is None:
            values = [_double(value) for value in self.path(path)]
            found = self._numbers[path] = np.array(values, np.float64)
        return found

    def _read_column(self, field: Field) -> ColumnValues:
        if field.name == "id":
            return _each(event_ids(self._log_id, self._events.column("position")).to_pylist())
        column: Array = self._events.column(field.name.removeprefix("metadata."))
        kind = kind_of(field)
        if kind == "tags":
            return _each(column.to_pylist())
        if kind == "text":
            encoded = column.dictionary_encode()
            distinct = encoded.dictionary.to_pylist()
            codes = pc.fill_null(encoded.indices, len(distinct)).to_numpy(zero_copy_only=False).astype(np.intp)
            return ColumnValues([*distinct, None], codes, {text: place for place, text in enumerate(distinct)})
        numbers = column.cast(pa.int64()) if kind == "time" else column
        distinct_numbers, codes = np.unique(numbers.to_numpy(zero_copy_only=False), return_inverse=True)
        return ColumnValues(distinct_numbers.tolist(), codes, {})


def _each(values: list[Any]) -> ColumnValues:
    return ColumnValues(values, np.arange(len(values)), {})


def _double(value: Any) -> float:
    if type(value) not in _NUMBERS:
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
