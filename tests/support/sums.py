"""Sums of events in memory, made by a plain loop: what the query service answers, without one."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from analysis_service.columns import EventColumns, column_name
from analysis_service.statistics.collector import StatisticsCollector
from analysis_service.statistics.sums import Sums

_SECOND_NS = 1_000_000_000
_TIME = pa.timestamp("ns", tz="UTC")


def collect(collector: StatisticsCollector, pieces: Sequence[EventColumns]) -> StatisticsCollector:
    """Let statistics read events, which come in pieces."""
    for each in collector.passes():
        for piece in pieces:
            each.add(sums_of(piece, each.sums))
    return collector


def sums_of(events: EventColumns, sums: Sums) -> EventColumns:
    """Rows of sums; see Sums. Values are exact, whatever error is allowed."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(*_keys(events, sums), strict=True)):
        if not sums.by_value or not math.isnan(key[-1]):
            groups[key].append(row)
    names = [column_name(name) for name in sums.fields]
    names += ["time"] * bool(sums.time_bucket_s) + ["value"] * sums.by_value
    columns: dict[str, Any] = {name: [key[at] for key in groups] for at, name in enumerate(names)}
    rows = [np.array(each) for each in groups.values()]
    columns["count"] = pa.array([len(each) for each in rows], pa.uint64())
    if sums.time_bucket_s:
        columns["first"] = pa.array([int(events.times[each].min()) for each in rows], _TIME)
        columns["last"] = pa.array([int(events.times[each].max()) for each in rows], _TIME)
    if sums.value_field and not sums.by_value:
        columns |= _moments(_numbers(events, sums.value_field), rows)
    if sums.time_bucket_s:
        columns["time"] = pa.array(columns["time"], _TIME)
    for name in names:
        columns[name] = columns[name] if name in {"time", "value"} else pa.array(columns[name], pa.string())
    return EventColumns(pa.table(columns))


def _keys(events: EventColumns, sums: Sums) -> Iterable[list[Any]]:
    yield [None] * len(events) if not sums.fields else _texts(events, sums.fields[0])
    yield from (_texts(events, name) for name in sums.fields[1:])
    if sums.time_bucket_s:
        width = sums.time_bucket_s * _SECOND_NS
        yield (events.times // width * width).tolist()
    if sums.by_value:
        yield _numbers(events, sums.value_field).tolist()


def _texts(events: EventColumns, name: str) -> list[str | None]:
    if not events.has(name):
        return [None] * len(events)
    labels = events.labels(name)
    return [labels.text(code) for code in labels.codes.tolist()]


def _numbers(events: EventColumns, name: str) -> Any:
    return events.numbers(name) if events.has(name) else np.full(len(events), np.nan)


def _moments(numbers: Any, rows: list[Any]) -> dict[str, Any]:
    there = [numbers[each][~np.isnan(numbers[each])] for each in rows]
    return {
        "value_count": pa.array([len(each) for each in there], pa.uint64()),
        "value_mean": [float(each.mean()) if len(each) else None for each in there],
        "value_squares": [float(np.square(each - each.mean()).sum()) if len(each) else None for each in there],
        "value_min": [float(each.min()) if len(each) else None for each in there],
        "value_max": [float(each.max()) if len(each) else None for each in there],
    }
