"""Hostile requests: a reason or exact storage, never a crash, never a hole, and no harm to other producers."""

import random
import socket
from collections import Counter
from contextlib import contextmanager

import grpc
import pytest
from eventlog.v1 import event_pb2, ingest_service_pb2

from shared.rpc.remote_error import from_rpc_error
from tests.support.cluster import (
    CALL_S_MAX,
    check_positions,
    failure_of,
    get_event,
    metrics,
    read_range,
    refused,
    wait_until,
)
from tests.support.hostile import (
    MIB,
    check_recorded,
    hostile_payloads,
    hostile_structs,
    hostile_texts,
    hostile_times,
    malformed_requests,
    payload,
    string_of,
)
from tests.support.producers import Ledger, Load

pytestmark = pytest.mark.cluster

SERVICE = "/eventlog.v1.IngestService"
GOOD = event_pb2.NewEvent(type="hostile.companion", payload_json='{"good":true}')


# What gRPC itself says of headers that it does not take.
HEADERS_REFUSED = {
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
}


@pytest.fixture(scope="module")
def cluster(module_cluster):
    with module_cluster() as cluster:
        yield cluster


@pytest.fixture
def raw_call(cluster):
    """Call an RPC with any bytes, over a connection that sends messages of any size."""
    with grpc.insecure_channel(cluster.ingest.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield lambda method, data, **options: channel.unary_unary(f"{SERVICE}/{method}")(
            data, timeout=CALL_S_MAX, **options
        )


@contextmanager
def healthy_producers(cluster):
    """Log beside the block: all of it must be acknowledged and come back, without a hole, in living services."""
    first = cluster.flush() + 1
    ledger = Ledger()
    load = Load(cluster.appends, ledger, f"healthy{first}")
    pid = cluster.ingest.pid
    with load.on(load.batches(0, in_flight=2, sizes=(1, 20)), load.singles(0)):
        wait_until(lambda: ledger.acknowledged, "the first acknowledgement")
        yield
        before = len(ledger.acknowledged)
        wait_until(lambda: len(ledger.acknowledged) > before, "an acknowledgement after the hostile requests")
    assert cluster.ingest.running
    assert cluster.ingest.pid == pid
    assert [(sent.name, sent.error) for sent in ledger.unanswered] == []
    events = read_range(cluster, first)
    check_positions(events, first)
    for sent in ledger.acknowledged:
        rows = events[sent.position - first :][: sent.count]
        assert [row.payload_json for row in rows] == [sent.payload(row) for row in range(sent.count)]


def log_each(cluster, hostile):
    """Log an event in every way; where it is recorded, return where and what, and fail where it is neither."""
    recorded = []
    single = ingest_service_pb2.LogRequest(event=hostile.event)
    batch = ingest_service_pb2.LogBatchRequest(events=[GOOD, hostile.event, GOOD])
    for method, request, prefix in (("Log", single, "event"), ("LogBatch", batch, "events[1]")):
        try:
            answer = getattr(cluster.appends, method)(request, timeout=CALL_S_MAX)
        except grpc.RpcError as failure:
            error = from_rpc_error(failure)
            assert hostile.refused_field != "", f"{hostile.name}: {error}"
            assert (error.reason, error.code) == ("INVALID_EVENT", grpc.StatusCode.INVALID_ARGUMENT), hostile.name
            if hostile.refused_field:
                fields = [violation.field for violation in error.violations]
                assert f"{prefix}.{hostile.refused_field}" in fields, f"{hostile.name}: {error}"
        else:
            assert not hostile.refused_field, f"{hostile.name} was recorded"
            position = answer.position if method == "Log" else answer.first_position + 1
            recorded.append((position, hostile))
    return recorded


@pytest.mark.parametrize("make", [hostile_payloads, hostile_structs, hostile_texts, hostile_times])
def test_hostile_event_is_refused_or_recorded_exactly(cluster, make):
    """Each event is refused by field, or comes back byte for byte: from the active segment, and from a sealed one."""
    recorded = []
    with healthy_producers(cluster):
        for hostile in make():
            recorded += log_each(cluster, hostile)
    assert recorded
    check_each(cluster, recorded)
    cluster.rotate()
    cluster.wait_until_sealed()
    check_each(cluster, recorded)
    assert list(cluster.verify().damage) == []


def check_each(cluster, recorded):
    for position, hostile in recorded:
        event = get_event(cluster, position)
        try:
            check_recorded(hostile.event, event)
        except AssertionError as error:
            raise AssertionError(f"{hostile.name}: {error}") from error
        # As a structure it may be refused, because not everything is one; nothing else may happen.
        as_structure = failure_of(
            lambda at=position: get_event(cluster, at, payload_form=event_pb2.PAYLOAD_FORM_STRUCT)
        )
        assert as_structure is None or as_structure.reason == "INVALID_FIELD", f"{hostile.name}: {as_structure}"


def test_malformed_request_is_refused_or_understood(cluster, raw_call):
    """Noise, cut and flipped requests are refused with a reason, or recorded as protobuf's own parser reads them."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    outcomes = Counter()
    recorded = []
    with healthy_producers(cluster):
        for name, data in malformed_requests(seed):
            try:
                answer = ingest_service_pb2.LogBatchResponse.FromString(raw_call("LogBatch", data))
            except grpc.RpcError as failure:
                error = from_rpc_error(failure)
                outcomes[error.reason] += 1
                # A flipped bit may make it a request that expects another last position.
                fine = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED}
                assert error.code in fine, f"{name}: {error.code} {error}"
            else:
                recorded.append((name, data, answer))
    print(outcomes, len(recorded))
    assert outcomes["MALFORMED_REQUEST"] > 50
    assert recorded
    for name, data, answer in recorded:
        sent = ingest_service_pb2.LogBatchRequest.FromString(data)
        assert answer.count == len(sent.events), name
        events = read_range(cluster, answer.first_position, answer.first_position + answer.count)
        for each, event in zip(sent.events, events, strict=True):
            check_recorded(each, event)


@pytest.mark.parametrize("method", ["Log", "LogBatch", "Flush"])
def test_message_of_100_mb_is_refused(cluster, raw_call, method):
    """A message beyond any limit is refused without being read into the log; the service lives on."""
    request = ingest_service_pb2.LogRequest(event=payload(string_of(100 * MIB))).SerializeToString()
    with healthy_producers(cluster), refused("RESOURCE_EXHAUSTED", "BATCH_TOO_LARGE") as refusal:
        raw_call(method, request)
    assert refusal.error.code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}


def test_too_many_events_are_refused(cluster, raw_call):
    """10,000 events are taken; 10,001 are not, nor are 8 million empty ones in one request."""
    with healthy_producers(cluster):
        answer = raw_call("LogBatch", b"\x0a\x03\x0a\x01a" * 10_000)
        assert ingest_service_pb2.LogBatchResponse.FromString(answer).count == 10_000
        for data in (b"\x0a\x03\x0a\x01a" * 10_001, b"\x0a\x00" * 8_000_000):
            with refused("BATCH_TOO_LARGE"):
                raw_call("LogBatch", data)
        with refused("INVALID_FIELD") as refusal:
            raw_call("LogBatch", b"")
        assert [violation.field for violation in refusal.error.violations] == ["events"]
        for data in (b"", b"\x0a\x03\x0a\x01a" * 2):
            with refused("INVALID_FIELD") as refusal:
                raw_call("Log", data)
            assert [violation.field for violation in refusal.error.violations] == ["event"]


def test_too_many_bytes_are_refused(cluster, raw_call):
    """A request of nearly 16 MiB is taken, one of more is not."""
    event = payload(string_of(MIB))
    with healthy_producers(cluster):
        answer = cluster.appends.LogBatch(ingest_service_pb2.LogBatchRequest(events=[event] * 15), timeout=CALL_S_MAX)
        with refused("BATCH_TOO_LARGE"):
            raw_call("LogBatch", ingest_service_pb2.LogBatchRequest(events=[event] * 17).SerializeToString())
    events = read_range(cluster, answer.first_position, answer.first_position + 15)
    assert [each.payload_json for each in events] == [event.payload_json] * 15


def test_wrong_fields_of_a_request_are_named(cluster, raw_call):
    """Long request ids, unknown durabilities and impossible positions are refused by name."""
    request = ingest_service_pb2.LogBatchRequest
    with healthy_producers(cluster):
        for fields, field in (
            ({"request_id": "x" * 129}, "request_id"),
            ({"request_id": "\u00e9" * 65}, "request_id"),
            ({"request_id": "x" * MIB}, "request_id"),
            ({"durability": 7}, "durability"),
            ({"durability": -1}, "durability"),
            ({"durability": 2**31 - 1}, "durability"),
        ):
            with refused("INVALID_FIELD") as refusal:
                cluster.appends.LogBatch(request(events=[GOOD], **fields), timeout=CALL_S_MAX)
            assert [violation.field for violation in refusal.error.violations] == [field]
        with refused("EXPECTED_POSITION_MISMATCH"):
            cluster.appends.LogBatch(request(events=[GOOD], expected_last_position=2**64 - 1), timeout=CALL_S_MAX)
        odd = "\0\n\x1b[31m\U0001f600 '; --"
        first = cluster.appends.LogBatch(request(events=[GOOD], request_id=odd), timeout=CALL_S_MAX)
        again = cluster.appends.LogBatch(request(events=[GOOD], request_id=odd), timeout=CALL_S_MAX)
        assert (again.duplicate, again.first_position) == (True, first.first_position)


def test_one_wrong_event_refuses_its_request_and_names_all_it_can(cluster):
    """Of a batch with many wrong events nothing is logged; the answer names them by index and counts the others."""
    events = [GOOD, event_pb2.NewEvent(type="\n", payload_json="NaN"), *[event_pb2.NewEvent(type="")] * 9_990]
    before = cluster.flush()
    with refused("INVALID_EVENT") as refusal:
        cluster.appends.LogBatch(ingest_service_pb2.LogBatchRequest(events=events), timeout=CALL_S_MAX)
    fields = [violation.field for violation in refusal.error.violations]
    assert fields[:2] == ["events[1].payload_json", "events[1].type"]
    left_out = sum(int(value) for key, value in refusal.error.metadata.items() if "violations" in key)
    assert len(fields) + left_out == 9_992
    assert cluster.flush() == before


def test_garbage_headers_do_no_harm(cluster, raw_call):
    """Odd metadata is ignored, or gRPC refuses the call; an odd request id of the caller's is replaced."""
    request = ingest_service_pb2.LogBatchRequest(events=[GOOD]).SerializeToString()
    with healthy_producers(cluster):
        for metadata in (
            (("x-request-id", "a b;c" * 50),),
            (("x-request-id", "x" * 4_000),),
            (("x-odd-bin", bytes(range(256)) * 4),),
            (("grpc-status-details-bin", b"\xff\xfe\x00"),),
            (("authorization", "Bearer \x7f~"),),
            tuple((f"x-{number}", "y" * 20) for number in range(100)),
            (("x-long", "z" * 200_000),),
            (("te", "nonsense"), ("content-length", "-5")),
        ):
            failure = failure_of(lambda odd=metadata: raw_call("LogBatch", request, metadata=odd))
            assert failure is None or failure.code in HEADERS_REFUSED, f"{metadata[0][0]}: {failure}"


def test_noise_on_the_ports_does_no_harm(cluster):
    """What is no HTTP at all, or half of it, disturbs neither the gRPC port nor the metrics page."""
    chance = random.Random(7)
    noise = [b"", b"\0" * 1000, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + chance.randbytes(500)]
    noise += [
        chance.randbytes(2000),
        b"GET /metrics HTTP/1.1\r\nHost: " + b"x" * 100_000,
        b"POST /metrics HTTP/1.1\r\n\r\n",
    ]
    with healthy_producers(cluster):
        for address in (cluster.ingest.address, cluster.ingest.metrics_address):
            host, _, port = address.rpartition(":")
            for each in noise:
                with socket.create_connection((host, int(port)), timeout=5) as connection:
                    connection.sendall(each)
        assert metrics(cluster.ingest)["eventlog_ingest_events_total"] > 0


def test_unknown_rpc_is_unimplemented(cluster, raw_call):
    """A method that no service has is answered, with the code for it."""
    with refused("NOT_IMPLEMENTED", "UNIMPLEMENTED"):
        raw_call("Nonsense", b"")
