"""What a servicer's method becomes on the wire, and what surrounds each call."""

import asyncio
import io
import logging

import grpc
import orjson
import pytest

from shared.errors import EventException, EventValidationException, FieldViolation, StorageUnavailable
from shared.rpc.remote_error import from_rpc_error
from shared.rpc.service import raw_request, raw_response, snake_case
from shared.telemetry.logs import JsonFormatter
from shared.telemetry.request_id import current_request_id
from tests.support.echo_service import ECHO, echo_server, said, text, value

SECRET = "password=hunter2"
MALFORMED = b"\x0a\xff"  # a string that claims more bytes than follow


class EchoServicer:
    """Answers what it is sent."""

    async def say(self, request, context):
        return value(request.value)

    async def say_many(self, request, context):
        for word in request.value.split():
            yield value(word)

    async def collect(self, requests, context):
        return value(" ".join([request.value async for request in requests]))

    async def chat(self, requests, context):
        async for request in requests:
            yield value(request.value)


class FailingServicer:
    """Raises what it was made with: at once, or after the first response of a stream."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def say(self, request, context):
        raise self.error

    async def say_many(self, request, context):
        yield value("first")
        raise self.error


@pytest.fixture
def log_lines():
    """The lines that eventlog.rpc logs from debug up, parsed when called."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("test_service"))
    logger = logging.getLogger("eventlog.rpc")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lambda: [orjson.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def sample(server, name: str, method: str, **labels: str) -> float | None:
    """The present value of an RPC metric of the echo service."""
    every = {"service": ECHO, "method": method, **labels}
    return server._metrics.registry.get_sample_value(name, every)


async def until(condition, timeout_s: float = 10.0) -> None:
    """Return when the condition holds; fail after timeout_s."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 — a metric has nothing to wait for
            await asyncio.sleep(0.005)


async def failure(call) -> Exception:
    """The exception that a call which must fail stands for."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return from_rpc_error(caught.value)


@pytest.mark.parametrize(
    ("name", "method"),
    [("Log", "log"), ("LogBatch", "log_batch"), ("GetLogStatus", "get_log_status"), ("ListEvents", "list_events")],
)
def test_snake_case_names_the_method(name, method):
    """RPC names become the names of Python methods."""
    assert snake_case(name) == method


async def test_each_kind_of_rpc_is_served():
    """Unary and streaming, in both directions, parsed and serialised."""
    async with echo_server(EchoServicer()) as (_, channel):
        assert said(await channel.unary_unary(f"/{ECHO}/Say")(text("hello"))) == "hello"
        many = channel.unary_stream(f"/{ECHO}/SayMany")(text("a b c"))
        assert [said(each) async for each in many] == ["a", "b", "c"]
        words = [text("x"), text("y")]
        assert said(await channel.stream_unary(f"/{ECHO}/Collect")(iter(words))) == "x y"
        chat = channel.stream_stream(f"/{ECHO}/Chat")(iter(words))
        assert [said(each) async for each in chat] == ["x", "y"]


async def test_raw_methods_get_and_give_bytes():
    """A method marked raw sees the bytes as sent, and its bytes are sent as they are."""

    class Raw:
        @raw_request
        @raw_response
        async def say(self, request, context):
            assert type(request) is bytes
            return request[::-1]

    async with echo_server(Raw()) as (_, channel):
        assert await channel.unary_unary(f"/{ECHO}/Say")(b"\xff\x00ab") == b"ba\x00\xff"


async def nothing():
    """Requests of a stream that stays open and sends none."""
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize("name", ["Say", "SayMany", "Collect", "Chat"])
async def test_missing_method_answers_unimplemented(name):
    """An RPC that the servicer lacks says so with a reason and the RPC's name, whatever it is sent."""
    async with echo_server(object()) as (_, channel):
        if name in {"Say", "Collect"}:
            kind = channel.unary_unary if name == "Say" else channel.stream_unary
            request = MALFORMED if name == "Say" else iter([MALFORMED])
            error = await failure(kind(f"/{ECHO}/{name}")(request))
        else:
            kind = channel.unary_stream if name == "SayMany" else channel.stream_stream
            # Nothing is sent on Chat: gRPC's client calls a status INTERNAL that comes while it writes.
            request = MALFORMED if name == "SayMany" else nothing()
            error = await failure(kind(f"/{ECHO}/{name}")(request).read())
    assert (error.code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert f"{ECHO}/{name}" in str(error)


async def test_malformed_request_has_a_reason():
    """Bytes that do not parse are the caller's fault, in a unary call and in the middle of a stream."""
    async with echo_server(EchoServicer()) as (_, channel):
        unary = await failure(channel.unary_unary(f"/{ECHO}/Say")(MALFORMED))
        chat = channel.stream_stream(f"/{ECHO}/Chat")(iter([text("fine"), MALFORMED]))
        assert said(await chat.read()) == "fine"
        streamed = await failure(chat.read())
    for error in (unary, streamed):
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
        assert isinstance(error, EventValidationException)


async def test_error_details_reach_the_client():
    """A validation error arrives with violations, metadata and class."""
    violations = [FieldViolation("events[3].type", "is empty"), FieldViolation("events[4].source", "is too long")]
    raised = EventValidationException("2 events are invalid", violations=violations, count=2)
    async with echo_server(FailingServicer(raised)) as (_, channel):
        error = await failure(channel.unary_unary(f"/{ECHO}/Say")(text("")))
    assert isinstance(error, EventValidationException)
    assert (str(error), error.violations, error.metadata) == (str(raised), raised.violations, {"count": "2"})


async def test_largest_error_passes_the_wire():
    """The longest texts that a status may hold, all of three bytes a character, are not refused by the peer."""
    violations = [FieldViolation("€" * 500, "€" * 500) for _ in range(1000)]
    raised = EventValidationException("€" * 5000, violations=violations, note="€" * 5000, other="€" * 5000)
    async with echo_server(FailingServicer(raised)) as (_, channel):
        for _ in range(20):  # above its soft limit, a peer refuses metadata at random
            error = await failure(channel.unary_unary(f"/{ECHO}/Say")(text("")))
            assert (error.reason, len(error.violations) > 0) == ("INVALID_EVENT", True)


async def test_error_midway_ends_the_stream_with_its_reason():
    """Responses sent before the error arrive, then the error with its details."""
    async with echo_server(FailingServicer(StorageUnavailable("the disk is full"))) as (_, channel):
        call = channel.unary_stream(f"/{ECHO}/SayMany")(text(""))
        assert said(await call.read()) == "first"
        error = await failure(call.read())
    assert isinstance(error, StorageUnavailable)
    assert error.retry_delay_s == 1.0


async def test_error_inside_a_task_group_keeps_its_reason():
    """The group of one that a TaskGroup raises is not an unknown error."""

    class Grouped:
        async def say(self, request, context):
            async with asyncio.TaskGroup() as group:
                group.create_task(self.fail())

        async def fail(self):
            raise StorageUnavailable("no disk")

    async with echo_server(Grouped()) as (_, channel):
        error = await failure(channel.unary_unary(f"/{ECHO}/Say")(text("")))
    assert isinstance(error, StorageUnavailable)


@pytest.mark.parametrize(
    "raised", [ValueError(SECRET), asyncio.CancelledError(SECRET), ExceptionGroup(SECRET, [KeyError(SECRET)])]
)
@pytest.mark.parametrize("rpc", ["Say", "SayMany"])
async def test_unknown_exception_tells_nothing(raised, rpc, log_lines):
    """The caller learns the request id alone; the log has the traceback under it."""
    async with echo_server(FailingServicer(raised)) as (_, channel):
        if rpc == "Say":
            call = channel.unary_unary(f"/{ECHO}/Say")(text(""))
            error = await failure(call)
        else:
            call = channel.unary_stream(f"/{ECHO}/SayMany")(text(""))
            await call.read()
            error = await failure(call.read())
        trailing = b"".join(key.encode() + str(each).encode() for key, each in await call.trailing_metadata())
    assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert SECRET not in str(error)
    assert SECRET.encode() not in trailing
    assert "hunter2" not in str(error.metadata)
    (line,) = [line for line in log_lines() if line["level"] == "error"]
    assert line["request_id"] == error.metadata["request_id"]
    assert SECRET in line["traceback"]


async def test_response_of_a_wrong_type_is_internal():
    """A servicer that answers no message is our fault, not gRPC's."""

    class Wrong:
        async def say(self, request, context):
            return "text"

    async with echo_server(Wrong()) as (_, channel):
        error = await failure(channel.unary_unary(f"/{ECHO}/Say")(text("")))
    assert error.reason == "INTERNAL"


async def test_failed_call_is_one_log_line(log_lines):
    """Code, reason, RPC, duration and the caller's request id, at a level that fits the code."""
    async with echo_server(FailingServicer(StorageUnavailable("the disk is full"))) as (_, channel):
        await failure(channel.unary_unary(f"/{ECHO}/Say")(text(""), metadata=(("x-request-id", "their-id-1"),)))
    (line,) = log_lines()
    assert line["duration_ms"] >= 0
    expected = {
        "level": "warning",
        "rpc": f"{ECHO}/Say",
        "code": "UNAVAILABLE",
        "reason": "STORAGE_UNAVAILABLE",
        "problem": "the disk is full",
        "request_id": "their-id-1",
    }
    assert {key: line[key] for key in expected} == expected
    assert "traceback" not in line


async def test_request_id_is_bound_and_echoed():
    """A sane id of the caller is the one that the servicer sees and that comes back first."""
    seen = []

    class Servicer(EchoServicer):
        async def say(self, request, context):
            seen.append(current_request_id.get())
            return request

    async with echo_server(Servicer()) as (_, channel):
        call = channel.unary_unary(f"/{ECHO}/Say")(text(""), metadata=(("x-request-id", "their-id-1"),))
        assert dict(await call.initial_metadata())["x-request-id"] == "their-id-1"
        await call
    assert seen == ["their-id-1"]
    assert current_request_id.get() == ""


@pytest.mark.parametrize("brought", [None, "", "x" * 129, "two words", 'quote"'])
async def test_request_id_is_made_where_there_is_no_sane_one(brought):
    """Without an id, or with one that is no identifier, a failure carries a new one, and so does a stream."""
    async with echo_server(EchoServicer()) as (_, channel):
        metadata = () if brought is None else (("x-request-id", brought),)
        call = channel.unary_unary(f"/{ECHO}/Say")(MALFORMED, metadata=metadata)
        await failure(call)
        made = dict(await call.trailing_metadata())["x-request-id"]
        stream = channel.unary_stream(f"/{ECHO}/SayMany")(text("a"))
        streamed = dict(await stream.initial_metadata())["x-request-id"]
    assert len(made) == len(streamed) == 16
    assert made not in {brought, streamed}


async def test_calls_are_counted_by_code_and_reason():
    """Requests, errors, latency, bytes, and none in flight afterwards."""
    async with echo_server(EchoServicer()) as (server, channel):
        say = channel.unary_unary(f"/{ECHO}/Say")
        for _ in range(3):
            await say(text("hello"))
        await failure(say(MALFORMED))
        assert sample(server, "eventlog_rpc_requests_total", "Say", code="OK") == 3
        assert sample(server, "eventlog_rpc_requests_total", "Say", code="INVALID_ARGUMENT") == 1
        assert sample(server, "eventlog_rpc_errors_total", "Say", reason="MALFORMED_REQUEST") == 1
        assert sample(server, "eventlog_rpc_duration_seconds_count", "Say") == 4
        assert sample(server, "eventlog_rpc_received_bytes_total", "Say") == 3 * 7 + 2
        assert sample(server, "eventlog_rpc_sent_bytes_total", "Say") == 3 * 7
        assert sample(server, "eventlog_rpc_in_flight", "Say") == 0


async def test_cancelled_call_closes_the_generator_and_is_counted():
    """A caller that goes away ends the servicer's generator, its finally clauses run, and the call counts."""
    closed = asyncio.Event()

    class Endless:
        async def say_many(self, request, context):
            try:
                yield value("first")
                await asyncio.Event().wait()
            finally:
                closed.set()

    async with echo_server(Endless()) as (server, channel):
        call = channel.unary_stream(f"/{ECHO}/SayMany")(text(""))
        await call.read()
        assert sample(server, "eventlog_rpc_in_flight", "SayMany") == 1
        call.cancel()
        await asyncio.wait_for(closed.wait(), 10)
        await until(lambda: sample(server, "eventlog_rpc_in_flight", "SayMany") == 0)
        assert sample(server, "eventlog_rpc_requests_total", "SayMany", code="CANCELLED") == 1


async def test_generator_is_closed_before_its_call_ends():
    """A stream that fails outside its generator runs the generator's finally clauses before the caller knows."""
    closed = asyncio.Event()

    class Wrong:
        async def say_many(self, request, context):
            try:
                yield "no message"
            finally:
                await asyncio.sleep(0)
                closed.set()

    async with echo_server(Wrong()) as (_, channel):
        call = channel.unary_stream(f"/{ECHO}/SayMany")(text(""))
        error = await failure(call.read())
        assert closed.is_set()
    assert error.reason == "INTERNAL"


async def test_deadline_cancels_the_servicer():
    """A call whose deadline passes does not go on in the service."""
    cancelled = asyncio.Event()

    class Slow:
        async def say(self, request, context):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    async with echo_server(Slow()) as (server, channel):
        error = await failure(channel.unary_unary(f"/{ECHO}/Say")(text(""), timeout=0.1))
        await asyncio.wait_for(cancelled.wait(), 10)
        await until(lambda: sample(server, "eventlog_rpc_in_flight", "Say") == 0)
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_status_that_a_servicer_sends_itself_is_counted():
    """A servicer that aborts, as the health service does, keeps its code."""

    class Aborting:
        async def say(self, request, context):
            await context.abort(grpc.StatusCode.NOT_FOUND, "none")

    async with echo_server(Aborting()) as (server, channel):
        error = await failure(channel.unary_unary(f"/{ECHO}/Say")(text("")))
        # Counted after the servicer has sent the status.
        await until(lambda: sample(server, "eventlog_rpc_requests_total", "Say", code="NOT_FOUND") == 1)
    assert error.reason == "NOT_FOUND"


async def test_message_above_the_limit_is_refused():
    """A request beyond the limit is refused and the next is served."""
    async with echo_server(EchoServicer()) as (_, channel):
        say = channel.unary_unary(f"/{ECHO}/Say")
        refused = await failure(say(text("x" * (20 * 1024 * 1024 + 1))))
        assert said(await say(text("after"))) == "after"
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_wrong_kind_of_method_is_our_bug():
    """A servicer whose method cannot serve its RPC does not start."""

    class Wrong:
        async def say_many(self, request, context):
            return []

    async def start() -> None:
        async with echo_server(Wrong()):
            pass

    with pytest.raises(AssertionError, match="SayMany"):
        asyncio.run(start())


async def test_internal_reason_of_ours_names_the_request():
    """An EventException without a reason of its own keeps its text and gains the request id."""
    async with echo_server(FailingServicer(EventException("the plan has no leaf"))) as (_, channel):
        error = await failure(channel.unary_unary(f"/{ECHO}/Say")(text("")))
    assert str(error) == "the plan has no leaf"
    assert len(error.metadata["request_id"]) == 16


class Flood:
    """Streams more than anyone who does not read can be sent, and notes what it was told at the end."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.sending = asyncio.Event()

    async def say_many(self, request, context):
        try:
            while True:
                yield value("x" * 1_000_000)
                self.sending.set()
        except EventException as error:
            error.metadata["resume_position"] = "17"
            self.told.set()
            raise


async def read_to_the_end(call):
    """Read what there is and return how the call ended."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.RpcError as error:
        return from_rpc_error(error)
    raise AssertionError("the call ended well")


async def test_response_that_is_not_taken_raises_in_the_generator():
    """Where the caller takes nothing for too long, the generator is told, and its error is the call's."""
    servicer = Flood()
    async with echo_server(servicer, write_timeout_s=0.3) as (_, channel):
        call = channel.unary_stream(f"/{ECHO}/SayMany")(text(""))
        await servicer.sending.wait()
        async with asyncio.timeout(20):
            await servicer.told.wait()
        error = await read_to_the_end(call)
    assert error.reason == "SLOW_CONSUMER"
    assert error.metadata["resume_position"] == "17"


async def test_drain_does_not_wait_for_a_response_that_is_not_taken():
    """During a drain a caller that takes nothing is given up soon, with the reason of the drain."""
    servicer = Flood()
    async with echo_server(servicer, write_timeout_s=600) as (server, channel):
        call = channel.unary_stream(f"/{ECHO}/SayMany")(text(""))
        await servicer.sending.wait()
        stopping = asyncio.ensure_future(server.stop(grace_s=20))
        async with asyncio.timeout(20):
            await servicer.told.wait()
        error = await read_to_the_end(call)
        await stopping
    assert error.reason == "SERVER_DRAINING"
