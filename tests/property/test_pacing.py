"""Pacing as functions of time: nothing drifts, whatever the events, the batches, the speeds and the pauses."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_service.pacing import BURST_S, TOGETHER_S, UNPACED, Playback, RateLimit, Timeline
from tests.support.fake_clock import FakeClock

SECOND = 1_000_000_000
SPEEDS = st.floats(0.1, 1000.0)
# Any time that an event may have.
TIMES = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50)
NEAR_TIMES = st.lists(st.integers(0, 10**15), min_size=1, max_size=50)


def timeline_of(times: list[int], *, gap_max_ns: int | None = None, cuts: set[int] = frozenset()) -> list[int]:
    """Playback times of events that come in batches which end at the cuts."""
    timeline = Timeline(gap_max_ns)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(times)), len(times)]
    batches = [times[start:end] for start, end in pairwise(edges)]
    return [int(each) for batch in batches for each in timeline.extend(np.array(batch, np.int64))]


def expected_timeline(times: list[int], gap_max_ns: int | None) -> list[int]:
    """The same with Python's integers, which have no bounds."""
    found, latest, at = [], times[0], 0
    for time in times:
        gap = max(time - latest, 0)
        at += gap if gap_max_ns is None else min(gap, gap_max_ns)
        latest = max(latest, time)
        found.append(at)
    return found


@given(TIMES, st.none() | st.integers(0, 2**62), st.sets(st.integers(1, 50), max_size=5))
def test_timeline_is_exact_for_any_times_in_any_batches(times, gap_max_ns, cuts):
    """Playback times are the distances from the first event, gaps capped, to the nanosecond; never decreasing."""
    assert timeline_of(times, gap_max_ns=gap_max_ns, cuts=cuts) == expected_timeline(times, gap_max_ns)


@given(st.integers(0, 2**32 - 1), SPEEDS)
def test_schedule_does_not_drift_over_a_hundred_thousand_events(seed, speed):
    """The last of 100,000 events is due where its time says, to the microsecond, as if none were before it."""
    gaps = np.random.default_rng(seed).integers(0, 50_000_000, 100_000)
    times = 1_700_000_000 * SECOND + np.cumsum(gaps)
    timeline, playback = Timeline(), Playback(speed=speed, now_s=1000.0)
    playback_ns = [timeline.extend(batch) for batch in np.array_split(times, 100)][-1][-1]
    exact_s = 1000.0 + (int(times[-1]) - int(times[0])) / SECOND / speed
    assert playback.due_s(int(playback_ns)) == pytest.approx(exact_s, abs=1e-6)


@given(NEAR_TIMES, SPEEDS)
def test_events_go_when_they_are_due_and_no_more_than_the_tolerance_before(times, speed):
    """At each moment exactly the events that are due by then, or within TOGETHER_S, are counted."""
    timeline, clock = Timeline(), FakeClock()
    playback = Playback(speed=speed, now_s=clock.monotonic_s())
    playback_ns = timeline.extend(np.array(times, np.int64))
    given_events = 0
    while given_events < len(times):
        count = playback.due_count(playback_ns[given_events:], clock.monotonic_s())
        for at in playback_ns[given_events : given_events + count]:
            assert playback.due_s(int(at)) <= clock.monotonic_s() + TOGETHER_S + 1e-6
        given_events += count
        if given_events < len(times):
            due_s = playback.due_s(int(playback_ns[given_events]))
            assert due_s > clock.monotonic_s() + TOGETHER_S - 1e-6
            clock.advance(max(due_s - clock.monotonic_s(), 1e-6))


@given(st.lists(st.tuples(st.floats(0.001, 1000.0), SPEEDS | st.just(None), st.sampled_from([None, True, False]))))
def test_changes_of_speed_and_pauses_lose_nothing(changes):
    """Where playback is after any changes is the sum over the stretches between them of their time by their speed."""
    clock = FakeClock()
    playback = Playback(speed=1.0, now_s=clock.monotonic_s())
    reached, speed, paused = 0.0, 1.0, False
    for seconds, new_speed, new_paused in changes:
        clock.advance(seconds)
        reached += 0.0 if paused else seconds * speed
        playback.change(clock.monotonic_s(), given_ns=0, speed=new_speed, paused=new_paused)
        speed = speed if new_speed is None else new_speed
        paused = paused if new_paused is None else new_paused
    playback.change(clock.monotonic_s(), given_ns=0, paused=False)
    assert playback.due_s(int(reached * SECOND)) == pytest.approx(clock.monotonic_s(), abs=1e-4)


def test_paused_replay_has_nothing_due():
    """While paused nothing is due, at any speed, and no moment is named at which something will be."""
    for speed in (UNPACED, 1.0):
        playback = Playback(speed=speed, now_s=0.0)
        playback.change(0.0, given_ns=0, paused=True)
        assert playback.due_count(np.zeros(3, np.uint64), 1e9) == 0
        assert playback.due_s(0) == math.inf


def test_unpaced_replay_that_gets_a_speed_goes_on_from_what_was_given():
    """From a change of unpaced to a speed on, the next event is due its distance from the last given one later."""
    playback = Playback(speed=UNPACED, now_s=0.0)
    assert playback.due_count(np.array([0, 10**18], np.uint64), 0.0) == 2
    playback.change(5.0, given_ns=7 * SECOND, speed=2.0)
    assert playback.due_s(9 * SECOND) == pytest.approx(6.0)


def test_late_replay_keeps_its_schedule():
    """What is late is due at once, and what comes after it when it always was."""
    timeline, playback = Timeline(), Playback(speed=1.0, now_s=0.0)
    playback_ns = timeline.extend(np.arange(10, dtype=np.int64) * SECOND)
    assert playback.due_count(playback_ns, 6.5) == 7
    assert playback.due_s(int(playback_ns[7])) == pytest.approx(7.0)


@given(st.floats(0.5, 50_000.0), st.lists(st.floats(0.0, 0.5), min_size=1, max_size=100))
def test_rate_limit_holds_over_every_second(limit, pauses):
    """However often it is asked, over any second no more pass than the limit, 1 % of it, and one."""
    clock, rate = FakeClock(), RateLimit(limit)
    passed = []
    for pause in pauses:
        clock.advance(pause)
        passed.append((clock.monotonic_s(), rate.take(10**9, clock.monotonic_s())))
    for at, (start_s, _) in enumerate(passed):
        within = sum(count for time_s, count in passed[at:] if time_s < start_s + 1.0)
        assert within <= limit * (1 + BURST_S) + 1 + 1e-6


@given(st.floats(0.5, 50_000.0))
def test_rate_limit_is_reached(limit):
    """Asked whenever it says that more may pass, it lets through what the limit allows, and not less."""
    clock, rate = FakeClock(), RateLimit(limit)
    start_s, count = clock.monotonic_s(), 0
    while count < 200:
        count += rate.take(1, clock.monotonic_s())
        clock.advance(max(rate.next_s - clock.monotonic_s(), 0.0))
    assert count / (clock.monotonic_s() - start_s + BURST_S + 1 / limit) <= limit * 1.01
    assert count / max(clock.monotonic_s() - start_s, 1e-9) >= limit * 0.99
