"""Events grouped into streams: those of one type, or of one type and source or host. For periods and bursts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis_service.columns import EventColumns, Integers, joined_codes
from analysis_service.expressions import all_of, equals


@dataclass(frozen=True, slots=True)
class Stream:
    """rows: of its events, by time. times: nanoseconds. key: field and value, those that tell it apart."""

    rows: Integers
    times: Integers
    key: tuple[tuple[str, str | None], ...]

    @property
    def type(self) -> str:
        """Type of its events."""
        return dict(self.key)["type"] or ""

    @property
    def name(self) -> str:
        """What to call it: "type" or "type of source"."""
        others = [value for field, value in self.key if field != "type" and value]
        return f"{self.type} of {', '.join(others)}" if others else self.type

    @property
    def expression(self) -> str:
        """Filter expression that finds its events."""
        return all_of(*(equals(field, value) for field, value in self.key))


def streams_of(events: EventColumns, fields: Sequence[str], *, events_min: int = 1) -> Iterator[Stream]:
    """Streams by the fields ("type" among them) with at least so many events, repeated positions once."""
    rows = np.unique(events.positions, return_index=True)[1]
    rows = rows[np.argsort(events.times[rows], kind="stable")]
    codes, keys = joined_codes([events.labels(name).take(rows) for name in fields], len(rows))
    order = np.argsort(codes, kind="stable")
    borders = np.searchsorted(codes[order], np.arange(len(keys) + 1))
    for key, start, stop in zip(keys, borders, borders[1:], strict=False):
        if stop - start >= events_min:
            mine = rows[order[start:stop]]
            yield Stream(mine, events.times[mine], tuple(zip(fields, key, strict=True)))
