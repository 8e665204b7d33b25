"""The log as the feed needs it: frames as columns, columns as bytes, and history as columns."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pyarrow as pa

from shared.columns.answers import AnswerEncoder
from shared.columns.decoded_events import decode_events
from shared.columns.encoded_events import EncodedEvents, encode_events
from shared.columns.wire import WireCodec
from shared.log.frame import decode_frame
from shared.log.frame_index import frame_events
from shared.log.types import Position
from stream_service.block import Encode
from stream_service.replay_history import QueryHistory, Selection


class LogCodec:
    """Makes columns of frames, and bytes of columns. Several threads may use it."""

    def __init__(self, codec: WireCodec) -> None:
        self._codec = codec

    def decode(self, frame: bytes) -> pa.RecordBatch:
        """The events of a frame, with their positions (EVENT_SCHEMA). Raises FrameDamaged."""
        return frame_events(decode_frame(frame))

    def encoder(self, log_id: str) -> Encode:
        """What makes the bytes of a log's events."""
        encoder = AnswerEncoder(self._codec, log_id)

        def encode(events: pa.RecordBatch, payload_as_struct: bool) -> EncodedEvents:  # noqa: FBT001 — of the seam
            return encode_events(encoder, events, payload_as_struct=payload_as_struct)

        return encode


class QueryLog:
    """History by column."""

    def __init__(self, history: QueryHistory, codec: WireCodec) -> None:
        self._history = history
        self._codec = codec

    async def end(self) -> tuple[Position, str]:
        """The position behind the last that is committed; the log's id, "" if unknown. Raises EventException."""
        extent = await self._history.extent()
        return Position(extent.committed_position + 1), extent.log_id

    async def read(self, from_position: int, until_position: int) -> AsyncGenerator[pa.RecordBatch, None]:
        """The events of a range (EVENT_SCHEMA), in order. Raises EventException."""
        wanted = Selection(from_position=from_position, until_position=until_position)
        async with aclosing(self._history.read(wanted)) as found:
            async for events in found:
                yield decode_events(self._codec, events.data)
