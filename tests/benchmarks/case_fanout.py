"""Live delivery to one and to a hundred subscribers, and the same fan-out on NATS in the same run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from eventlog.v1 import event_pb2
from eventlog.v1 import stream_service_pb2 as pb

from tests.benchmarks.bench import Bench, Case
from tests.benchmarks.nats_fanout import nats_core_deliveries_per_s, nats_jetstream_deliveries_per_s
from tests.benchmarks.paced_producer import Produced, Producer
from tests.benchmarks.peer_process import PeerMissingError
from tests.benchmarks.report import Failed, Outcome, RowSpec, Skipped
from tests.benchmarks.requests import prepared_requests, read_requests, reference_events
from tests.benchmarks.subscribers import SubscriberPool
from tests.support.cluster import Cluster

SUBSCRIBERS = 100
EVENTS_PER_S = 10_000
# Events between the producer and the slowest subscriber, where it goes as fast as they allow: for all contestants.
WINDOW = 20_000
_BATCH_EVENTS = 100
_BUFFER_EVENTS = 100_000
_DRAIN_S = 30.0
_PEER_EVENTS = 20_000


@dataclass(frozen=True, slots=True)
class _Fanout:
    """What came of one run."""

    deliveries_per_s: float
    lost: int
    p99_ms: float
    p50_ms: float


@contextmanager
def _running(bench: Bench) -> Iterator[tuple[Cluster, Sequence[bytes]]]:
    """A cluster whose services have found each other, and requests to log."""
    requests = prepared_requests(bench.directory, requests=bench.count(2_000), events_per_request=_BATCH_EVENTS)
    with bench.scratch("fanout") as directory, Cluster(directory, with_stream=True) as cluster:
        yield cluster, read_requests(requests)


def _subscription(filters: event_pb2.EventFilters | None = None) -> pb.SubscribeRequest:
    return pb.SubscribeRequest(
        filters=filters, buffer_size=_BUFFER_EVENTS, overflow_policy=pb.OVERFLOW_POLICY_DROP_OLDEST
    )


def _paced(bench: Bench, requests: Sequence[pb.SubscribeRequest], seconds: float) -> _Fanout:
    with _running(bench) as (cluster, batches):
        producer = Producer(cluster.ingest.address, batches, _BATCH_EVENTS)
        with SubscriberPool(cluster.stream.address, requests) as pool:
            pool.wait_for(0, timeout_s=_DRAIN_S)
            produced = producer.at_rate(EVENTS_PER_S, seconds=seconds)
            pool.wait_for(produced.last_position, timeout_s=_DRAIN_S)
        producer.close()
        return _result(pool, produced, expected_all=not requests[0].HasField("filters"))


def _result(pool: SubscriberPool, produced: Produced, *, expected_all: bool) -> _Fanout:
    ends, acknowledged_s = produced.columns()
    latencies = pool.latencies_ms(ends, acknowledged_s)
    seconds = acknowledged_s[-1] - acknowledged_s[0]
    delivered = sum(each.events for each in pool.subscribers)
    lost = sum(each.lost for each in pool.subscribers)
    if expected_all:
        lost += sum(produced.last_position - each.position for each in pool.subscribers)
    return _Fanout(delivered / seconds, lost, float(np.percentile(latencies, 99)), float(np.percentile(latencies, 50)))


def _measure_one(bench: Bench) -> Mapping[str, Outcome]:
    found = _paced(bench, [_subscription()], bench.seconds(10.0))
    bench.progress(f"1 subscriber: p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms, {found.lost} lost")
    return {"fanout_1_sub_10k_p99_ms": found.p99_ms}


def _measure_hundred(bench: Bench) -> Mapping[str, Outcome]:
    found = _paced(bench, [_subscription() for _ in range(SUBSCRIBERS)], bench.seconds(10.0))
    bench.progress(f"{SUBSCRIBERS} subscribers: p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms")
    return {
        "fanout_100_subs_deliveries_per_s": found.deliveries_per_s,
        "fanout_100_subs_lost": float(found.lost),
        "fanout_100_subs_p99_ms": found.p99_ms,
    }


def _measure_distinct(bench: Bench) -> Mapping[str, Outcome]:
    expressions = [f"payload.duration_ms > {20 * number} AND type LIKE 'pipeline.*'" for number in range(SUBSCRIBERS)]
    requests = [_subscription(event_pb2.EventFilters(expression=expression)) for expression in expressions]
    found = _paced(bench, requests, bench.seconds(10.0))
    bench.progress(f"{SUBSCRIBERS} filters: p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms")
    return {"fanout_100_distinct_filters_p99_ms": found.p99_ms}


def _peak(bench: Bench, seconds: float) -> float:
    with _running(bench) as (cluster, batches):
        producer = Producer(cluster.ingest.address, batches, _BATCH_EVENTS)
        requests = [_subscription() for _ in range(SUBSCRIBERS)]
        with SubscriberPool(cluster.stream.address, requests) as pool:
            pool.wait_for(0, timeout_s=_DRAIN_S)
            produced = producer.within(WINDOW, pool.slowest, seconds=seconds)
            assert pool.wait_for(produced.last_position, timeout_s=_DRAIN_S), "every subscriber gets everything"
        producer.close()
        assert not sum(each.lost for each in pool.subscribers), "nobody lost anything"
        begin = min(produced.acknowledged_s)
        end = max(each.times_s[-1] for each in pool.subscribers)
        return sum(each.events for each in pool.subscribers) / (end - begin)


def _measure_peak(bench: Bench) -> Mapping[str, Outcome]:
    seconds = bench.seconds(6.0)
    ours = _peak(bench, seconds)
    bench.progress(f"eventlog {ours:,.0f} deliveries/s")
    outcomes: dict[str, Outcome] = {"fanout_peak_deliveries_per_s": ours}
    events = [b"\x01" + event.replace(b"\x01", b"\x02") for event in reference_events(_PEER_EVENTS)]
    for name, ratio, peer in (
        ("nats_core_deliveries_per_s", "fanout_vs_nats", nats_core_deliveries_per_s),
        ("jetstream_deliveries_per_s", "fanout_vs_jetstream", nats_jetstream_deliveries_per_s),
    ):
        try:
            with bench.scratch("nats") as directory:
                theirs = peer(Path(directory), events, subscribers=SUBSCRIBERS, window=WINDOW, seconds=seconds)
        except PeerMissingError as missing:
            outcomes[name] = outcomes[ratio] = Skipped(str(missing))
        except Exception as error:  # noqa: BLE001 — our own figure stands all the same
            outcomes[name] = outcomes[ratio] = Failed(f"{name}: {error}".splitlines()[0])
        else:
            bench.progress(f"{name} {theirs:,.0f}")
            outcomes[name] = theirs
            outcomes[ratio] = ours / theirs
    return outcomes


ONE = Case(rows=(RowSpec("fanout_1_sub_10k_p99_ms", "ms", target=20, at_most=True),), measure=_measure_one)
HUNDRED = Case(
    rows=(
        RowSpec("fanout_100_subs_deliveries_per_s", "deliveries/s", target=1_000_000),
        RowSpec("fanout_100_subs_lost", "events", target=0, at_most=True),
        RowSpec("fanout_100_subs_p99_ms", "ms", target=150, at_most=True),
    ),
    measure=_measure_hundred,
)
DISTINCT = Case(
    rows=(RowSpec("fanout_100_distinct_filters_p99_ms", "ms", target=150, at_most=True),), measure=_measure_distinct
)
PEAK = Case(
    rows=(
        RowSpec("fanout_peak_deliveries_per_s", "deliveries/s", target=1_500_000),
        RowSpec("nats_core_deliveries_per_s", "deliveries/s"),
        RowSpec("jetstream_deliveries_per_s", "deliveries/s"),
        RowSpec("fanout_vs_nats", "x", target=0.7),
        RowSpec("fanout_vs_jetstream", "x", target=2),
    ),
    measure=_measure_peak,
)
