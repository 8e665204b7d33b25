"""Anomalies: the benchmark, planted incidents, quiet weeks, real audit events, and robustness to how events arrive."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from analysis_service.anomalies.behaviour import BehaviourDetector
from analysis_service.anomalies.detect import AnomalyDetector, Options, detect
from analysis_service.anomalies.incident import DEFAULT_SENSITIVITY, strength_needed
from analysis_service.anomalies.novelty import NoveltyDetector
from analysis_service.anomalies.rates import RateDetector
from analysis_service.columns import EventColumns
from deploy.demo.incidents import by_kind
from deploy.demo.simulator import Simulation
from shared.filters.parser import parse_filter
from tests.support.event_columns import columns_of, document_columns, real_columns
from tests.support.nab import (
    STANDARD,
    Series,
    best_score,
    read_corpus,
    scaled_sigmoid,
    score_detections,
    windowed_gaussian,
)
from tests.support.quiet_platform import quiet_events, with_faster_minutes
from tests.support.rhythmic_events import rhythmic_events

_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND
_DAY = 1440 * _MINUTE
_START = int(datetime(2024, 1, 15, tzinfo=UTC).timestamp()) * _SECOND


@pytest.fixture(scope="module")
def corpus(data_dir: Path) -> list[Series]:
    """The part of the Numenta Anomaly Benchmark that is given."""
    return read_corpus(data_dir / "nab")


@pytest.fixture(scope="module")
def quiet_day() -> EventColumns:
    """A day on which nothing goes wrong."""
    return quiet_events(days=1, seed=5)


def _days(number: float, **options) -> Options:
    return Options(_START, _START + int(number * _DAY), **options)


def _facts(incidents) -> list[tuple]:
    return [(each.kind, each.types, each.start_ns, each.end_ns, round(each.strength, 6)) for each in incidents]


def test_scorer_gives_nothing_for_silence_and_all_for_perfection(corpus):
    """A detector that never fires scores 0; one that fires at the start of each window, and nowhere else, 100."""
    silent = {series.name: np.zeros(len(series.values)) for series in corpus}
    assert best_score(corpus, silent, STANDARD)[0] == 0
    perfect = {name: scores.copy() for name, scores in silent.items()}
    for series in corpus:
        perfect[series.name][[first for first, _ in series.windows]] = 1
    assert best_score(corpus, perfect, STANDARD)[0] == pytest.approx(100)
    assert score_detections(corpus, perfect, STANDARD) == pytest.approx(100)


def test_scorer_weighs_by_place_as_published():
    """The sigmoid's published values: 0.9866 at the start of a window, 0 at its end, -0.9999 far behind it."""
    assert scaled_sigmoid(-1) == pytest.approx(0.98661, abs=1e-5)
    assert scaled_sigmoid(0) == 0
    assert scaled_sigmoid(1) == pytest.approx(-0.98661, abs=1e-5)
    assert scaled_sigmoid(3.1) == -1


def test_scorer_ranks_the_published_baselines_as_published(corpus):
    """On the whole corpus the windowed Gaussian has 39.6 and random scores have 11: near them on the part given."""
    gaussian = best_score(corpus, {each.name: windowed_gaussian(each.values) for each in corpus}, STANDARD)[0]
    random = np.random.default_rng(0)
    by_chance = best_score(corpus, {each.name: random.random(len(each.values)) for each in corpus}, STANDARD)[0]
    assert gaussian == pytest.approx(39.6, abs=4)
    assert by_chance == pytest.approx(11, abs=5)


def test_value_incidents_score_above_65_on_the_benchmark(corpus):
    """Every series as events, one default sensitivity for all, an incident's start counts as the detection."""
    found = {}
    for series in corpus:
        count = len(series.values)
        table = {
            "timestamp": pa.array(series.times, pa.timestamp("ns", tz="UTC")),
            "position": np.arange(1, count + 1),
            "type": pa.array([series.name] * count),
            "source": pa.array(["nab"] * count),
            "payload.value": series.values,
        }
        options = Options(
            int(series.times[0]), int(series.times[-1]) + 1, kinds=("value",), value_fields=("payload.value",)
        )
        incidents = detect(EventColumns(pa.table(table)), options)
        found[series.name] = np.zeros(count)
        found[series.name][np.searchsorted(series.times, [each.start_ns for each in incidents])] = 1
    assert score_detections(corpus, found, STANDARD) > 65


@pytest.mark.parametrize(("hour", "seed"), [(9, 5), (15, 7), (20, 11)])
def test_five_times_the_rate_for_two_minutes_is_the_first_incident(hour, seed):
    """One incident, ranked first, with both minutes in it, at full hours of simulated days (see decision 14)."""
    planted = _START + hour * 60 * _MINUTE
    events = with_faster_minutes(quiet_events(days=1, seed=seed), planted, minutes=2, factor=5)
    incidents = detect(events, _days(1))
    first = incidents[0]
    assert first.kind == "rate"
    assert first.start_ns == planted
    assert planted + 2 * _MINUTE <= first.end_ns <= planted + 5 * _MINUTE
    assert sum(each.start_ns < first.end_ns and each.end_ns > planted for each in incidents) == 1
    assert first.actual > first.expected_high
    inside = set(events.positions[(events.times >= first.start_ns) & (events.times < first.end_ns)].tolist())
    assert first.positions
    assert set(first.positions) <= inside
    parse_filter(first.expression)


@pytest.mark.parametrize(("a_minute", "swing"), [(60, 0.8), (15, 0.8), (15, 0)])
def test_incidents_at_random_minutes_of_regular_days_come_first(a_minute: float, swing: float):
    """By day and by night: of eight days at least seven, at minutes and with seeds that nothing was chosen by."""
    found = 0
    for seed in range(501, 509):
        planted = _START + int(np.random.default_rng(seed).integers(180, 1430)) * _MINUTE
        quiet = rhythmic_events(_START, seed=seed, a_minute=a_minute, swing=swing)
        events = with_faster_minutes(quiet, planted, minutes=2, factor=5)
        first = next(iter(detect(events, _days(1, kinds=("rate",)))), None)
        found += first is not None and first.start_ns == planted and first.end_ns <= planted + 5 * _MINUTE
    assert found >= 7


def test_incidents_at_random_minutes_of_busy_simulated_days_come_first():
    """Three times as many sessions: of twelve windows with at least 60 events at least ten, by day and by night."""
    found: list[bool] = []
    for seed in range(601, 605):
        quiet = quiet_events(days=1, seed=seed, scale=3)
        minutes = (quiet.times - _START) // _MINUTE
        counts = np.bincount(minutes, minlength=1442)
        busy = 180 + np.flatnonzero(counts[180:1430] + counts[181:1431] >= 60)
        for minute in np.random.default_rng(seed).choice(busy, 3, replace=False).tolist():
            planted = _START + minute * _MINUTE
            incidents = detect(with_faster_minutes(quiet, planted, minutes=2, factor=5), _days(1, kinds=("rate",)))
            first = next(iter(incidents), None)
            found.append(
                first is not None
                and first.start_ns == planted
                and planted + 2 * _MINUTE <= first.end_ns <= planted + 5 * _MINUTE
            )
    assert sum(found) >= 10


def test_quiet_week_has_at_most_one_incident_a_day():
    """At the default sensitivity, all detectors together."""
    incidents = detect(quiet_events(days=7, seed=24), _days(7))
    by_day = np.bincount([(each.start_ns - _START) // _DAY for each in incidents], minlength=7)
    assert by_day.max() <= 1


def test_what_goes_wrong_in_the_simulation_is_found():
    """The silent worker, the retry storm, the broken roll-out and the type that never occurred before."""
    simulation = Simulation(days=7, seed=1)
    events = document_columns((msgspec.json.encode(each) for each in simulation.documents()), payload=["duration_ms"])
    incidents = detect(events, _days(7))

    def found(kind: str, event_type: str, name: str) -> bool:
        truth = by_kind(simulation.incidents(), name)
        start, end = (int(each.timestamp()) * _SECOND for each in (truth.start, truth.end))
        return any(
            each.kind == kind and event_type in each.types and each.start_ns <= end + _MINUTE and each.end_ns >= start
            for each in incidents
        )

    assert found("missing", "worker.heartbeat", "silent_worker")
    assert found("rate", "process.retry.attempted", "retry_storm")
    assert found("rate", "deployment.host.updated", "error_burst")
    assert found("new_type", "audit.template.exported", "audit.template.exported")
    (silent,) = (each for each in incidents if each.kind == "missing")
    assert "worker-06" in silent.explanation
    assert "worker-06" in silent.expression


def test_unusual_types_of_the_intrusion_are_among_the_first_ten(data_dir: Path):
    """Remote threads, explicit credentials, failed logons, cleared logs, share access, among real audit events."""
    events = real_columns(data_dir / "windows_audit/events.jsonl.gz")
    options = Options(int(events.times.min()), int(events.times.max()) + 1)
    named = {kind for incident in detect(events, options)[:10] for kind in incident.types}
    assert {
        "microsoft_windows_sysmon_operational.8",
        "security.4648",
        "security.4625",
        "security.4776",
        "system.104",
        "security.5145",
        "security.4797",
    } <= named


def test_a_type_that_occurs_once_is_told_beside_frequent_ones():
    """Whether they come before or after it in the alphabet."""
    rows = [{"type": ("alpha", "zeta")[at % 2], "timestamp": _START + at * _SECOND} for at in range(40_000)]
    rows.insert(39_000, {"type": "beta.once", "timestamp": _START + 39_000 * _SECOND})
    (incident,) = detect(columns_of(rows), _days(1, kinds=("new_type", "rare_type")))
    assert incident.types == ("beta.once",)
    assert incident.positions == (39_001,)


def test_order_repetition_and_pieces_do_not_matter(quiet_day: EventColumns):
    """Shuffled and with every fifth event delivered twice, history gives the same incidents."""
    events = with_faster_minutes(quiet_day, _START + 15 * 60 * _MINUTE, minutes=2, factor=5)
    random = np.random.default_rng(1)
    rows = random.permutation(np.concatenate((np.arange(len(events)), np.arange(0, len(events), 5))))
    assert _facts(detect(events.take(rows), _days(1))) == _facts(detect(events, _days(1)))


def test_live_form_finds_what_history_finds(quiet_day: EventColumns):
    """Batches of two minutes, some events late by up to 50 seconds and some repeated: the same rate incidents."""
    events = with_faster_minutes(quiet_day, _START + 15 * 60 * _MINUTE, minutes=2, factor=5)
    random = np.random.default_rng(2)
    arrives = events.times + random.integers(0, 50 * _SECOND, len(events)) * (random.random(len(events)) < 0.1)
    order = np.argsort(arrives, kind="stable")
    live = AnomalyDetector(Options(_START, None, kinds=("rate", "missing")))
    pieces = np.split(order, np.flatnonzero(np.diff(arrives[order] // (120 * _SECOND))) + 1)
    for before, piece in zip([order[:3], *pieces], pieces, strict=False):
        live.advance(events.take(np.concatenate((piece, before[:3]))))
    assert live.late_events == 0
    seen = live.incidents()
    live.finish()
    history = detect(events, _days(1, kinds=("rate", "missing")))
    assert _facts(live.incidents()) == _facts(history)
    assert _facts(seen) == _facts(history)


def test_event_that_comes_too_late_is_counted_and_changes_nothing(quiet_day: EventColumns):
    """Beyond the lateness that is waited for, the order could not be kept any more."""
    live = AnomalyDetector(Options(_START, None, kinds=("rate",)))
    later = quiet_day.times > _START + 600 * _MINUTE
    live.advance(quiet_day.take(later))
    live.advance(quiet_day.take(~later))
    assert live.late_events == int((~later).sum())


def test_sensitivity_only_adds_incidents():
    """What a lower sensitivity finds, a higher one finds too; 1 is the measure of the default."""
    assert strength_needed(DEFAULT_SENSITIVITY) == 1
    simulation = Simulation(days=2, seed=3)
    events = document_columns(msgspec.json.encode(each) for each in simulation.documents())
    kinds = ("missing", "new_type", "rare_type")
    numbers = [len(detect(events, _days(2, kinds=kinds, sensitivity=each))) for each in (0, 0.5, 0.95, 1)]
    assert numbers == sorted(numbers)
    assert numbers[-1] > 0


def test_long_incident_is_one_and_stays_out_of_what_is_usual():
    """Half an hour of six times the rate is one incident, up to its last minute."""
    random = np.random.default_rng(3)
    times = [random.integers(0, _DAY, 7200), 700 * _MINUTE + random.integers(0, 30 * _MINUTE, 750)]
    rows = [{"type": "request", "source": "web", "timestamp": _START + int(time)} for time in np.concatenate(times)]
    (incident,) = detect(columns_of(rows), _days(1, kinds=("rate",)))
    assert incident.start_ns == _START + 700 * _MINUTE
    assert incident.end_ns == _START + 730 * _MINUTE
    assert not incident.ongoing


def test_rhythm_of_the_week_is_learnt_when_there_are_two():
    """A peak each Monday at ten is told until two weeks are known, not after."""
    random = np.random.default_rng(4)
    detector = RateDetector(needed=0.9)
    rows = []
    for week in range(5):
        times = [np.sort(random.integers(0, 7 * _DAY, 10_080)), 600 * _MINUTE + random.integers(0, 60 * _MINUTE, 1200)]
        rows += [_START + week * 7 * _DAY + int(time) for time in np.sort(np.concatenate(times))]
    detector.advance(columns_of([{"type": "t", "source": "s", "timestamp": time} for time in sorted(rows)]))
    weeks = {(each.start_ns - _START) // (7 * _DAY) for each in detector.incidents()}
    assert weeks <= {0, 1}


def test_silence_of_many_is_one_incident_that_lasts():
    """All hosts stop at once, and nothing comes until the end: one ongoing incident."""
    rows = [
        {"type": "beat", "source": "s", "host": f"h{host}", "timestamp": _START + (beat * 60 + host) * _SECOND}
        for host in range(5)
        for beat in range(100)
    ]
    (incident,) = detect(columns_of(rows), _days(0.25, kinds=("missing",)))
    assert incident.ongoing
    assert "5 streams" in incident.explanation
    assert incident.end_ns == _START + _DAY // 4


def test_case_unlike_all_before_is_told_and_usual_ones_are_not():
    """Orders that skip the payment, among a thousand that vary a little."""
    random = np.random.default_rng(5)
    rows = []
    for case in range(1000):
        steps = ["order", "pay", *(["retry"] * int(random.integers(0, 3))), "ship", "done"]
        if case == 800:
            steps = ["order", "refund", "refund", "ship", "close"]
        rows += [
            {
                "type": step,
                "source": "s",
                "correlation_id": f"case {case}",
                "timestamp": _START + (case * 60 + number) * _SECOND,
            }
            for number, step in enumerate(steps)
        ]
    detector = BehaviourDetector(needed=1.0)
    detector.advance(columns_of(rows), _START)
    detector.finish()
    (incident,) = detector.incidents()
    assert incident.expression == "correlation_id = 'case 800'"
    assert "unlike" in incident.explanation


def test_novelty_does_not_depend_on_the_scale_of_a_series():
    """Values in thousands or in millionths have the same novelty; history is bounded."""
    random = np.random.default_rng(6)
    values = np.sin(np.arange(9000) / 50) + random.normal(0, 0.05, 9000)
    values[8500] = 9
    ours, theirs = (NoveltyDetector(), NoveltyDetector())
    novelty = np.array([ours.push(value) for value in values.tolist()])
    scaled = np.array([theirs.push(value * 1024.0) for value in values.tolist()])
    assert novelty == pytest.approx(scaled, abs=1e-6)
    assert int(np.argmax(novelty[1000:])) + 1000 == 8500


def test_silence_is_told_as_time_passes_without_events():
    """Where the log is followed and nothing comes any more, the clock alone shows what is missing."""
    rows = [{"type": "beat", "source": "s", "host": "h", "timestamp": _START + beat * _MINUTE} for beat in range(50)]
    live = AnomalyDetector(Options(_START, None, kinds=("missing",)))
    live.advance(columns_of(rows))
    assert live.incidents() == []
    live.pass_time(_START + 60 * _MINUTE)
    (incident,) = live.incidents()
    assert incident.ongoing


def test_case_is_judged_whole_however_its_events_arrive():
    """Followed live, a usual case whose events come in pieces is not taken for several strange ones."""
    steps = ("order", "pay", "ship", "done")
    rows = [
        {"type": step, "source": "s", "correlation_id": f"case {case}", "timestamp": _START + (case + number) * _MINUTE}
        for case in range(300)
        for number, step in enumerate(steps)
    ]
    rows.sort(key=lambda row: row["timestamp"])
    live = AnomalyDetector(Options(_START, None, kinds=("unusual_case",)))
    events = columns_of(rows)
    for piece in np.array_split(np.arange(len(events)), 240):
        live.advance(events.take(piece))
    live.finish()
    assert live.incidents() == []
