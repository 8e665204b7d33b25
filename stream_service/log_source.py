"""The log as the feed needs it: frames as columns, columns as bytes, and history as columns."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pyarrow as pa

from shared.columns.answers import AnswerEncoder
from shared.columns.decoded_events import decode_events
from shared.columns.encoded_events import EncodedEvents, encode_events
from shared.columns.wire import WireCodec
from shared.filters.event_batch import EventBatch
from shared.log.frame import decode_frame
from shared.log.frame_index import frame_events
from shared.log.types import Position
from stream_service.block import Forms
from stream_service.query_history import QueryHistory, Selection


class LogCodec:
    """Makes columns of frames, and bytes of columns. Several threads may use it."""

    def __init__(self, codec: WireCodec) -> None:
        self._codec = codec

    def decode(self, frame: bytes) -> pa.RecordBatch:
        """The events of a frame, with their positions (EVENT_SCHEMA). Raises FrameDamaged."""
        return frame_events(decode_frame(frame))

    def forms(self, log_id: str) -> Forms:
        """The forms of a log's events."""
        return LogForms(self._codec, log_id)


class LogForms:
    """The forms of one log's events. Several threads may use it."""

    def __init__(self, codec: WireCodec, log_id: str) -> None:
        self._encoder = AnswerEncoder(codec, log_id)
        self._log_id = log_id

    def encode(self, events: pa.RecordBatch, *, payload_as_struct: bool) -> EncodedEvents:
        """Their bytes. See Forms."""
        return encode_events(self._encoder, events, payload_as_struct=payload_as_struct)

    def columns(self, events: pa.RecordBatch) -> EventBatch:
        """What filters look at."""
        return EventBatch(events, log_id=self._log_id)


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
