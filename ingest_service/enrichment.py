"""From the bytes of log requests to columns that may be recorded: check, then complete.

Works on all requests of a group commit at once, by column. A request is accepted or rejected whole,
and never affects another: where one is wrong, its exception says which of its events and fields are,
and the others go on.

Invariants: every row of an accepted request satisfies all rules below; nothing of a payload is
changed, not even its white space.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest_service.payload_check import PayloadCheck, find_deep_payloads
from ingest_service.refusals import invalid_events
from shared.columns.arrow import Array, BooleanArray, ListArray, StringArray, StructArray
from shared.columns.arrow import compute as pc
from shared.columns.bytes_view import boolean_array, is_valid, value_lengths
from shared.columns.constants import constant
from shared.columns.schema import FRAME_SCHEMA, TIMESTAMP
from shared.columns.wire import WireCodec, malformed_request
from shared.errors import EventValidationException, FieldViolation
from shared.events.limits import PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX, TAGS_MAX, TEXT_BYTES_MAX, TYPE_PATTERN
from shared.log.types import Nanoseconds

# What nanoseconds since the epoch in 64 bits can hold, in whole seconds.
SECONDS_MIN, SECONDS_MAX = -9_223_372_036, 9_223_372_035
_NANOS_PER_SECOND = 1_000_000_000
_TYPE = re.compile(TYPE_PATTERN, re.ASCII)


@dataclass(slots=True)
class Proposed:
    """Events ready to be recorded. Request i has rows offsets[i] to offsets[i + 1] of events (FRAME_SCHEMA)."""

    events: pa.RecordBatch
    offsets: list[int]
    rejections: dict[int, EventValidationException] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Rows that break a rule: `field` below the event, and what is wrong."""

    rows: list[int]
    field: str
    description: str


class Enricher:
    """Checks and completes events. One thread may use it."""

    def __init__(self, codec: WireCodec, *, host: str, version: str) -> None:
        self._codec = codec
        self._payload_check = PayloadCheck()
        self._host = host
        self._version = version

    def propose(self, requests: Sequence[bytes], recorded_at: Nanoseconds) -> Proposed:
        """Check and complete the events of the requests. recorded_at is the timestamp of events without one."""
        lists, malformed = self._parse(requests)
        offsets = lists.offsets.to_pylist()
        events = lists.flatten()
        columns = _Columns(events)
        wrong = list(columns.find_wrong(self._payload_check))
        proposed = Proposed(self._complete(columns, recorded_at), offsets)
        proposed.rejections.update(malformed)
        proposed.rejections.update(_rejections(wrong, offsets))
        return proposed

    def _parse(self, requests: Sequence[bytes]) -> tuple[ListArray, dict[int, EventValidationException]]:
        try:
            return self._codec.parse_requests(requests), {}
        except EventValidationException:
            malformed = {i: malformed_request() for i, request in enumerate(requests) if not self._parses(request)}
            # A malformed request stays in its place as an empty one, so that the others keep theirs.
            sound = [b"" if i in malformed else request for i, request in enumerate(requests)]
            return self._codec.parse_requests(sound), malformed

    def _parses(self, request: bytes) -> bool:
        try:
            self._codec.parse_requests([request])
        except EventValidationException:
            return False
        return True

    def _complete(self, columns: "_Columns", recorded_at: Nanoseconds) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(
            [
                _or_recorded_at(columns.timestamp, recorded_at),
                columns.type,
                _or_default(columns.source, "unknown"),
                _or_null(columns.correlation_id),
                _fill_null(columns.payload, "{}"),
                _or_default(columns.host, self._host),
                _or_default(columns.version, self._version),
                _or_null(columns.user),
                _or_null(columns.session_id),
                columns.tags,
            ],
            schema=FRAME_SCHEMA,
        )


class _Columns:
    """The columns of proposed events as they were sent."""

    def __init__(self, events: StructArray) -> None:
        self.type: StringArray = events.field("type")
        self.source: StringArray = events.field("source")
        self.correlation_id: StringArray = events.field("correlation_id")
        self.payload: StringArray = events.field("payload_json")
        # Structures became text before; see `structures`.
        assert events.field("payload").null_count == len(events)
        self._seconds, self._nanos = events.field("timestamp").flatten()
        metadata = events.field("metadata").flatten()
        self.host, self.version, self.user, self.session_id, tags = metadata
        self.tags: ListArray = _fill_empty_lists(tags)
        self.timestamp: Array = pa.nulls(len(events), TIMESTAMP)

    def find_wrong(self, payload_check: PayloadCheck) -> Iterator[_Wrong]:
        """Apply every rule, each to all rows."""
        yield from self._wrong_types()
        named = (
            ("source", self.source),
            ("correlation_id", self.correlation_id),
            ("metadata.host", self.host),
            ("metadata.version", self.version),
            ("metadata.user", self.user),
            ("metadata.session_id", self.session_id),
        )
        for name, column in named:
            yield _Wrong(_longer_than(column, TEXT_BYTES_MAX), name, f"is longer than {TEXT_BYTES_MAX} bytes")
        yield from self._wrong_tags()
        yield from self._wrong_timestamps()
        yield from self._wrong_payloads(payload_check)

    def _wrong_types(self) -> Iterator[_Wrong]:
        encoded = self.type.dictionary_encode()
        bad = [code for code, name in enumerate(encoded.dictionary.to_pylist()) if not _TYPE.fullmatch(name)]
        if bad:
            rows = _rows(np.isin(encoded.indices.to_numpy(), bad))
            yield _Wrong(rows, "type", "must be 1 to 200 of A-Z a-z 0-9 _ . : / - and begin with a letter, digit or _")

    def _wrong_tags(self) -> Iterator[_Wrong]:
        counts = value_lengths(self.tags)
        yield _Wrong(_rows(counts > TAGS_MAX), "metadata.tags", f"has over {TAGS_MAX} tags")
        lengths = value_lengths(self.tags.flatten())
        wrong = (lengths < 1) | (lengths > TEXT_BYTES_MAX)
        if wrong.any():
            before = np.append(0, np.cumsum(wrong))
            ends = np.cumsum(counts)
            rows = _rows(before[ends] > before[ends - counts])
            yield _Wrong(rows, "metadata.tags", f"has a tag that is empty or longer than {TEXT_BYTES_MAX} bytes")

    def _wrong_timestamps(self) -> Iterator[_Wrong]:
        if self._seconds.null_count == len(self._seconds):
            return
        given = is_valid(self._seconds)
        seconds = _fill_null(self._seconds, 0).to_numpy()
        nanos = _fill_null(self._nanos, 0).to_numpy()
        in_range = (seconds >= SECONDS_MIN) & (seconds <= SECONDS_MAX) & (nanos >= 0) & (nanos < _NANOS_PER_SECOND)
        nanoseconds = np.where(in_range, seconds, 0) * _NANOS_PER_SECOND + np.where(in_range, nanos, 0)
        missing = None if given.all() else boolean_array(given).buffers()[1]
        self.timestamp = pa.Array.from_buffers(TIMESTAMP, len(given), [missing, pa.py_buffer(nanoseconds.data)])
        rows = _rows(~in_range)
        yield _Wrong(rows, "timestamp", "must lie between 1677-09-22 and 2262-04-11, with nanos from 0 to 999999999")

    def _wrong_payloads(self, payload_check: PayloadCheck) -> Iterator[_Wrong]:
        too_long = _longer_than(self.payload, PAYLOAD_BYTES_MAX)
        yield _Wrong(
            too_long, "payload_json", f"is longer than {PAYLOAD_BYTES_MAX} bytes: send large content by reference"
        )
        if too_long:
            # What is refused already is not worth parsing.
            self.payload = pc.if_else(_mask(too_long, len(self.payload)), "{}", self.payload)
        deep = find_deep_payloads(self.payload)
        yield _Wrong(deep, "payload_json", f"is nested deeper than {PAYLOAD_DEPTH_MAX} levels")
        if deep:
            self.payload = pc.if_else(_mask(deep, len(self.payload)), "{}", self.payload)
        for row, description in payload_check.find_invalid(self.payload):
            yield _Wrong([row], "payload_json", description)


def _rejections(wrong: Sequence[_Wrong], offsets: list[int]) -> dict[int, EventValidationException]:
    """One exception a request that has wrong rows."""
    by_row = sorted((row, rule.field, rule.description) for rule in wrong for row in rule.rows)
    rejections: dict[int, EventValidationException] = {}
    at = 0
    for request in range(len(offsets) - 1):
        found = []
        while at < len(by_row) and by_row[at][0] < offsets[request + 1]:
            row, name, description = by_row[at]
            found.append(FieldViolation(f"events[{row - offsets[request]}].{name}", description))
            at += 1
        if found:
            rejections[request] = invalid_events(found)
    return rejections


def _rows(mask: npt.NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(mask).tolist()


def _mask(rows: list[int], count: int) -> BooleanArray:
    mask = np.zeros(count, np.bool_)
    mask[rows] = True
    return boolean_array(mask)


def _longer_than(column: StringArray, bytes_max: int) -> list[int]:
    return _rows(value_lengths(column) > bytes_max)


def _fill_null(column: Array, value: object) -> Array:
    return pc.fill_null(column, constant(value)) if column.null_count else column


def _or_recorded_at(timestamps: Array, recorded_at: Nanoseconds) -> Array:
    return pc.fill_null(timestamps, pa.scalar(recorded_at, TIMESTAMP)) if timestamps.null_count else timestamps


def _or_default(column: StringArray, default: str) -> StringArray:
    empty = value_lengths(column) == 0
    return pc.if_else(boolean_array(empty), constant(default), column) if empty.any() else column


def _or_null(column: StringArray) -> StringArray:
    empty = value_lengths(column) == 0
    if np.count_nonzero(empty) == column.null_count:
        return column
    return pc.if_else(boolean_array(~empty), column, pa.nulls(len(column), pa.string()))


def _fill_empty_lists(lists: ListArray) -> ListArray:
    wanted = FRAME_SCHEMA.field("tags").type
    if lists.null_count:
        lists = pc.fill_null(lists, pa.scalar([], lists.type))
    return lists if lists.type == wanted else lists.cast(wanted)
