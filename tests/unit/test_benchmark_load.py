"""What the benchmarks' load is made of: requests, calls on the wire, pipelined connections, listings."""

import socket
import threading
from concurrent import futures
from contextlib import contextmanager, suppress

import grpc
import pytest
from eventlog.v1 import event_pb2, ingest_service_pb2

from tests.benchmarks.grpc_wire import UnaryConnection, WireError
from tests.benchmarks.log_directory import list_log
from tests.benchmarks.pipelined import Burst, PipelinedConnection, measure
from tests.benchmarks.requests import SEED, log_requests, read_requests, write_requests
from tests.support.reference_events import reference_batch


def test_requests_hold_the_reference_events_once_each():
    """Every event of the generator is in the requests, in order, with all its fields."""
    requests = [
        ingest_service_pb2.LogBatchRequest.FromString(each) for each in log_requests(requests=3, events_per_request=7)
    ]
    assert [len(request.events) for request in requests] == [7, 7, 7]
    events = [event for request in requests for event in request.events]
    expected = reference_batch(21, SEED, 1)
    timestamps = expected["timestamp"].cast("int64").to_pylist()
    assert [event.timestamp.ToNanoseconds() for event in events] == timestamps
    for field, column in (("payload_json", "payload"), ("type", "type"), ("source", "source")):
        assert [getattr(event, field) for event in events] == expected[column].to_pylist()
    for field in ("host", "version", "user", "session_id", "tags"):
        assert [getattr(event.metadata, field) for event in events] == expected[field].to_pylist()
    assert len({event.SerializeToString(deterministic=True) for event in events}) == len(events)


def test_request_of_one_event_is_a_log_request_too():
    """Log and LogBatch take the same bytes where there is one event."""
    (request,) = log_requests(requests=1, events_per_request=1)
    batch = ingest_service_pb2.LogBatchRequest.FromString(request)
    assert ingest_service_pb2.LogRequest.FromString(request).event == batch.events[0]
    assert batch.events[0] != event_pb2.NewEvent()


def test_request_file_gives_back_what_was_written(tmp_path):
    """The load generator gets exactly the requests that were made."""
    requests = [b"", b"a", b"b" * 70_000]
    assert read_requests(write_requests(tmp_path / "requests", iter(requests))) == requests


@contextmanager
def grpc_server(behaviour):
    """Serve /test.Service/Call with bytes in and bytes out; yields the address."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    handler = grpc.unary_unary_rpc_method_handler(behaviour)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()


def call_all(connection, requests, *, in_flight):
    """Call with each request; returns the answers in the order of the requests."""
    waiting, answers, left = {}, {}, list(enumerate(requests))
    while left or waiting:
        while left and len(waiting) < in_flight:
            number, request = left.pop(0)
            waiting[connection.start(request)] = number
        for stream, answer in connection.wait():
            answers[waiting.pop(stream)] = answer
    return [answers[number] for number in range(len(requests))]


def test_calls_reach_a_grpc_server_whole_and_their_answers_come_back():
    """Messages far beyond the flow-control windows arrive; each call gets its own answer."""

    def reverse(request, _context):
        return request[::-1]

    requests = [bytes([number]) * size for number, size in enumerate((0, 1, 200, 70_000, 3_000_000, 5, 1_000_000) * 5)]
    requests = [request + b"end" for request in requests]
    with grpc_server(reverse) as address:
        connection = UnaryConnection(address, "/test.Service/Call", timeout_s=20.0)
        try:
            answers = call_all(connection, requests, in_flight=8)
        finally:
            connection.close()
    assert answers == [request[::-1] for request in requests]


def test_refused_call_raises_with_the_servers_words():
    """A status other than OK is an error that says what the server said."""

    def refuse(_request, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the cat is on the roof")

    with grpc_server(refuse) as address:
        connection = UnaryConnection(address, "/test.Service/Call", timeout_s=20.0)
        try:
            with pytest.raises(WireError, match="the cat is on the roof"):
                call_all(connection, [b"x"], in_flight=1)
        finally:
            connection.close()


def answer_lines(server, answer):
    """Accept a connection and answer each line that comes, until it is closed."""
    connection, _ = server.accept()
    # Whoever is refused hangs up without reading the rest.
    with connection, suppress(ConnectionError):
        while received := connection.recv(65_536):
            connection.sendall(answer * received.count(b"\n"))


@contextmanager
def pipelined_connection(answer):
    """Yield a connection to a server that answers each line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_lines, args=(server, answer))
        thread.start()
        try:
            with socket.create_connection(server.getsockname()) as client:
                bursts = [Burst(b"one\ntwo\n", 2), Burst(b"three\n" * 50, 50)]
                yield PipelinedConnection(client, bursts, answers_max=200, token=b"+", error=b"-no")
        finally:
            thread.join(10)


def test_pipelined_connection_counts_each_answer_once():
    """Every command that was sent is answered at the end, and the rate is that of the answers."""
    with pipelined_connection(b"+ok\r\n") as connection:
        rate = measure([connection], seconds=0.2, warm_up_s=0.05)
        assert connection.idle
        assert connection.answered * 1.0 >= rate * 0.2 > 0


def test_pipelined_connection_raises_where_the_server_refuses():
    """An error is never counted as an answer."""
    with pipelined_connection(b"-no such thing\r\n") as connection, pytest.raises(RuntimeError, match="no such thing"):
        measure([connection], seconds=5.0)


def test_listing_counts_everything_of_sealed_segments(tmp_path):
    """Sidecars count as bytes, not as events; segments of several classes count their events once."""
    segments = tmp_path / "segments"
    segments.mkdir()
    sealed = f"{1:020d}-{1000:020d}"
    for name, size in {
        f"{sealed}.default.parquet": 100,
        f"{sealed}.error.parquet": 10,
        f"{sealed}.default.idx": 3,
        f"{sealed}.default.par": 4,
        f"{sealed}.requests": 5,
        f"{1001:020d}.log": 7000,
        f"{1501:020d}.log": 64,
    }.items():
        (segments / name).write_bytes(b"x" * size)
    listing = list_log(tmp_path)
    assert (listing.sealed_bytes, listing.sealed_events) == (122, 1000)
    assert (listing.log_files, listing.log_bytes) == (2, 7064)
