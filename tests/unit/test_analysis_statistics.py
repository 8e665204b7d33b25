"""Statistics: percentiles, hours, counts and comparison against what a plain loop finds."""

import math
from collections import Counter
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis_service.hashes import hashes_of
from analysis_service.statistics import collector as collector_module
from analysis_service.statistics import frequent
from analysis_service.statistics.collector import GROUPS_MAX, StatisticsCollector
from analysis_service.statistics.comparison import compare
from analysis_service.statistics.hours import Hour, by_hour_of_week, count_hours, hours_of
from analysis_service.statistics.moments import Moments
from analysis_service.statistics.sketch import RELATIVE_ERROR, Distribution, LogSketch, nearest_rank
from analysis_service.statistics.sums import Measured, Sums
from analysis_service.statistics.tally import DistinctCounter, Tally
from shared.errors import EventValidationException
from tests.support.event_columns import columns_of, nanoseconds, real_columns
from tests.support.sums import collect, sums_of

PERCENTILES = (50, 75, 90, 95, 99, 99.9, 99.99)
_MINUTE_NS = 60_000_000_000


def _exact(values: np.ndarray, percentile: float) -> float:
    return float(np.sort(values)[math.ceil(round(percentile / 100 * len(values), 9)) - 1])


def test_nearest_rank_is_the_smallest_rank_that_covers_the_share():
    """Percentile p of n values has rank ceil(p n / 100), whatever doubles make of the product."""
    assert [nearest_rank(p, 1000) for p in (0.1, 50, 99.9, 99.99, 100)] == [1, 500, 999, 1000, 1000]
    assert nearest_rank(50, 1) == 1


@pytest.mark.parametrize("shape", ["lognormal", "pareto", "bimodal", "integers"])
def test_percentiles_of_32_merged_shards_are_within_one_percent(shape):
    """p50 to p99.99 of merged sketches differ from the exact ones by no more than the stated error."""
    random = np.random.default_rng(5)
    values = {
        "lognormal": random.lognormal(5, 1.4, 400_000),
        "pareto": random.pareto(1.1, 400_000) + 0.001,
        "bimodal": np.where(
            random.random(400_000) < 0.9, random.normal(20, 2, 400_000), random.normal(5e4, 1e4, 400_000)
        ),
        "integers": random.integers(0, 5000, 400_000).astype(float),
    }[shape]
    merged = Distribution(exact=False)
    for shard in np.array_split(values, 32):
        merged.add(*_bucketed(shard))
    assert not merged.exact
    assert merged.count == len(values)
    for percentile, value in merged.percentiles(PERCENTILES).items():
        assert value == pytest.approx(_exact(values, percentile), rel=RELATIVE_ERROR * 1.0001, abs=1e-9)


def _bucketed(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middles of buckets and how many values each has, as the query service makes them of a shard."""
    gamma = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
    buckets = np.ceil(np.log(np.maximum(np.abs(values), 1e-12)) / np.log(gamma))
    return np.unique(np.sign(values) * 2 * gamma**buckets / (gamma + 1), return_counts=True)


def _ones(values: np.ndarray) -> np.ndarray:
    return np.ones(len(values), np.int64)


@given(
    st.lists(st.floats(-1e12, 1e12).filter(lambda x: x == 0 or abs(x) > 1e-8), min_size=1, max_size=60),
    st.floats(0.01, 100),
)
def test_sketch_is_within_its_error_of_the_exact_percentile(values, percentile):
    """Whatever the values, negative ones and zeros included."""
    sketch = LogSketch()
    sketch.add(np.array(values), _ones(np.array(values)))
    assert sketch.percentile(percentile) == pytest.approx(
        _exact(np.array(values), percentile), rel=RELATIVE_ERROR * 1.0001, abs=1e-9
    )


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40), st.integers(1, 5))
def test_percentiles_of_values_that_are_kept_are_exact(values, pieces):
    """They equal those of the sorted list, however the values came, one by one or counted."""
    distribution = Distribution()
    for number, piece in enumerate(np.array_split(np.array(values), pieces)):
        distribution.add(*((piece, _ones(piece)) if number % 2 else np.unique(piece, return_counts=True)))
    found = distribution.percentiles(PERCENTILES)
    assert found == {each: _exact(np.array(values), each) for each in PERCENTILES}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(1, 6))
def test_moments_do_not_depend_on_the_pieces(values, pieces):
    """Mean and deviation of pieces are those of the whole."""
    moments = Moments()
    for piece in np.array_split(np.array(values), pieces):
        moments.add(_measured(piece))
    assert moments.count == len(values)
    assert moments.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert moments.deviation == pytest.approx(np.std(values), rel=1e-6, abs=1e-6)
    assert (moments.minimum, moments.maximum) == (min(values), max(values))


def test_deviation_survives_values_far_from_zero():
    """Large values with a small spread keep it: sums of squares would have lost it."""
    moments = Moments()
    for piece in np.array_split(1e9 + np.arange(1000) % 2, 7):
        moments.add(_measured(piece))
    assert moments.deviation == pytest.approx(0.5)


def _measured(values: np.ndarray) -> Measured:
    """Two rows of sums of some values: of the first and of the others, of which there may be none."""
    events = columns_of([{"type": str(bool(at)), "payload.x": float(value)} for at, value in enumerate(values)])
    return Measured.of(sums_of(events, Sums(("type",), value_field="payload.x"))) if len(values) else _NOTHING


_NOTHING = Measured(np.zeros(0, np.int64), *(np.zeros(0) for _ in range(4)))


@given(
    st.lists(st.integers(0, 2_000_000_000), min_size=1, max_size=50),
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_hours_are_those_of_the_local_clock(seconds, zone):
    """Hours and their counts agree with the standard library's time zones."""
    times = np.array(seconds, np.int64) * 1_000_000_000
    counts = count_hours(hours_of(times, zone), _ones(times) * 3)
    expected = Counter()
    for second in seconds:
        moment = datetime.fromtimestamp(second, ZoneInfo(zone))
        offset = int(moment.utcoffset().total_seconds())
        expected[Hour((second + offset) // 3600, offset)] += 3
    assert counts == expected


def test_hour_repeated_at_the_end_of_daylight_saving_is_two_hours():
    """02:30 comes twice in Berlin on 27 October 2024, and 02 o'clock never on 31 March."""
    minutes = nanoseconds("2024-10-27T00:00:00") + np.arange(180, dtype=np.int64) * _MINUTE_NS
    counts = count_hours(hours_of(minutes, "Europe/Berlin"), _ones(minutes))
    assert {hour.format(): number for hour, number in counts.items()} == {
        "2024-10-27T02:00:00+02:00": 60,
        "2024-10-27T02:00:00+01:00": 60,
        "2024-10-27T03:00:00+01:00": 60,
    }
    spring = nanoseconds("2024-03-31T00:30:00") + np.arange(60, dtype=np.int64) * _MINUTE_NS
    assert [hour.format() for hour in sorted(count_hours(hours_of(spring, "Europe/Berlin"), _ones(spring)))] == [
        "2024-03-31T01:00:00+01:00",
        "2024-03-31T03:00:00+02:00",
    ]


def test_hour_of_week_begins_on_monday():
    """Monday 00:30 is the first hour of the week, Sunday 23:30 the last."""
    times = np.array([nanoseconds("2024-01-15T00:30:00"), nanoseconds("2024-01-21T23:30:00")])
    week = by_hour_of_week(count_hours(hours_of(times), _ones(times)))
    assert [week[0], week[167], sum(week)] == [1, 1, 2]


def test_unknown_time_zone_is_refused():
    """The message names the field and what to write."""
    with pytest.raises(EventValidationException, match="Europe/Berlin"):
        StatisticsCollector(time_zone="Mars/Olympus")


def test_distinct_values_are_exact_then_estimated():
    """Up to the limit the count is exact; beyond it is within four standard errors, and says so."""
    counter = DistinctCounter(exact_max=1000)
    counter.add(pa.array([f"value {number % 700}" for number in range(2000)]))
    assert (counter.count, counter.exact) == (700, True)
    for start in range(0, 150_000, 10_000):
        counter.add(pa.array([f"value {number}" for number in range(start, start + 10_000)]))
    assert not counter.exact
    assert counter.count == pytest.approx(150_000, rel=0.033)


def test_top_values_outlive_the_rare_ones_that_are_forgotten():
    """A bounded tally keeps what is frequent; no count is lower by more than it says."""
    random = np.random.default_rng(1)
    tally = Tally(values_kept_max=100)
    texts = [f"rare {number}" for number in range(5000)] + ["often"] * 3000 + ["seldom"] * 900
    random.shuffle(texts)
    for start in range(0, len(texts), 500):
        part, counts = np.unique(texts[start : start + 500], return_counts=True)
        tally.add(pa.array([*part.tolist(), None]), np.array([*counts, 7]))
    (first, often), (second, seldom) = tally.top(2)
    assert (first, second) == ("often", "seldom")
    assert 3000 - tally.undercount_max <= often <= 3000
    assert 900 - tally.undercount_max <= seldom <= 900


@given(st.lists(st.text(max_size=9), max_size=40), st.integers(0, 5))
def test_texts_have_equal_hashes_where_they_are_equal(texts, skipped):
    """Whatever stands before and after them, and whether the column was cut."""
    column = pa.array([*("x" * skipped), *texts, "z"], pa.string()).slice(skipped, len(texts))
    hashes = hashes_of(column)
    assert len(set(hashes.tolist())) == len(set(texts))
    assert [hashes_of(pa.array([text], pa.string()))[0] for text in texts] == hashes.tolist()


def test_statistics_of_receipt_agree_with_a_recount(data_dir: Path):
    """Counts, hourly counts and top values by type and source are exactly those of a plain loop, in any batches."""
    events = real_columns(data_dir / "process_mining/receipt.jsonl.gz")
    collector = StatisticsCollector(group_by=("type", "source"), value_fields=("metadata.user",))
    collect(collector, [events.take(rows) for rows in np.array_split(np.arange(len(events)), 7)])
    types, sources, users = (events.labels(name) for name in ("type", "source", "metadata.user"))
    rows = list(
        zip(*([each.text(c) for c in each.codes] for each in (types, sources, users)), events.times, strict=True)
    )
    assert {group.key: group.count for group in collector.groups()} == Counter((t, s) for t, s, _, _ in rows)
    for group in collector.groups():
        mine = [(user, time) for t, s, user, time in rows if (t, s) == group.key]
        assert {hour.local: n for hour, n in group.hours.items()} == Counter(
            int(t) // 3_600_000_000_000 for _, t in mine
        )
        tally = group.values["metadata.user"]
        assert dict(tally.top(1000)) == Counter(user for user, _ in mine)
        assert tally.distinct.count == len({user for user, _ in mine})


def test_durations_failures_and_frequency_of_a_type():
    """The statistics that the specification names, on events whose answer is plain."""
    rows = [
        {
            "type": "job.done",
            "timestamp": minute * _MINUTE_NS,
            "payload.duration_ms": 10.0 * minute,
            "payload.status": status,
        }
        for minute, status in enumerate(["ok", "error", "ok", "500", None])
    ]
    rows.append({"type": "job.failed", "timestamp": 0})
    done, failed = collect(StatisticsCollector(), [columns_of(rows)]).groups()
    assert (done.count, done.failures, failed.error_rate) == (5, 2, 1.0)
    assert done.durations.mean == 20.0
    assert done.distribution.percentiles([50, 100]) == {50: 20.0, 100: 40.0}
    assert done.frequency() == 1.25
    assert done.frequency((0, 10 * _MINUTE_NS)) == 0.5


def test_groups_are_bounded():
    """The most frequent ones are told, wherever they come; events of the others are counted apart, not lost."""
    rows = [{"type": f"t{number:04}"} for number in range(GROUPS_MAX + 5)]
    collector = collect(StatisticsCollector(), [columns_of(rows), columns_of(rows[3:])])
    assert len(collector.groups()) == GROUPS_MAX
    assert {group.key[0] for group in collector.groups()}.isdisjoint({"t0000", "t0001", "t0002"})
    assert collector.events_elsewhere == 3 + 2 * 2


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), st.integers(1, 5), st.integers(1, 6))
def test_the_most_frequent_groups_are_told_however_they_come(types, pieces, groups_max):
    """Every group that is told has at least as many events as each of the others; nothing is lost."""
    parts = [columns_of([{"type": kind} for kind in part]) for part in np.array_split(types, pieces) if len(part)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector_module, "GROUPS_MAX", groups_max)
        collector = collect(StatisticsCollector(), parts)
    counts = Counter(types)
    told = {group.key[0]: group.count for group in collector.groups()}
    assert told == {kind: counts[kind] for kind in told}
    assert sorted(told.values(), reverse=True) == sorted(counts.values(), reverse=True)[:groups_max]
    assert collector.events_elsewhere == len(types) - sum(told.values())


def test_frequent_groups_survive_when_there_is_no_room_for_all(monkeypatch: pytest.MonkeyPatch):
    """Memory is bounded: of ever new groups, those that come often are kept."""
    monkeypatch.setattr(frequent, "HASHES_MAX", 50)
    groups = frequent.FrequentGroups()
    often = hashes_of(pa.array(["often", "too"], pa.string()))
    for start in range(0, 2_000, 40):
        rare = hashes_of(pa.array([f"rare {number}" for number in range(start, start + 40)], pa.string()))
        groups.add(np.concatenate([often, rare]), np.array([9, 8, *_ones(rare)]))
    assert groups.most(2).tolist() == often.tolist()


def test_a_missing_field_is_another_group_than_an_empty_one():
    """Also where there are so many groups that they are told apart by hashes."""
    rows = [{"type": "a", "source": None}] * 3 + [{"type": "a", "source": ""}] * 2 + [{"type": "a", "source": "x"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector_module, "GROUPS_MAX", 2)
        groups = collect(StatisticsCollector(group_by=("type", "source")), [columns_of(rows)]).groups()
    assert [(group.key, group.count) for group in groups] == [(("a", None), 3), (("a", ""), 2)]


def test_long_values_are_bounded_in_bytes():
    """Of long texts fewer are kept; what may be missing of a count is told."""
    tally = Tally(bytes_max=2_000)
    for number in range(40):
        tally.add(pa.array(["x" * 500, f"{number:0>400}"]), np.array([2, 1]))
    assert tally.top(1) == [("x" * 500, 80)]
    assert len(tally.top(100)) <= 10
    assert tally.undercount_max > 0


def test_many_durations_are_estimated(monkeypatch: pytest.MonkeyPatch):
    """Beyond those that are kept exactly, percentiles are within the error that is told."""
    monkeypatch.setattr(collector_module, "EXACT_VALUES_MAX", 99)
    rows = [{"type": "t", "payload.duration_ms": float(number)} for number in range(1, 101)]
    (group,) = collect(StatisticsCollector(), [columns_of(rows[:50]), columns_of(rows[50:])]).groups()
    assert not group.distribution.exact
    assert group.distribution.percentiles([50]) == {50: pytest.approx(50, rel=RELATIVE_ERROR * 1.0001)}
    (exactly,) = collect(StatisticsCollector(), [columns_of(rows[:99])]).groups()
    assert exactly.distribution.percentiles([50]) == {50: 50}


def test_hours_are_right_long_after_today_and_with_strange_names():
    """In 2040 there is daylight saving as the rules say; whatever zoneinfo knows is a time zone."""
    summer = np.array([nanoseconds("2040-07-01T12:30:00")], np.int64)
    (hour,) = count_hours(hours_of(summer, "Europe/Berlin"), _ones(summer))
    assert hour.format() == "2040-07-01T14:00:00+02:00"
    ends = np.array([-(2**63), 2**63 - 1], np.int64)
    for zone in ("Pacific/Kiritimati", "America/New_York", "UTC"):
        assert sum(count_hours(hours_of(ends, zone), _ones(ends)).values()) == 2


def test_a_field_that_is_named_twice_is_refused():
    """By its name, wherever it is named."""
    for options in ({"group_by": ("type", "type")}, {"value_fields": ("source", "source")}):
        with pytest.raises(EventValidationException, match="twice"):
            StatisticsCollector(**options)


def test_at_most_three_fields_are_grouped_by():
    """A fourth one is refused."""
    with pytest.raises(EventValidationException, match="at most 3"):
        StatisticsCollector(group_by=("type", "source", "user", "host"))


def test_what_changed_most_comes_first():
    """A rate that tripled is more surprising than one that is as it was; a new type has no ratio."""
    before = [{"type": "steady"}] * 500 + [{"type": "busy"}] * 100
    after = [{"type": "steady"}] * 505 + [{"type": "busy"}] * 300 + [{"type": "new"}]
    groups = [collect(StatisticsCollector(), [columns_of(rows)]).groups() for rows in (after, before)]
    changes = compare(*groups, now_minutes=60, then_minutes=60)
    assert [change.key for change in changes] == [("busy",), ("new",), ("steady",)]
    assert changes[0].rate_ratio == 3.0
    assert changes[0].surprise > 4
    assert changes[1].then is None
    assert changes[1].rate_ratio == math.inf
    assert abs(changes[2].surprise) < 1
