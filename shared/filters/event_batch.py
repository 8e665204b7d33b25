"""A batch of events as filters look at it: what several filters ask for is read once, when it is first asked for. Pure.

Invariants:
- A value of a row is what `LiveEvent` has for the event: None where the event lacks the field.
- A payload is parsed at most once, and only where a filter cannot tell without it.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.answers import event_ids
from shared.columns.arrow import Array, StringArray
from shared.filters.fields import kind_of
from shared.filters.payload_document import MISSING, PayloadDocument, compact_json, path_reader
from shared.filters.tree import Field, Leaf

Mask = npt.NDArray[np.bool_]
Path = tuple[str | int, ...]

_NUMBERS = frozenset({int, float, Decimal})
_NAN, _INFINITY = float("nan"), float("inf")


class Values:
    """The values of a field: row r has distinct[codes[r]]. Texts are distinct; of all else a row may have its own."""

    def __init__(self, distinct: list[Any], codes: npt.NDArray[np.intp], texts: dict[str, int]) -> None:
        self.distinct = distinct
        self.codes = codes
        # The place of each text among the distinct values.
        self.texts = texts

    @classmethod
    def of_rows(cls, values: list[Any]) -> "Values":
        """Take one value for each row."""
        return cls(values, np.arange(len(values)), {})

    @classmethod
    def of_texts(cls, column: StringArray) -> "Values":
        """Take a column of strings; null is None."""
        encoded = column.dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        codes = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).astype(np.intp)
        return cls([*texts, None], codes, {text: place for place, text in enumerate(texts)})


class PathValues(Values):
    """What lies under a path of the payload, read row by row as it is needed; MISSING where nothing does."""

    def __init__(self, path: Path, documents: "_Documents") -> None:
        size = len(documents)
        super().__init__([MISSING], np.zeros(size, np.intp), {})
        # For each distinct value a row that has it.
        self.rows = [0]
        # The doubles next to the numbers; NaN in rows that have none.
        self.numbers = np.full(size, np.nan)
        self._unread = np.ones(size, np.bool_)
        self._read_document = path_reader(path)
        self._documents = documents

    def read(self, wanted: Mask) -> None:
        """Read the wanted rows that were not read before."""
        rows = np.flatnonzero(self._unread & wanted)
        if len(rows):
            self._unread[rows] = False
            found = [self._read_document(self._documents[row]) for row in rows.tolist()]
            self.codes[rows] = [*map(self._place_of, found, rows.tolist())]
            self.numbers[rows] = [*map(_double, found)]

    def _place_of(self, value: Any, row: int) -> int:
        """Return the place of a value, a new one unless it is a known text or MISSING."""
        if value is MISSING:
            return 0
        place = len(self.distinct)
        if type(value) is str:
            known = self.texts.setdefault(value, place)
            if known != place:
                return known
        self.distinct.append(value)
        self.rows.append(row)
        return place


class EventBatch:
    """Events of one batch, in columns (EVENT_SCHEMA). Not for several threads."""

    def __init__(self, events: pa.RecordBatch, *, log_id: str) -> None:
        """Look at events of the log of this id."""
        self._events = events
        self._log_id = log_id
        self._columns: dict[str, Values] = {}
        self._integers: dict[str, npt.NDArray[Any]] = {}
        self._paths: dict[Path, PathValues] = {}
        self._masks: dict[Leaf, Mask] = {}

    def __len__(self) -> int:
        return self._events.num_rows

    @cached_property
    def documents(self) -> "_Documents":
        """The payload of each row."""
        return _Documents(self._payloads)

    @cached_property
    def compact_payloads(self) -> list[str]:
        """The payload of each row, without white space between tokens."""
        return [compact_json(text) for text in self._payloads]

    def values(self, field: Field) -> Values:
        """The values of a field outside of the payload."""
        found = self._columns.get(field.name)
        if found is None:
            found = self._columns[field.name] = self._read_column(field)
        return found

    def integers(self, field: Field) -> npt.NDArray[Any]:
        """The values of a field that holds integers or times, in nanoseconds since the epoch."""
        found = self._integers.get(field.name)
        if found is None:
            column: Array = self._events.column(field.name)
            numbers = column.cast(pa.int64()) if kind_of(field) == "time" else column
            found = self._integers[field.name] = numbers.to_numpy(zero_copy_only=False)
        return found

    def path_values(self, path: Path, wanted: Mask) -> PathValues:
        """What lies under a path of the payload, in the wanted rows at least."""
        found = self._paths.get(path)
        if found is None:
            found = self._paths[path] = PathValues(path, self.documents)
        found.read(wanted)
        return found

    def mask_of(self, leaf: Leaf, compare: Callable[["EventBatch"], Mask]) -> Mask:
        """What a comparison of a column says of every row: made once for all filters that it is a part of."""
        found = self._masks.get(leaf)
        if found is None:
            found = self._masks[leaf] = compare(self)
            found.flags.writeable = False
        return found

    @cached_property
    def _payloads(self) -> list[str]:
        column: StringArray = self._events.column("payload")
        payloads: list[str] = column.to_pylist()
        return payloads

    def _read_column(self, field: Field) -> Values:
        if field.name == "id":
            return Values.of_texts(event_ids(self._log_id, self._events.column("position")))
        column: Array = self._events.column(field.name.removeprefix("metadata."))
        if kind_of(field) == "text":
            return Values.of_texts(column)
        return Values.of_rows(self.integers(field).tolist() if kind_of(field) != "tags" else column.to_pylist())


class _Documents:
    """Payloads by row, each made a document when it is first asked for."""

    def __init__(self, payloads: Sequence[str]) -> None:
        self._payloads = payloads
        self._documents: list[PayloadDocument | None] = [None] * len(payloads)

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, row: int) -> PayloadDocument:
        found = self._documents[row]
        if found is None:
            found = self._documents[row] = PayloadDocument(self._payloads[row])
        return found


def _double(value: Any) -> float:
    """Return the double next to a number, NaN for all else."""
    if type(value) not in _NUMBERS:
        return _NAN
    try:
        return float(value)
    except OverflowError:
        return _INFINITY if value > 0 else -_INFINITY
