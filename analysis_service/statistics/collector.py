"""Statistics of events by group, made of sums that are read in a few passes, in bounded memory.

    collector = StatisticsCollector(group_by=("type",), duration_field="payload.duration_ms")
    for each in collector.passes():
        for sums in read(each.sums):
            each.add(sums)
    collector.groups()

Invariants: the answer does not depend on how the sums are cut into pieces, but for what is said to be estimated; an
event without a group's field belongs to the group where it is None; the GROUPS_MAX most frequent groups are told
apart, events of further ones are counted in `events_elsewhere`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from analysis_service.columns import EventColumns, Integers, joined_codes
from analysis_service.failures import FIELDS as FAILURE_FIELDS
from analysis_service.failures import failed
from analysis_service.hashes import Hashes, row_hashes
from analysis_service.statistics.frequent import FrequentGroups
from analysis_service.statistics.hours import BUCKET_S, Hour, check_time_zone, count_hours, hours_of
from analysis_service.statistics.moments import Moments
from analysis_service.statistics.sketch import RELATIVE_ERROR, Distribution
from analysis_service.statistics.sums import Measured, Sums
from analysis_service.statistics.tally import Tally
from shared.errors import invalid_field

GROUPS_MAX = 1_000
GROUP_FIELDS_MAX = 3
VALUE_FIELDS_MAX = 16
# Values kept for exact percentiles, in all groups together.
EXACT_VALUES_MAX = 2_000_000

Key = tuple[str | None, ...]


@dataclass(slots=True)
class GroupStatistics:
    """One group. key: its values, in the order of the fields grouped by. durations: unit of the duration field."""

    key: Key
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


@dataclass(frozen=True, slots=True)
class Pass:
    """What to read next, and who takes its rows, in pieces."""

    sums: Sums
    add: Callable[[EventColumns], None]


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
        self._frequent = FrequentGroups()
        # By their hashes; None for all.
        self._chosen: Hashes | None = None
        self._groups: dict[Key, GroupStatistics] = {}
        self.events_elsewhere = 0

    @property
    def passes_max(self) -> int:
        """How many passes there are at most."""
        return 3 + len(self._value_fields)

    def passes(self) -> Iterator[Pass]:
        """What to read, one after the other: a pass is over when the next one is asked for."""
        yield Pass(Sums(self._group_by), self._add_groups)
        self._chosen = self._frequent.most(GROUPS_MAX)
        fields = _each_once(self._group_by, ("type", *FAILURE_FIELDS))
        yield Pass(Sums(fields, BUCKET_S, self._duration_field), self._add_counts)
        durations = sum(group.durations.count for group in self._groups.values())
        if durations:
            exact = durations <= EXACT_VALUES_MAX
            for group in self._groups.values():
                group.distribution = Distribution(exact=exact)
            error = 0.0 if exact else RELATIVE_ERROR
            sums = Sums(self._group_by, value_field=self._duration_field, by_value=True, value_error=error)
            yield Pass(sums, self._add_durations)
        tallies = len(self._groups) * len(self._value_fields)
        for group in self._groups.values():
            group.values = {name: Tally.one_of(tallies) for name in self._value_fields}
        for name in self._value_fields:
            yield Pass(Sums(_each_once(self._group_by, (name,))), self._values_adder(name))

    def groups(self) -> list[GroupStatistics]:
        """The groups, most frequent first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, _sortable(group.key)))

    def _add_groups(self, sums: EventColumns) -> None:
        self._frequent.add(row_hashes(sums, self._group_by), sums.whole("count"))

    def _add_counts(self, sums: EventColumns) -> None:
        counts, failures = sums.whole("count"), failed(sums)
        first, last, measured = sums.whole("first"), sums.whole("last"), Measured.of(sums)
        hours = hours_of(sums.whole("time"), self._time_zone)
        self.events_elsewhere += int(counts.sum())
        for key, rows in self._rows_by_group(sums):
            group = self._groups.setdefault(key, GroupStatistics(key))
            here = int(counts[rows].sum())
            self.events_elsewhere -= here
            group.count += here
            group.failures += int(counts[rows][failures[rows]].sum())
            group.first_ns = min(group.first_ns, int(first[rows].min()))
            group.last_ns = max(group.last_ns, int(last[rows].max()))
            group.durations.add(measured.take(rows))
            group.hours.update(count_hours(hours, counts, rows))

    def _add_durations(self, sums: EventColumns) -> None:
        values, counts = sums.numbers("value"), sums.whole("count")
        for key, rows in self._rows_by_group(sums):
            if key in self._groups:
                self._groups[key].distribution.add(values[rows], counts[rows])

    def _values_adder(self, name: str) -> Callable[[EventColumns], None]:
        def add(sums: EventColumns) -> None:
            texts, counts = sums.texts(name), sums.whole("count")
            for key, rows in self._rows_by_group(sums):
                if key in self._groups:
                    self._groups[key].values[name].add(texts.take(pa.array(rows)), counts[rows])

        return add

    def _rows_by_group(self, sums: EventColumns) -> Iterator[tuple[Key, Integers]]:
        """The rows of each group that is told apart."""
        chosen = np.arange(len(sums))
        if self._chosen is not None:
            chosen = np.flatnonzero(np.isin(row_hashes(sums, self._group_by), self._chosen))
        if not len(chosen):
            return
        codes, keys = joined_codes([sums.labels(name).take(chosen) for name in self._group_by], len(chosen))
        order = np.argsort(codes, kind="stable")
        yield from zip(keys, np.split(chosen[order], np.flatnonzero(np.diff(codes[order])) + 1), strict=True)


def _each_once(*names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


def _sortable(key: Key) -> tuple[tuple[bool, str], ...]:
    return tuple((part is not None, part or "") for part in key)


def _check_number(name: str, fields: Sequence[str], most: int) -> None:
    if len(fields) > most:
        raise invalid_field(name, f"names {len(fields)} fields; name at most {most}")
    if len(set(fields)) < len(fields):
        raise invalid_field(name, "names a field twice")
