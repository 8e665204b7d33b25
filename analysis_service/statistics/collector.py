"""Statistics of events by group, collected batch by batch in bounded memory.

    collector = StatisticsCollector(group_by=("type",), duration_field="payload.duration_ms")
    for events in batches:
        collector.add(events)
    collector.groups()

Invariants: the answer does not depend on how the events are cut into batches, but for what is said to be estimated;
an event without a group's field belongs to the group where it is None; at most GROUPS_MAX groups are told apart,
events of further ones are counted in `events_elsewhere`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis_service.columns import EventColumns, Floats, Integers, Mask, joined_codes
from analysis_service.failures import FIELDS as FAILURE_FIELDS
from analysis_service.failures import failed
from analysis_service.statistics.hours import Hour, check_time_zone, count_hours, hours_of
from analysis_service.statistics.moments import Moments
from analysis_service.statistics.sketch import Distribution
from analysis_service.statistics.tally import Tally
from shared.errors import invalid_field

GROUPS_MAX = 1_000
GROUP_FIELDS_MAX = 3
VALUE_FIELDS_MAX = 16
# Values kept for exact percentiles, in all groups together.
EXACT_VALUES_MAX = 2_000_000


@dataclass(slots=True)
class GroupStatistics:
    """One group. key: its values, in the order of the fields grouped by. durations: unit of the duration field."""

    key: tuple[str | None, ...]
    count: int = 0
    failures: int = 0
    first_ns: int = np.iinfo(np.int64).max
    last_ns: int = np.iinfo(np.int64).min
    durations: Moments = field(default_factory=Moments)
    distribution: Distribution = field(default_factory=Distribution)
    hours: Counter[Hour] = field(default_factory=Counter)
    values: dict[str, Tally] = field(default_factory=dict)

    @property
    def error_rate(self) -> float:
        """Share of events that failed, 0 to 1."""
        return self.failures / self.count if self.count else 0.0

    def frequency(self, range_ns: tuple[int, int] | None = None) -> float:
        """Events a minute over a range [start, end); without one, from the first event to the last.

        Events that all happened at one instant count as within a minute.
        """
        start, end = range_ns or (self.first_ns, self.last_ns)
        minutes = (end - start) / 60e9
        return self.count / minutes if minutes > 0 else float(self.count)


class StatisticsCollector:
    """Collects statistics. One task at a time may use it."""

    def __init__(
        self,
        *,
        group_by: Sequence[str] = ("type",),
        duration_field: str = "payload.duration_ms",
        value_fields: Sequence[str] = (),
        time_zone: str = "UTC",
    ) -> None:
        _check_number("group_by", group_by, GROUP_FIELDS_MAX)
        _check_number("value_fields", value_fields, VALUE_FIELDS_MAX)
        self._group_by = tuple(group_by)
        self._duration_field = duration_field
        self._value_fields = tuple(value_fields)
        self._time_zone = check_time_zone(time_zone)
        self._groups: dict[tuple[str | None, ...], GroupStatistics] = {}
        self.events_elsewhere = 0

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that the events must have been scanned with."""
        wanted = ["timestamp", "type", *self._group_by, self._duration_field, *self._value_fields, *FAILURE_FIELDS]
        return tuple(dict.fromkeys(wanted))

    def groups(self) -> list[GroupStatistics]:
        """The groups so far, most frequent first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, _sortable(group.key)))

    def add(self, events: EventColumns) -> None:
        """Take a batch of events."""
        if not len(events):
            return
        codes, keys = joined_codes([events.labels(name) for name in self._group_by], len(events))
        batch = _Batch(events, failed(events), self._durations(events), hours_of(events.times, self._time_zone))
        for key, rows in zip(keys, _rows_by_code(codes, len(keys)), strict=True):
            group = self._group(key)
            if group is None:
                self.events_elsewhere += batch.size(rows)
            else:
                self._add_rows(group, batch, rows)

    def _durations(self, events: EventColumns) -> Floats:
        if events.has(self._duration_field):
            return events.numbers(self._duration_field)
        return np.full(len(events), np.nan)

    def _group(self, key: tuple[str | None, ...]) -> GroupStatistics | None:
        group = self._groups.get(key)
        if group is None and len(self._groups) < GROUPS_MAX:
            group = GroupStatistics(key, values={name: Tally() for name in self._value_fields})
            self._groups[key] = group
        return group

    def _add_rows(self, group: GroupStatistics, batch: "_Batch", rows: Integers | slice) -> None:
        times = batch.events.times[rows]
        durations = batch.durations[rows]
        durations = durations[~np.isnan(durations)]
        group.count += len(times)
        group.failures += int(batch.failed[rows].sum())
        group.first_ns = min(group.first_ns, int(times.min()))
        group.last_ns = max(group.last_ns, int(times.max()))
        group.durations.add(durations)
        group.distribution.add(durations)
        group.hours.update(count_hours(batch.hours, rows))
        for name, tally in group.values.items():
            tally.add(batch.events.labels(name), rows)
        self._bound_memory()

    def _bound_memory(self) -> None:
        kept = [group.distribution for group in self._groups.values() if group.distribution.exact]
        if sum(distribution.count for distribution in kept) > EXACT_VALUES_MAX:
            max(kept, key=lambda distribution: distribution.count).condense()


@dataclass(frozen=True, slots=True)
class _Batch:
    events: EventColumns
    failed: Mask
    durations: Floats
    hours: list[tuple[int, Integers]]

    def size(self, rows: Integers | slice) -> int:
        return len(self.durations[rows])


def _rows_by_code(codes: Integers, number: int) -> list[Integers | slice]:
    if number == 1:
        return [slice(None)]
    # numpy sorts small integers by radix.
    order = np.argsort(codes.astype(np.int16) if number < 1 << 15 else codes, kind="stable")
    borders = np.searchsorted(codes[order], np.arange(1, number))
    return list(np.split(order, borders))


def _sortable(key: tuple[str | None, ...]) -> tuple[str, ...]:
    return tuple(value or "" for value in key)


def _check_number(name: str, fields: Sequence[str], most: int) -> None:
    if len(fields) > most:
        raise invalid_field(name, f"names {len(fields)} fields; name at most {most}")
