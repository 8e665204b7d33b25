"""Patterns on real process logs and on made-up ones, each frequency against a recount that is plain to see."""

from collections import Counter, defaultdict
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis_service.budget import Budget
from analysis_service.columns import EventColumns
from analysis_service.patterns.bursts import burst_ranges, bursts
from analysis_service.patterns.cases import group_into_cases
from analysis_service.patterns.co_occurrence import co_occurrences
from analysis_service.patterns.flows import directly_follows, variants, variants_of
from analysis_service.patterns.gapped import gapped_sequences
from analysis_service.patterns.pattern import Pattern, PatternRequest
from analysis_service.patterns.periodic import periodic
from analysis_service.patterns.sequences import sequences
from analysis_service.patterns.subsequences import SubsequenceMiner
from shared.filters.parser import parse_filter
from tests.support.event_columns import columns_of, real_columns

_SECOND = 1_000_000_000
FINDERS = (sequences, gapped_sequences, directly_follows, variants, co_occurrences)


@pytest.fixture(scope="module", params=["receipt", "helpdesk"])
def process(request, data_dir: Path) -> tuple[str, EventColumns]:
    """Name and events of a real process log."""
    return request.param, real_columns(data_dir / f"process_mining/{request.param}.jsonl.gz")


def _request(events: EventColumns, min_occurrence: int, **parameters) -> PatternRequest:
    return PatternRequest(events, "correlation_id", 60.0, min_occurrence, parameters)


def _sequences(events: EventColumns) -> list[tuple[str, ...]]:
    """Types of each case, by a plain loop."""
    labels, types = events.labels("correlation_id"), events.labels("type")
    cases = defaultdict(list)
    for row in sorted(range(len(events)), key=lambda row: (events.times[row], events.positions[row])):
        if (case := labels.text(labels.codes[row])) is not None:
            cases[case].append(types.text(types.codes[row]))
    return [tuple(case) for case in cases.values()]


def _holds(sequence, pattern) -> bool:
    rest = iter(sequence)
    return all(each in rest for each in pattern)


def _count(pattern: Pattern, cases: list[tuple[str, ...]]) -> int:
    """Occurrences of a pattern by a plain loop, in the meaning of its kind."""
    types, length = pattern.types, len(pattern.types)
    match pattern.kind:
        case "variant":
            return sum(case == types for case in cases)
        case "co_occurrence":
            return sum(set(types) <= set(case) for case in cases)
        case "sequence" if not pattern.contiguous:
            return sum(_holds(case, types) for case in cases)
        case _:
            return sum(case[at : at + length] == types for case in cases for at in range(len(case)))


def test_variants_and_edges_of_real_processes_are_the_known_ones(process):
    """226 and 116 variants, 55 and 99 edges, with the known frequencies."""
    name, events = process
    cases = group_into_cases(events, "correlation_id")
    found = variants_of(cases)
    edges = directly_follows(_request(events, 1))
    facts = (len(found), len(edges), sum(edge.occurrences for edge in edges), max(map(len, found.values())))
    assert facts == {"helpdesk": (226, 55, 16_768, 2_366), "receipt": (116, 99, 7_143, 713)}[name]


def test_closed_gapped_patterns_of_real_processes_are_as_many_as_known(process):
    """At 50, 30 and 10 % support, as PrefixSpan with a closedness check finds them."""
    name, events = process
    cases = group_into_cases(events, "correlation_id")
    found = variants_of(cases)
    weights = [len(members) for members in found.values()]
    numbers = []
    for support in (0.5, 0.3, 0.1):
        miner = SubsequenceMiner(list(found), weights, min_support=ceil(support * len(cases)))
        answer = miner.search(Budget(), length_max=50)
        assert answer.complete
        numbers.append(len(answer.patterns))
    assert numbers == {"receipt": [19, 20, 38], "helpdesk": [11, 11, 41]}[name]


def test_every_frequency_in_real_processes_equals_a_recount(process):
    """Occurrences, support and rate of all kinds; samples are an instance; expressions can be parsed."""
    _, events = process
    cases = _sequences(events)
    at_position = dict(zip(events.positions.tolist(), events.labels("type").codes.tolist(), strict=True))
    types = events.labels("type").values
    for finder in FINDERS:
        found = finder(_request(events, len(cases) // 20))
        assert found, finder.__name__
        for pattern in found:
            assert pattern.occurrences == _count(pattern, cases)
            assert pattern.frequency == pattern.occurrences / 60.0
            assert 0 < pattern.confidence <= 1
            assert pattern.cases / len(cases) == pattern.support
            assert [types[at_position[position]] for position in pattern.samples] == list(pattern.types[:20])
            parse_filter(pattern.expression)


def test_confidence_of_a_sequence_is_its_share_of_the_prefix(process):
    """Recounted for all sequences, contiguous and gapped."""
    _, events = process
    cases = _sequences(events)
    for pattern in [*sequences(_request(events, 500)), *gapped_sequences(_request(events, 500))]:
        prefix = replace(pattern, types=pattern.types[:-1])
        assert pattern.confidence == pytest.approx(pattern.occurrences / _count(prefix, cases))


def test_raising_min_occurrence_never_adds_a_pattern(process):
    """For every kind, also where the search for gapped ones is cut off."""
    _, events = process
    for finder in FINDERS:
        before = None
        for least in (1000, 700, 400, 200):
            found = {(each.types, each.contiguous) for each in finder(_request(events, least, max_steps=60))}
            assert before is None or before <= found, finder.__name__
            before = found


_LISTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=8)


@given(_LISTS, st.integers(1, 4))
def test_closed_subsequences_are_exactly_those_of_the_definition(cases, least):
    """Against trying every subsequence of every case."""
    supports = Counter()
    for case in cases:
        below = {()}
        for code in case:
            below |= {(*each, code) for each in below}
        supports.update(below - {()})
    frequent = {pattern: support for pattern, support in supports.items() if support >= least}
    closed = {
        pattern
        for pattern, support in frequent.items()
        if not any(
            len(other) > len(pattern) and frequent[other] == support and _holds(other, pattern) for other in frequent
        )
    }
    found = SubsequenceMiner(cases, [1] * len(cases), min_support=least).search(Budget(), length_max=20)
    assert {(each.codes, each.support) for each in found.patterns} == {(each, frequent[each]) for each in closed}


@given(_LISTS, st.integers(1, 3), st.integers(0, 4))
def test_subsequences_within_a_span_occur_within_it(cases, least, maxspan):
    """Support counts the cases with an occurrence no longer than the span; one place is one unit of time."""
    times = [list(range(len(case))) for case in cases]
    miner = SubsequenceMiner(cases, [1] * len(cases), min_support=least, times=times, maxspan=maxspan)
    found = miner.search(Budget(), length_max=20)
    assert found.complete
    for each in found.patterns:
        held = [
            number
            for number, case in enumerate(cases)
            if any(_holds(case[at : at + maxspan + 1], each.codes) for at in range(len(case)))
        ]
        assert len(held) == each.support
        assert miner.holding(each.codes) == held


@given(_LISTS, st.integers(1, 3))
def test_closed_runs_are_exactly_those_of_the_definition(cases, least):
    """Runs of 2 to 6 types that no run one longer stands as often as."""
    rows = [{"type": f"t{code}", "correlation_id": f"c{number}"} for number, case in enumerate(cases) for code in case]
    named = [tuple(f"t{code}" for code in case) for case in cases]
    counts = Counter(case[at:end] for case in named for at in range(len(case)) for end in range(at + 1, len(case) + 1))
    expected = {
        run: count
        for run, count in counts.items()
        if 2 <= len(run) <= 6
        and count >= least
        and not any(
            len(longer) == len(run) + 1 and run in {longer[1:], longer[:-1]} and other == count
            for longer, other in counts.items()
        )
    }
    found = sequences(_request(columns_of(rows), least, max_length=6))
    assert {each.types: each.occurrences for each in found} == expected


def test_what_a_limit_cuts_off_is_said_and_is_the_rarest(process):
    """After few steps the patterns found are the most frequent ones, and a note tells below which support some lack."""
    _, events = process
    whole = gapped_sequences(_request(events, 100))
    request = _request(events, 100, max_steps=40)
    part = gapped_sequences(request)
    assert "cut off" in request.notes[0]
    least = min(each.occurrences for each in part)
    assert [each for each in whole if each.occurrences >= least] == part


def test_cancelled_search_stops(process):
    """A budget that is spent ends every search early, with what there is."""
    _, events = process
    request = _request(events, 10)
    request.budget.cancel()
    assert len(sequences(request)) == 0
    assert gapped_sequences(request) == []
    assert len(request.notes) == 2


def test_sequence_within_a_span():
    """Three quick logins in a row count, slow ones do not."""
    rows = [
        {"type": kind, "correlation_id": f"user {user}", "timestamp": number * (1 if user < 3 else 100) * _SECOND}
        for user in range(5)
        for number, kind in enumerate(["fail", "fail", "login"])
    ]
    events = columns_of(rows)
    assert [each.occurrences for each in sequences(_request(events, 2))] == [5]
    (quick,) = sequences(_request(events, 2, maxspan=10))
    (gapped,) = (each for each in gapped_sequences(_request(events, 2, maxspan=10)) if len(each.types) == 3)
    assert quick.types == gapped.types == ("fail", "fail", "login")
    assert (quick.occurrences, gapped.occurrences) == (3, 3)
    assert "within 10 s" in gapped.description


def test_repeated_and_shuffled_events_give_the_same_patterns(process):
    """A position counts once, and the order of the rows does not matter."""
    _, events = process
    rows = np.random.default_rng(2).permutation(np.concatenate((np.arange(len(events)), np.arange(500))))
    shuffled = events.take(rows)
    for finder in FINDERS:
        ours, theirs = (
            sorted((each.types, each.occurrences, each.samples) for each in finder(_request(some, 300)))
            for some in (events, shuffled)
        )
        assert ours == theirs


def test_heartbeats_are_periodic_by_host_and_late_ones_lower_the_confidence():
    """Fourteen hosts out of phase are regular each by itself; a daily rhythm is found in counts."""
    random = np.random.default_rng(4)
    beats = [(host, beat * 300 + host * 7.7 + random.random()) for host in range(14) for beat in range(40)]
    rows = [
        {"type": "beat", "source": "s", "host": f"h{host}", "timestamp": int(at * _SECOND)}
        for host, at in beats
        if random.random() > 0.05
    ]
    found = [each for each in periodic(_request(columns_of(rows), 3)) if "of h" in each.description]
    assert len(found) == 14
    assert all(each.period_s == pytest.approx(300, rel=0.01) for each in found)
    assert 0.7 < min(each.confidence for each in found) < 1
    hours = np.arange(24 * 8)
    times = np.repeat(hours, random.poisson(20 * (1.2 + np.sin(hours * np.pi / 12)))) * 3600 + 0.0
    times += random.random(len(times)) * 3600
    daily = periodic(_request(columns_of([{"type": "visit", "timestamp": int(t * _SECOND)} for t in times]), 3))
    assert daily[0].period_s == pytest.approx(24 * 3600, rel=0.03)


def test_planted_burst_is_found_and_steady_events_have_none():
    """Ten minutes of twenty times the rate are one burst, in its place."""
    random = np.random.default_rng(6)
    steady = np.sort(random.random(6000)) * 86_400
    assert burst_ranges((steady * _SECOND).astype(np.int64)) == []
    extra = 40_000 + random.random(800) * 600
    rows = [{"type": "error", "timestamp": int(t * _SECOND)} for t in np.concatenate((steady, extra))]
    (burst,) = bursts(_request(columns_of(rows), 1))
    ((start, end),) = burst_ranges(np.sort(np.array([row["timestamp"] for row in rows])))
    assert abs(start / _SECOND - 40_000) < 120
    assert abs(end / _SECOND - 40_600) < 120
    assert burst.types == ("error",)
    assert "times as fast" in burst.description
    parse_filter(burst.expression)
