"""Sums by group are those of a naive recount, however the events are stored and the pass is interrupted."""

import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query_service import aggregating
from query_service.aggregation import Aggregation, check_aggregation
from query_service.asked_columns import AskedColumn
from query_service.database import Database
from query_service.question import Order
from query_service.work import Work
from shared.filters.tree import Everything
from tests.support.asker import MIB, Asker, Asking, askings
from tests.support.fake_clock import TickingClock
from tests.support.reference_filter import NOTHING, parse
from tests.support.small_logs import Event, SegmentPlan, plans, small_steps, write_log

SETTINGS = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
VALUE = "payload.a"
BUCKET_NS = 3
OTHER = "a number, an array, an object, or a text that looks like one"

aggregations = st.builds(
    lambda fields, bucket_ns, value, by_value: check_aggregation(
        fields,
        time_bucket_ns=bucket_ns,
        value_field=VALUE if value or by_value is not None else "",
        by_value=by_value is not None,
        value_error=by_value or 0.0,
    ),
    st.lists(
        st.sampled_from(["type", "metadata.session_id", "recorded_at", "payload.b:text", "payload.never:text"]),
        max_size=3,
        unique=True,
    ),
    st.sampled_from([0, BUCKET_NS]),
    st.booleans(),
    st.sampled_from([None, 0.0, 0.01]),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory for all logs, so that one database reads them."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[Database]:
    """One database for all logs; few groups fit into a step."""
    with (
        Database(folder, threads=1, memory_bytes_max=256 * MIB) as opened,
        small_steps(),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(aggregating, "_FIRST_ROWS", 4)
        patch.setattr(aggregating, "GROUP_BYTES_MAX", 300)
        yield opened


def _number(event: Event) -> float | None:
    """The number under the key a as a double, None where there is none."""
    value = parse(event["payload"]).values.get("a", NOTHING)
    return float(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def _group(event: Event, aggregation: Aggregation) -> tuple[object, ...]:
    fields = [_field(event, field) for field in aggregation.fields]
    start = max(event["timestamp"] // BUCKET_NS * BUCKET_NS, -(2**63))
    return (*fields, *([start] if aggregation.time_bucket_ns else []))


def _field(event: Event, column: AskedColumn) -> object:
    """A field as it is, or a string or another value under a key as text, so far as it is spelled in one way only."""
    if not column.field.path:
        return event[column.field.name.rpartition(".")[2]]
    value = parse(event["payload"]).values.get(column.field.path[0], NOTHING)
    if value is NOTHING or value is None:
        return None
    if isinstance(value, str):
        return _known(value, column)
    return str(value).lower() if isinstance(value, bool) else OTHER


def _key(row: dict[str, Any], aggregation: Aggregation) -> tuple[object, ...]:
    times = [row["time"]] if aggregation.time_bucket_ns else []
    return (*(_known(row[field.name], field) for field in aggregation.fields), *times)


def _known(value: object, column: AskedColumn) -> object:
    """A value as `_field` has it: numbers, arrays and objects are one."""
    looks_otherwise = isinstance(value, str) and value[:1] in "-0123456789[{" and value[:1] != ""
    return OTHER if column.field.path and looks_otherwise else value


def _check(asker: Asker, asking: Asking, aggregation: Aggregation, works: Iterator[Work]) -> None:
    matching = [asker.log.events[position - 1] for position in asker.expected(asking, Order.POSITION_ASCENDING)]
    expected: dict[tuple[object, ...], list[Event]] = defaultdict(list)
    for event in matching:
        if not aggregation.by_value or _number(event) is not None:
            expected[_group(event, aggregation)].append(event)
    found: dict[tuple[object, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in asker.aggregate(asking, aggregation, works=works):
        found[_key(row, aggregation)].append(row)
    assert set(found) == set(expected)
    for key, events in expected.items():
        rows = found[key]
        assert sum(row["count"] for row in rows) == len(events)
        numbers = sorted(number for event in events if (number := _number(event)) is not None)
        if aggregation.time_bucket_ns:
            assert min(row["first"] for row in rows) == min(event["timestamp"] for event in events)
            assert max(row["last"] for row in rows) == max(event["timestamp"] for event in events)
        if aggregation.by_value:
            _check_values(rows, numbers, aggregation.value_error)
        elif aggregation.value is not None:
            _check_moments(rows, numbers)


def _check_values(rows: list[dict[str, Any]], numbers: list[float], error: float) -> None:
    found = sorted(row["value"] for row in rows for _ in range(row["count"]))
    for value, number in zip(found, numbers, strict=True):
        if not error:
            assert value == number
        elif abs(number) < 1e-9:
            assert value == 0
        else:
            expected = math.copysign(min(abs(number), 1e19), number)
            assert value == pytest.approx(expected, rel=error * 1.001)


def _check_moments(rows: list[dict[str, Any]], numbers: list[float]) -> None:
    counted = [row for row in rows if row["value_count"]]
    assert sum(row["value_count"] for row in counted) == len(numbers)
    if not numbers:
        return
    assert min(row["value_min"] for row in counted) == numbers[0]
    assert max(row["value_max"] for row in counted) == numbers[-1]
    if max(map(abs, numbers)) > 1e100:
        return
    total = sum(row["value_mean"] * row["value_count"] for row in counted)
    mean = math.fsum(numbers) / len(numbers)
    scale = max(map(abs, numbers))
    assert total / len(numbers) == pytest.approx(mean, rel=1e-9, abs=1e-9 * scale)
    squares = sum(row["value_squares"] + row["value_count"] * (row["value_mean"] - mean) ** 2 for row in counted)
    expected = math.fsum((number - mean) ** 2 for number in numbers)
    assert squares == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale**2)


@SETTINGS
@given(plans, askings, aggregations)
def test_sums_are_those_of_a_recount(database, folder, plan, asking, aggregation):
    """Sealed or not, past damage, with what makes it faster and without."""
    log = write_log(Path(tempfile.mkdtemp(dir=folder)), plan)
    for plain in (False, True):
        asker = Asker(log, database, plain=plain)
        _check(asker, asking, aggregation, asker.patient())


@SETTINGS
@given(plans, askings, aggregations, st.floats(0.01, 0.5))
def test_sums_in_a_hurry_add_up(database, folder, plan, asking, aggregation, budget_s):
    """Where the time is up again and again, what goes on from there adds up to the whole."""
    asker = Asker(write_log(Path(tempfile.mkdtemp(dir=folder)), plan), database)
    asker.clock = TickingClock()
    _check(asker, asking, aggregation, (Work(asker.clock, budget_s) for _ in range(1000)))


@pytest.mark.parametrize("times", [(-(2**63) + 1, -(2**63), 3), (2**63 - 1, 2**63 - 2, -1), (-(2**63) + 1, 2**63 - 1)])
def test_the_ends_of_time_are_times(database, folder, times):
    """DuckDB means infinity by two of them."""
    event: Event = {"type": "a", "source": "", "correlation_id": None, "payload": "{}", "host": "", "version": "1"}
    frame = [event | {"timestamp": time, "user": None, "session_id": None, "tags": []} for time in times]
    plan = [SegmentPlan([frame], sealed=True, damaged=None), SegmentPlan([frame], sealed=False, damaged=None)]
    asker = Asker(write_log(Path(tempfile.mkdtemp(dir=folder)), plan), database)
    for bucket_ns in (0, BUCKET_NS):
        aggregation = check_aggregation(
            ["type"], time_bucket_ns=bucket_ns, value_field="", by_value=False, value_error=0.0
        )
        _check(asker, Asking(Everything()), aggregation, asker.patient())
