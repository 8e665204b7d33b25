"""The line of requests with structures: one at a time, apart from the others, and not too long."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest_service.structures import WAITING_BYTES_MAX, StructureLine
from shared.columns.wire import WireCodec
from shared.errors import BufferFull, EventValidationException
from tests.support.log_requests import log_request, new_event

_codec = WireCodec()
_REQUEST = log_request(new_event(payload={"a": 1}))
_LARGE = log_request(new_event(payload={"a": 1}), new_event(payload_json="x" * (WAITING_BYTES_MAX // 2)))


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """The thread of a line."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_structures_are_replaced(thread: ThreadPoolExecutor) -> None:
    """What comes back is a request without structures."""
    line = StructureLine(_codec, thread)
    replaced = await line.replace(_REQUEST, patient=False)
    assert replaced == log_request(new_event(payload_json='{"a":1}'))


async def test_wrong_structures_refuse_the_request(thread: ThreadPoolExecutor) -> None:
    """The error names the event and its field."""
    line = StructureLine(_codec, thread)
    request = log_request(new_event(), new_event(payload={"a": float("inf")}))
    with pytest.raises(EventValidationException, match=r"events\[1\]\.payload holds a number") as caught:
        await line.replace(request, patient=False)
    assert caught.value.reason == "INVALID_EVENT"
    assert [violation.field for violation in caught.value.violations] == ["events[1].payload"]


async def test_a_long_line_is_refused_to_the_impatient(thread: ThreadPoolExecutor) -> None:
    """Beyond the maximum a call is told to retry; a stream waits; afterwards there is room again."""
    line = StructureLine(_codec, thread)
    opened = threading.Event()
    thread.submit(opened.wait, 60)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        waiting = [group.create_task(line.replace(_LARGE, patient=patient)) for patient in (False, True, True)]
        await asyncio.sleep(0)
        with pytest.raises(BufferFull, match="send payload_json") as caught:
            await line.replace(_LARGE, patient=False)
        assert caught.value.reason == "APPEND_QUEUE_FULL"
        waiting[1].cancel()
        opened.set()
    assert _codec.read_head(waiting[0].result()).structures == 0
    assert await line.replace(_LARGE, patient=False) == waiting[2].result()
