"""A stretch of committed events as everyone needs them: columns for filters, bytes for messages.

Invariant: each event's bytes are made once in each form, whoever takes them. What filters read of payloads is kept
only as long as several look at the block in turn: it is many times as large as the events.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.encoded_events import EncodedEvents
from shared.filters.event_batch import EventBatch
from shared.log.types import Nanoseconds, Position

# Rows of a block that match a filter; None for all of them.
Rows = npt.NDArray[np.intp] | None


class Forms(Protocol):
    """The forms of one log's events (EVENT_SCHEMA)."""

    def encode(self, events: pa.RecordBatch, *, payload_as_struct: bool) -> EncodedEvents:
        """Their bytes. Raises EventValidationException where a payload cannot be a structure."""

    def columns(self, events: pa.RecordBatch) -> EventBatch:
        """What filters look at."""


@dataclass(eq=False)
class Block:
    """The events of positions [first, until), some of which may be missing because retention removed them."""

    first: Position
    until: Position
    # EVENT_SCHEMA, in the order of positions.
    events: pa.RecordBatch
    forms: Forms
    # When the service took them, in monotonic seconds; None for those that were read from history.
    received_s: float | None = None
    # By the key of the filter, as matchers leave them here.
    matches: dict[bytes, Rows] = field(default_factory=dict)
    _columns: EventBatch | None = None
    _encoded: dict[bool, EncodedEvents] = field(default_factory=dict)

    def encoded(self, *, payload_as_struct: bool = False) -> EncodedEvents:
        """The bytes of all its events. Raises EventValidationException where a payload cannot be a structure."""
        found = self._encoded.get(payload_as_struct)
        if found is None:
            found = self._encoded[payload_as_struct] = self.forms.encode(
                self.events, payload_as_struct=payload_as_struct
            )
        return found

    @contextmanager
    def columns_kept(self) -> Iterator[None]:
        """Have all filters that look at the block inside share what they read."""
        self._columns = self.forms.columns(self.events)
        try:
            yield
        finally:
            self._columns = None

    def columns(self) -> EventBatch:
        """What filters look at."""
        return self._columns or self.forms.columns(self.events)

    @cached_property
    def size(self) -> int:
        """Bytes it is charged with: its columns and the bytes of its messages."""
        return self.events.nbytes + len(self.encoded().data)

    @property
    def recorded_ns(self) -> Nanoseconds:
        """When its first event was recorded; 0 where it has none."""
        times = self.encoded().recorded_ns
        return Nanoseconds(int(times[0]) if len(times) else 0)

    def row_of(self, position: int) -> int:
        """The first row at or after a position."""
        return int(self.encoded().positions.searchsorted(position))
