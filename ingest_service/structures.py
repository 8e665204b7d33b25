"""The waiting line of requests with payloads typed as google.protobuf.Struct.

Turning structures into text is slow, and requests without any must not wait for it. So it is done before
a request joins the others, in a thread of its own, one request at a time: only those who send structures
wait for each other.

Invariant: at most WAITING_BYTES_MAX bytes wait, those of streams apart, which hold one request each.
"""

import asyncio
from concurrent.futures import Executor

from ingest_service.refusals import invalid_events
from shared.columns.structures import replace_structures
from shared.columns.wire import WireCodec
from shared.errors import BufferFull

WAITING_BYTES_MAX = 64 * 1024 * 1024


class StructureLine:
    """See the module. Belongs to the event loop."""

    def __init__(self, codec: WireCodec, thread: Executor) -> None:
        """Thread: runs one thing at a time, in the order given."""
        self._codec = codec
        self._thread = thread
        self._waiting_bytes = 0

    async def replace(self, request: bytes, *, patient: bool) -> bytes:
        """Return the request with its structures as JSON text.

        patient: wait however many wait. Raises EventValidationException (INVALID_EVENT, MALFORMED_REQUEST), and
        BufferFull (APPEND_QUEUE_FULL) where too many wait.
        """
        if not patient and self._waiting_bytes and self._waiting_bytes + len(request) > WAITING_BYTES_MAX:
            raise BufferFull(
                f"{self._waiting_bytes} bytes of requests with structures wait to be turned into text: retry later, "
                "or send payload_json, which does not wait",
                reason="APPEND_QUEUE_FULL",
            )
        self._waiting_bytes += len(request)
        try:
            loop = asyncio.get_running_loop()
            replaced, violations = await loop.run_in_executor(self._thread, replace_structures, self._codec, request)
        finally:
            self._waiting_bytes -= len(request)
        if violations:
            raise invalid_events(violations)
        return replaced
