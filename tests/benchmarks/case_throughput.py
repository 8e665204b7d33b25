"""How many events a second are logged, and how many the peers take, all in turn in one run.

All have the same number of events in flight, the same events, the same disk, the same cores; each runs alone on a
fresh server for a few seconds, some rounds, and its median counts.
"""

import statistics
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.bench import Bench, Case
from tests.benchmarks.ingest import BATCH_EVENTS, BATCHES_IN_FLIGHT, describe, ingest, log_batches
from tests.benchmarks.load import LoadPlan, run_load
from tests.benchmarks.nats_peer import jetstream_events_per_s
from tests.benchmarks.peer_process import PeerMissingError
from tests.benchmarks.redis_peer import Entry, entries_of_fields, opaque_entries, redis_events_per_s
from tests.benchmarks.report import Failed, Outcome, RowSpec, Skipped
from tests.benchmarks.requests import SEED, prepared_requests, reference_events
from tests.support.reference_events import reference_batch

_ROUND_S = 4.0
_ROUNDS = 5
# For what has no target.
_ORIENTATION_ROUNDS = 2
_EVENTS_IN_FLIGHT = BATCH_EVENTS * BATCHES_IN_FLIGHT
# A peer that syncs each event by itself gains nothing from more, and answers in lumps of all that wait.
_SYNCED_ONE_BY_ONE_IN_FLIGHT = 800
_PEER_EVENTS = 20_000
_UNARY_IN_FLIGHT = 64
_UNARY_REQUESTS = 20_000

_BATCH = "log_batch_events_per_s"
_REDIS = "redis_xadd_always_events_per_s"
_REDIS_OPAQUE = "redis_xadd_always_opaque_events_per_s"
_REDIS_EVERYSEC = "redis_xadd_everysec_events_per_s"
_JETSTREAM = "jetstream_unsynced_events_per_s"
_JETSTREAM_ALWAYS = "jetstream_sync_always_events_per_s"
# Ratio: what is divided by what.
_RATIOS = {
    "log_batch_vs_redis": (_BATCH, _REDIS),
    "log_batch_vs_jetstream": (_BATCH, _JETSTREAM),
    "log_batch_vs_jetstream_sync_always": (_BATCH, _JETSTREAM_ALWAYS),
}
_COMPARED = frozenset({_BATCH, _REDIS, _JETSTREAM})

# Measures one round in a directory: events a second.
_Contestant = Callable[[Bench, Path, float], float]


def _measure_side_by_side(bench: Bench) -> Mapping[str, Outcome]:
    contestants = _contestants(bench)
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    # Those that are out of the contest, and why.
    out: dict[str, Outcome] = {}
    for nth in range(1 if bench.quick else _ROUNDS):
        for name in [
            name for name in contestants if name not in out and (nth < _ORIENTATION_ROUNDS or name in _COMPARED)
        ]:
            try:
                with bench.scratch("round") as directory:
                    rate = contestants[name](bench, directory, bench.seconds(_ROUND_S))
            except PeerMissingError as missing:
                out[name] = Skipped(str(missing))
            except Exception as error:  # noqa: BLE001 — the others can still be measured
                traceback.print_exc()
                out[name] = Failed(f"{name}: {error}".splitlines()[0])
            else:
                rounds[name].append(rate)
                bench.progress(f"round {nth + 1}: {name} {rate:,.0f}")
    outcomes = {name: out.get(name) or statistics.median(rates) for name, rates in rounds.items()}
    return outcomes | {name: _ratio(outcomes, *pair) for name, pair in _RATIOS.items() if name in bench.wanted}


def _ratio(outcomes: Mapping[str, Outcome], ours: str, theirs: str) -> Outcome:
    """What is divided by what, or why it cannot be."""
    for name in (ours, theirs):
        if isinstance(outcomes[name], Skipped | Failed):
            return outcomes[name]
    return float(outcomes[ours]) / float(outcomes[theirs])  # type: ignore[arg-type]


def _contestants(bench: Bench) -> dict[str, _Contestant]:
    """Those that a wanted row needs."""
    needed = set(bench.wanted)
    for name in _RATIOS.keys() & bench.wanted:
        needed.update(_RATIOS[name])
    events = list(reference_events(_PEER_EVENTS))
    fields = entries_of_fields(reference_batch(_PEER_EVENTS, SEED, 1))

    def redis(entries: Sequence[Entry], appendfsync: str) -> _Contestant:
        return lambda _, directory, seconds: redis_events_per_s(
            directory, entries, appendfsync=appendfsync, seconds=seconds, in_flight=_EVENTS_IN_FLIGHT
        )

    def jetstream(*, sync_always: bool) -> _Contestant:
        return lambda _, directory, seconds: jetstream_events_per_s(
            directory,
            events,
            sync_always=sync_always,
            seconds=seconds,
            in_flight=_SYNCED_ONE_BY_ONE_IN_FLIGHT if sync_always else _EVENTS_IN_FLIGHT,
        )

    every: dict[str, _Contestant] = {
        _BATCH: _eventlog_round,
        _REDIS: redis(fields, "always"),
        _REDIS_OPAQUE: redis(opaque_entries(events), "always"),
        _REDIS_EVERYSEC: redis(fields, "everysec"),
        _JETSTREAM: jetstream(sync_always=False),
        _JETSTREAM_ALWAYS: jetstream(sync_always=True),
    }
    return {name: contestant for name, contestant in every.items() if name in needed}


def _eventlog_round(bench: Bench, directory: Path, seconds: float) -> float:
    with ingest(directory) as service:
        result = log_batches(bench, service, seconds=seconds)
    assert result.last_position == result.events, "every event acknowledged has a position, and no other has"
    bench.progress(describe(result))
    return result.events_per_s


def _measure_unary(bench: Bench) -> Mapping[str, Outcome]:
    requests = prepared_requests(bench.directory, requests=bench.count(_UNARY_REQUESTS), events_per_request=1)
    with bench.scratch("unary") as directory, ingest(directory) as service:
        plan = LoadPlan(
            address=service.address,
            method="Log",
            requests_file=str(requests),
            in_flight=_UNARY_IN_FLIGHT,
            seconds=bench.seconds(10.0),
        )
        result = run_load(plan)
    assert result.last_position == result.events, "every event acknowledged has a position, and no other has"
    bench.progress(describe(result))
    return {"log_unary_events_per_s": result.events_per_s}


SIDE_BY_SIDE = Case(
    rows=(
        RowSpec(_BATCH, "events/s", target=250_000),
        RowSpec(_REDIS, "events/s"),
        RowSpec(_REDIS_OPAQUE, "events/s"),
        RowSpec(_REDIS_EVERYSEC, "events/s"),
        RowSpec(_JETSTREAM, "events/s"),
        RowSpec(_JETSTREAM_ALWAYS, "events/s"),
        RowSpec("log_batch_vs_redis", "x", target=2),
        RowSpec("log_batch_vs_jetstream", "x", target=2),
        RowSpec("log_batch_vs_jetstream_sync_always", "x"),
    ),
    measure=_measure_side_by_side,
)

UNARY = Case(rows=(RowSpec("log_unary_events_per_s", "events/s", target=3_000),), measure=_measure_unary)
