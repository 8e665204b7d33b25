"""One of 200 subscribers never reads: the others do not notice, and memory is bounded."""

import numpy as np
import pytest
from eventlog.v1 import stream_service_pb2 as pb

from tests.benchmarks.paced_producer import Producer
from tests.benchmarks.requests import prepared_requests, read_requests
from tests.benchmarks.subscribers import SubscriberPool
from tests.support.stream_reader import StreamReader

pytestmark = pytest.mark.cluster

SUBSCRIBERS = 199
EVENTS_PER_S = 1_000
SECONDS = 4.0
BATCH_EVENTS = 20
BUFFER_EVENTS = 50_000
# What the ring may take, with what a message on its way to each subscriber takes.
GROWTH_MB_MAX = 150
STREAMING = {"max_subscribers": 200, "buffer_bytes_max": "8MiB", "slow_consumer_timeout": "1h"}


@pytest.mark.timeout(240)
def test_one_that_never_reads_disturbs_nobody(make_cluster, tmp_path):
    """The latency of 199 subscribers is the same with a stalled one beside them; none of them loses anything."""
    requests = read_requests(prepared_requests(tmp_path, requests=300, events_per_request=BATCH_EVENTS))
    subscription = pb.SubscribeRequest(buffer_size=BUFFER_EVENTS)
    with make_cluster(with_stream=True, streaming=STREAMING) as cluster:
        producer = Producer(cluster.ingest.address, requests, BATCH_EVENTS)
        with SubscriberPool(cluster.stream.address, [subscription] * SUBSCRIBERS) as pool:
            assert pool.wait_for(0, timeout_s=30)
            alone = latencies_ms(producer, pool)
            before_mb = cluster.stream.rss_mb()
            stalled = StreamReader(cluster.stream.address, pb.SubscribeRequest(buffer_size=10), reads=False)
            beside = latencies_ms(producer, pool)
            grown_mb = cluster.stream.rss_mb() - before_mb
        stalled.close()
        producer.close()
    print(f"p99 alone {alone:.1f} ms, beside a stalled one {beside:.1f} ms; memory grew by {grown_mb:.0f} MB")
    assert sum(each.lost for each in pool.subscribers) == 0
    # Unchanged, as far as a busy machine lets anything be: the stalled one costs no more than one of the others.
    assert beside < 2 * alone + 100
    assert grown_mb < GROWTH_MB_MAX


def latencies_ms(producer, pool):
    """The 99th percentile of the time from acknowledgement to receipt, over all subscribers."""
    produced = producer.at_rate(EVENTS_PER_S, seconds=SECONDS)
    assert pool.wait_for(produced.last_position, timeout_s=60)
    return float(np.percentile(pool.latencies_ms(*produced.columns()), 99))
