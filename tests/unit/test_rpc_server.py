"""Health, reflection, metrics page, ports and drain of a server in this process."""

import asyncio
import re
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from shared.clock import SystemClock
from shared.errors import EventConfigException, EventException
from shared.rpc.channel import ChannelLimits, connect, connect_sync
from shared.rpc.metrics_page import READ_TIMEOUT_S, READERS_MAX
from shared.rpc.remote_error import from_rpc_error
from shared.rpc.server import Server, ServerLimits
from shared.telemetry.metrics import Metrics
from tests.support.echo_service import ECHO, echo_server, said, text, value

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Chat:
    """Answers each request of a stream; `say` waits until it is told to go on."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()

    async def say(self, request, context):
        self.waiting.set()
        await self.go_on.wait()
        return request

    async def chat(self, requests, context):
        async for request in requests:
            yield value(request.value)


def health(channel) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(channel)


async def status_of(channel, service: str) -> int:
    """The health of a service."""
    return (await health(channel).Check(health_pb2.HealthCheckRequest(service=service))).status


async def page(server: Server) -> str:
    """The text of the metrics page."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=10) as response:
            return response.read().decode()

    return await asyncio.to_thread(read)


async def page_or_nothing(server: Server) -> str:
    """The text of the metrics page; empty where there is no place for a reader."""
    try:
        return await page(server)
    except OSError:
        return ""


def server_on(listen: str, metrics_listen: str) -> Server:
    """A server of no services, not yet entered."""
    return Server(
        service="second",
        listen=listen,
        metrics_listen=metrics_listen,
        metrics=Metrics("second"),
        clock=SystemClock(),
    )


async def test_health_follows_the_services():
    """Not serving until the service says so; "" follows; an unknown name is NOT_FOUND."""
    async with echo_server(object(), serving=False) as (server, channel):
        assert [await status_of(channel, name) for name in ("", ECHO)] == [NOT_SERVING, NOT_SERVING]
        server.set_serving(ECHO, serving=True)
        assert [await status_of(channel, name) for name in ("", ECHO)] == [SERVING, SERVING]
        server.set_serving(ECHO, serving=False)
        assert [await status_of(channel, name) for name in ("", ECHO)] == [NOT_SERVING, NOT_SERVING]
        with pytest.raises(grpc.RpcError) as caught:
            await status_of(channel, "test.v1.Nothing")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_tells_each_change_and_ends_with_the_drain():
    """A watch says the status at once and at each change; at the drain it says NOT_SERVING and ends."""
    async with echo_server(object(), serving=False) as (server, channel):
        watch = health(channel).Watch(health_pb2.HealthCheckRequest(service=ECHO))
        unknown = health(channel).Watch(health_pb2.HealthCheckRequest(service="test.v1.Nothing"))
        assert (await watch.read()).status == NOT_SERVING
        assert (await unknown.read()).status == SERVICE_UNKNOWN
        server.set_serving(ECHO, serving=True)
        assert (await watch.read()).status == SERVING
        # Read beside the stop: gRPC's client gives no message away once it knows that the call ended.
        last = asyncio.ensure_future(watch.read())
        await asyncio.wait_for(server.stop(grace_s=60), 10)
        assert (await last).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        assert await unknown.read() is grpc.aio.EOF


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
async def test_reflection_lists_and_describes_services(version):
    """The names of all services, and the file of one of them, under both names of the reflection service."""
    async with echo_server(object()) as (_, channel):
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = {each.name for each in (await call.read()).list_services_response.service}
        symbol = "grpc.health.v1.Health"
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        described = (await call.read()).file_descriptor_response.file_descriptor_proto
        await call.done_writing()
    assert listed == {ECHO, symbol, "grpc.reflection.v1alpha.ServerReflection"}
    assert len(described) == 1


async def test_metrics_page_shows_calls_and_process():
    """The page has what was counted, the process, and nothing without the prefix."""
    async with echo_server(object()) as (server, channel):
        with pytest.raises(grpc.RpcError):
            await channel.unary_unary(f"/{ECHO}/Say")(b"")
        shown = await page(server)
    labels = f'code="UNIMPLEMENTED",method="Say",service="{ECHO}"'
    assert f"eventlog_rpc_requests_total{{{labels}}} 1.0" in shown
    assert re.search(r"^eventlog_process_resident_memory_bytes [0-9.e+]+$", shown, re.MULTILINE)
    assert re.search(r"^eventlog_process_open_fds [1-9]", shown, re.MULTILINE)
    assert 'eventlog_service_info{service="test_service"} 1.0' in shown
    names = {line.split("{")[0].split(" ")[0] for line in shown.splitlines() if not line.startswith("#")}
    assert [name for name in names if not name.startswith("eventlog_")] == []


async def test_silent_readers_of_the_metrics_page_are_few():
    """As many as there are places are waited for, more are let go of at once, and a place that is left is free."""
    async with echo_server(object()) as (server, _):
        host, _, port = server.metrics_address.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(READERS_MAX)]
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(READ_TIMEOUT_S / 2):
            assert await reader.read() == b""
        for each in (writer, *(writer for _, writer in silent)):
            each.close()
        for each in (writer, *(writer for _, writer in silent)):
            await each.wait_closed()
        async with asyncio.timeout(READ_TIMEOUT_S / 2):
            while not (shown := await page_or_nothing(server)):
                pass
        assert "eventlog_service_info" in shown


async def test_second_server_on_a_port_fails_with_the_address():
    """Neither port can be had twice; the error names the address, and what was bound before is free again."""
    async with echo_server(object()) as (first, channel):
        with pytest.raises(EventConfigException, match=re.escape(first.address)):
            async with server_on(first.address, "127.0.0.1:0"):
                pass
        with pytest.raises(EventConfigException, match=re.escape(first.metrics_address)):
            async with server_on("127.0.0.1:0", first.metrics_address):
                pass
        assert await status_of(channel, "") == SERVING
    async with server_on(first.address, first.metrics_address) as second:
        assert (second.address, second.metrics_address) == (first.address, first.metrics_address)


async def test_foreign_address_fails_with_the_address():
    """An address that this machine does not have is refused by name."""
    with pytest.raises(EventConfigException, match=r"192\.0\.2\.1:0"):
        async with server_on("192.0.2.1:0", "127.0.0.1:0"):
            pass
    with pytest.raises(EventConfigException, match=r"192\.0\.2\.1:0"):
        async with server_on("127.0.0.1:0", "192.0.2.1:0"):
            pass


async def test_drain_lets_running_calls_end_and_refuses_new_ones():
    """During a drain health says so, a new call is told SERVER_DRAINING, the running one gets its answer."""
    servicer = Chat()
    async with echo_server(servicer) as (server, channel):
        seen = {}

        async def before_stop() -> None:
            seen["health"] = await status_of(channel, ECHO)
            with pytest.raises(grpc.RpcError) as caught:
                await channel.unary_unary(f"/{ECHO}/Say")(text("late"))
            seen["refusal"] = from_rpc_error(caught.value)
            servicer.go_on.set()

        running = asyncio.ensure_future(channel.unary_unary(f"/{ECHO}/Say")(text("early")))
        await servicer.waiting.wait()
        await server.stop(grace_s=30, before_stop=before_stop)
        assert said(await running) == "early"
    assert seen["health"] == NOT_SERVING
    assert (seen["refusal"].reason, seen["refusal"].retryable) == ("SERVER_DRAINING", True)


async def test_drain_tells_everyone_who_calls():
    """Callers that come again and again without a pause are each told SERVER_DRAINING once, then find nobody."""

    class Say:
        async def say(self, request, context):
            return request

    async def call_until_nobody_is_there(say) -> list[str]:
        reasons = []
        while "DEPENDENCY_UNAVAILABLE" not in reasons:
            try:
                await say(text("a"), timeout=30)
            except grpc.RpcError as error:
                reasons.append(from_rpc_error(error).reason)
            else:
                served.set()
        return reasons

    served = asyncio.Event()
    async with echo_server(Say()) as (server, channel):
        say = channel.unary_unary(f"/{ECHO}/Say")
        callers = [asyncio.ensure_future(call_until_nobody_is_there(say)) for _ in range(64)]
        await served.wait()
        await asyncio.wait_for(server.stop(grace_s=60), 30)
        reasons = await asyncio.gather(*callers)
    assert {tuple(each) for each in reasons} == {("SERVER_DRAINING", "DEPENDENCY_UNAVAILABLE")}


async def test_drain_ends_after_the_grace():
    """Calls that do not end are cancelled when the grace is over, also where before_stop hangs."""
    servicer = Chat()
    async with echo_server(servicer) as (server, channel):
        running = asyncio.ensure_future(channel.unary_unary(f"/{ECHO}/Say")(text("stuck")))
        await servicer.waiting.wait()
        await asyncio.wait_for(server.stop(grace_s=0.1, before_stop=asyncio.Event().wait), 10)
        with pytest.raises(grpc.RpcError):
            await running


async def test_failing_before_stop_does_not_keep_the_server(caplog):
    """An exception of before_stop is logged, and the server stops."""

    async def before_stop() -> None:
        raise EventException("no")

    async with echo_server(object()) as (server, _):
        await asyncio.wait_for(server.stop(grace_s=30, before_stop=before_stop), 10)
    assert "stopping all the same" in caplog.text


async def test_open_reflection_stream_does_not_hold_the_drain():
    """A client that keeps reflection open, as graphical ones do, does not make the stop wait for the grace."""
    async with echo_server(object()) as (server, channel):
        call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
        await call.read()
        await asyncio.wait_for(server.stop(grace_s=60), 10)
        assert await call.read() is grpc.aio.EOF


async def test_limits_are_those_given():
    """Server and channel take messages up to their limits and no further."""
    limits = ServerLimits(receive_bytes_max=1000, send_bytes_max=2000)

    class Long:
        async def say(self, request, context):
            return value("x" * int(request.value))

    async with echo_server(Long(), limits=limits) as (server, channel):
        say = channel.unary_unary(f"/{ECHO}/Say")
        assert len(said(await say(text("1900")))) == 1900
        async with connect(server.address, limits=ChannelLimits(receive_bytes_max=500)) as narrow:
            calls = [say(text("2100")), say(text("0" * 1000)), narrow.unary_unary(f"/{ECHO}/Say")(text("600"))]
            for call in calls:
                with pytest.raises(grpc.RpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_synchronous_channel_and_its_errors():
    """A synchronous client is served, and its errors are the same exceptions."""

    def call(address: str) -> tuple[str, EventException]:
        with connect_sync(address) as channel:
            answer = said(channel.stream_unary(f"/{ECHO}/Collect")(iter([text("a")])))
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{ECHO}/Say")(text(""))
            return answer, from_rpc_error(caught.value)

    class Collect:
        async def collect(self, requests, context):
            return value("".join([request.value async for request in requests]))

    async with echo_server(Collect()) as (server, _):
        answer, error = await asyncio.to_thread(call, server.address)
    assert (answer, error.reason, error.code) == ("a", "NOT_IMPLEMENTED", grpc.StatusCode.UNIMPLEMENTED)


async def test_unreachable_service_is_a_dependency():
    """A call to a port where nothing listens has a reason that says a retry may help."""
    async with server_on("127.0.0.1:0", "127.0.0.1:0") as gone:
        address = gone.address
    async with connect(address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await channel.unary_unary(f"/{ECHO}/Say")(b"", timeout=10)
    error = from_rpc_error(caught.value)
    assert (error.reason, error.retryable) == ("DEPENDENCY_UNAVAILABLE", True)


async def test_channel_ignores_proxies_of_the_environment(monkeypatch):
    """A proxy variable does not send calls between services elsewhere."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    async with echo_server(object()) as (_, channel):
        assert await status_of(channel, "") == SERVING
