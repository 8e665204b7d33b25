"""The simulated platform: repeatable, sound, alive, and with incidents where it says they are."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median

import orjson
import pytest

from deploy.demo import cast
from deploy.demo.incidents import RARE_TYPE
from deploy.demo.simulator import START, Simulation
from shared.errors import EventConfigException
from shared.events.document import parse_document, to_document
from shared.events.registry import STANDARD_EVENTS, standard_registry
from shared.events.timestamps import parse_timestamp, to_datetime

WEEK = Simulation(days=7, seed=3)


@pytest.fixture(scope="module")
def week() -> list[dict]:
    """The events of a week."""
    return list(WEEK.documents())


@pytest.fixture(scope="module")
def incidents() -> dict:
    """The incidents of that week by kind."""
    return {incident.kind: incident for incident in WEEK.incidents()}


def happened_at(document) -> datetime:
    """When an event happened."""
    return to_datetime(parse_timestamp(document["timestamp"]))


def within(documents, incident):
    """Events while an incident lasted."""
    return [document for document in documents if incident.start <= happened_at(document) <= incident.end]


def test_same_seed_gives_same_events():
    """A simulation can be repeated, to the byte; another seed gives others."""
    one, two, other = (list(Simulation(days=1, seed=seed).documents()) for seed in (1, 1, 2))
    assert list(map(orjson.dumps, one)) == list(map(orjson.dumps, two))
    assert list(map(orjson.dumps, one)) != list(map(orjson.dumps, other))


def test_events_are_sorted_by_time(week):
    """No event comes before one that happened earlier, and none before the start."""
    times = [parse_timestamp(document["timestamp"]) for document in week]
    assert times == sorted(times)
    assert to_datetime(times[0]) >= START
    assert to_datetime(times[-1]) < START + timedelta(days=7, hours=6)


def test_every_standard_type_occurs_and_fits_its_schema(week):
    """The simulation plays all standard event types, with payloads that the registry accepts."""
    registry = standard_registry()
    seen = set()
    for document in week:
        if document["type"] in STANDARD_EVENTS:
            registry.validate(document["type"], document["payload"])
            seen.add(document["type"])
    assert seen == set(STANDARD_EVENTS)


def test_events_have_the_document_form(week):
    """What is simulated reads as documents of the specification, and is written as it was read."""
    for document in week[::50]:
        line = orjson.dumps(document)
        assert orjson.loads(to_document(parse_document(line))) == {"id": None, **document}


def test_platform_has_a_daily_and_a_weekly_rhythm(week):
    """Sessions start in the daytime of their region, and hardly any at a weekend."""
    starts = [document for document in week if document["type"] == "hook.session.start"]
    weekday, hour = Counter(), Counter()
    for document in starts:
        region = document["metadata"]["tags"][1]
        local = happened_at(document) + timedelta(hours=cast.UTC_OFFSET_H[region])
        weekday[local.weekday()] += 1
        hour[local.hour] += 1
    assert weekday[5] + weekday[6] < weekday[0] / 3
    assert sum(hour[each] for each in range(6)) < 5
    assert hour[10] > 3 * hour[18]
    assert hour[12] < hour[10]


def test_runs_are_whole_chains(week):
    """A run starts once and first, ends once, plays its stages in order, and says what caused it."""
    chains = defaultdict(list)
    for document in week:
        chains[document["correlation_id"]].append(document)
    runs = {chain: events for chain, events in chains.items() if chain and chain.startswith("pipe_")}
    assert len(runs) > 1000
    for events in runs.values():
        types = [event["type"] for event in events]
        assert types[0] == "pipeline.started"
        assert Counter(types)["pipeline.completed"] + Counter(types)["pipeline.failed"] == 1
        assert types[-1] in {"pipeline.completed", "pipeline.failed"}
        planned = events[0]["payload"]["stages"]
        played = [event["payload"]["stage"] for event in events if event["type"] == "pipeline.stage.started"]
        assert played == planned[: len(played)]
        assert events[0]["payload"]["caused_by"] in chains


def test_sessions_have_one_user_from_start_to_stop(week):
    """All that happens in a session has its user and lies between its start and the end of what it started."""
    sessions = defaultdict(list)
    for document in week:
        sessions[document["metadata"]["session_id"]].append(document)
    del sessions[None]
    assert len(sessions) > 1000
    for events in sessions.values():
        assert events[0]["type"] == "hook.session.start"
        assert [event["type"] for event in events].count("hook.session.stop") == 1
        assert len({event["metadata"]["user"] for event in events}) == 1


def test_tool_calls_come_in_pairs(week):
    """Before and after of a tool call share the call's id, and the tool."""
    calls = defaultdict(list)
    for document in week:
        if document["type"].startswith("hook.tool."):
            calls[document["correlation_id"]].append((document["type"], document["payload"]["tool"]))
    assert all(
        [each[0] for each in call] == ["hook.tool.before", "hook.tool.after"] and call[0][1] == call[1][1]
        for call in calls.values()
    )


def test_durations_are_skewed(week):
    """Durations are lognormal: the mean lies above the median, and none is negative."""
    durations = [d["payload"]["duration_ms"] for d in week if d["type"] == "process.extraction.completed"]
    assert min(durations) > 0
    assert sum(durations) / len(durations) > 1.05 * median(durations)
    assert 900 < median(durations) < 1400


def test_slow_host_is_slow_for_two_hours(week, incidents):
    """The slow extraction shows on its host and in its time only."""
    slow = incidents["slow_extraction"]

    def typical(documents, host):
        return median(
            d["payload"]["duration_ms"]
            for d in documents
            if d["type"] == "process.extraction.completed" and d["metadata"]["host"] == host
        )

    meanwhile = within(week, slow)
    assert slow.end - slow.start == timedelta(hours=2)
    assert typical(meanwhile, slow.host) > 3 * typical(meanwhile, "worker-01")
    assert typical(week, slow.host) < 1.2 * typical(week, "worker-01")


def test_deployment_brings_a_burst_of_errors(week, incidents):
    """Runs fail with TemplateError after the deployment, on hosts with the broken version, until the mended one."""
    failures = [d for d in week if d["payload"].get("error_type") == "TemplateError"]
    assert len(failures) >= 5
    assert all(d["metadata"]["version"] in {"2.4.0", "2.4.1"} for d in failures)
    burst = incidents["error_burst"]
    assert all(burst.start <= happened_at(d) <= burst.end + timedelta(minutes=1) for d in failures)
    updates = [d for d in week if d["type"] == "deployment.host.updated"]
    assert Counter(d["payload"]["to_version"] for d in updates) == {"2.4.0": len(cast.HOSTS), "2.4.1": len(cast.HOSTS)}


def test_silent_worker_sends_nothing_and_comes_back(week, incidents):
    """The silent worker has a gap in everything, the others do not, and it is back afterwards."""
    silent = incidents["silent_worker"]
    hosts = Counter(d["metadata"]["host"] for d in within(week, silent))
    assert silent.host not in hosts
    assert set(hosts) == set(cast.HOSTS) - {silent.host}
    assert any(d["metadata"]["host"] == silent.host for d in week if happened_at(d) > silent.end)


def test_retry_storm_is_a_storm(week, incidents):
    """In its half hour there are more retries than on all of a usual day."""
    storm = incidents["retry_storm"]
    retries = [d for d in week if d["type"] == "process.retry.attempted"]
    day = [d for d in retries if happened_at(d).date() == START.date()]
    assert len(within(retries, storm)) > len(day)


def test_rare_type_occurs_once(week, incidents):
    """The type that never occurred before occurs at its moment, and never again."""
    rare = [d for d in week if d["type"] == RARE_TYPE]
    assert [happened_at(d) for d in rare] == [incidents[RARE_TYPE].start]


@pytest.mark.parametrize("days", range(1, 31))
@pytest.mark.parametrize("first_weekday", [0, 4, 6])
def test_incidents_lie_within_and_on_working_days(days: int, first_weekday: int):
    """Whatever the length, all incidents are in it, none overlap, and they avoid weekends where they can."""
    simulation = Simulation(days=days, start=START + timedelta(days=first_weekday))
    incidents = simulation.incidents()
    assert incidents[0].start >= simulation.start
    assert incidents[-1].end < simulation.start + timedelta(days=days)
    assert all(one.end <= two.start for one, two in pairwise(incidents))
    if any((simulation.start + timedelta(days=day)).weekday() < 5 for day in range(days)):
        assert all(incident.start.weekday() < 5 for incident in incidents)


def test_scale_multiplies_the_work():
    """Twice the scale is about twice the sessions."""
    one, two = (
        sum(d["type"] == "hook.session.start" for d in Simulation(days=1, scale=scale).documents())
        for scale in (0.5, 1.0)
    )
    assert 1.6 < two / one < 2.4


@pytest.mark.parametrize(
    "wrong", [{"days": 0}, {"scale": 0.0}, {"scale": float("nan")}, {"start": datetime(2024, 1, 15, 1, tzinfo=UTC)}]
)
def test_wrong_arguments_are_refused(wrong: dict):
    """The message names what is wrong."""
    with pytest.raises(EventConfigException, match=next(iter(wrong))):
        Simulation(**wrong)
