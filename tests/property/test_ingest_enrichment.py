"""Requests of one group commit, joined in any order, are judged and completed as each alone."""

from typing import Any

import pyarrow as pa
from eventlog.v1 import event_pb2
from eventlog.v1 import ingest_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ingest_service.enrichment import Enricher, Proposed
from shared.columns.wire import WireCodec
from shared.errors import EventValidationException
from shared.log.types import Nanoseconds
from tests.support.fake_clock import START_NS
from tests.support.log_requests import HOSTILE_TEXTS, raw_request

_codec = WireCodec()
_enricher = Enricher(_codec, host="our-host", version="9.9")

_TEXTS = st.sampled_from(["", "s", "ü", "x" * 255, "x" * 256])
_TIMES = st.builds(
    Timestamp,
    seconds=st.sampled_from([0, -1, 1_700_000_000, 9_223_372_035, 9_223_372_036, -9_223_372_036, -9_223_372_037]),
    nanos=st.sampled_from([0, 1, 999_999_999, 1_000_000_000, -1]),
)
_PAYLOADS = st.sampled_from(
    [
        "{}",
        ' {"a":1}\n',
        "",
        "[]",
        '{"a":[1',
        "2]}",
        '{"a":"\\ud83d\\ude00"}',
        '{"a":"\\ud800"}',
        "{},{}",
        '{"a":' * 101,
    ]
)


def _optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), values)


_METADATA = st.builds(
    event_pb2.EventMetadata,
    host=_optional(_TEXTS),
    version=_optional(_TEXTS),
    user=_optional(_TEXTS),
    session_id=_optional(_TEXTS),
    tags=st.lists(_TEXTS, max_size=2),
)
_EVENTS = st.builds(
    event_pb2.NewEvent,
    type=st.sampled_from(["a.b", "c", "", "a b"]),
    source=_TEXTS,
    correlation_id=_optional(_TEXTS),
    payload_json=_optional(_PAYLOADS),
    timestamp=_optional(_TIMES),
    metadata=_optional(_METADATA),
)
_SOUND = st.builds(event_pb2.NewEvent, type=st.just("a.b"), payload_json=_optional(st.just('{"a":1}')))


def _is_taken(request: bytes) -> bool:
    """Whether the servicer lets a request come so far."""
    try:
        return _codec.read_head(request).structures == 0
    except EventValidationException:
        return False


_REQUESTS = st.one_of(
    st.lists(_SOUND, min_size=1, max_size=3).map(lambda events: pb.LogBatchRequest(events=events).SerializeToString()),
    st.lists(_EVENTS, min_size=1, max_size=3).map(lambda events: pb.LogBatchRequest(events=events).SerializeToString()),
    st.sampled_from(sorted(HOSTILE_TEXTS)).map(lambda name: raw_request(HOSTILE_TEXTS[name])),
    st.binary(max_size=12).filter(_is_taken),
)


def _propose(requests: list[bytes]) -> Proposed:
    return _enricher.propose(requests, Nanoseconds(START_NS))


def _said(error: EventValidationException | None) -> object:
    return error and (str(error), error.reason, error.violations)


@settings(max_examples=150)
@given(st.lists(_REQUESTS, max_size=6))
def test_a_request_is_judged_and_completed_as_if_it_were_alone(requests: list[bytes]) -> None:
    """Neither its rows nor its refusal depend on the requests beside it."""
    together = _propose(requests)
    together.events.validate(full=True)
    assert together.offsets[-1] == together.events.num_rows
    for at, request in enumerate(requests):
        alone = _propose([request])
        assert _said(together.rejections.get(at)) == _said(alone.rejections.get(0))
        start, end = together.offsets[at : at + 2]
        assert end - start == alone.events.num_rows
        if at not in together.rejections:
            rows = pa.Table.from_batches([together.events.slice(start, end - start)])
            assert rows.equals(pa.Table.from_batches([alone.events]))


@settings(max_examples=150)
@given(st.lists(_EVENTS, min_size=1, max_size=3), st.data())
def test_any_change_of_bytes_is_refused_or_understood(events: list[event_pb2.NewEvent], data: st.DataObject) -> None:
    """A request with wrong bytes gives rows that satisfy the rules, or a refusal; the one beside it is untouched."""
    bytes_ = bytearray(pb.LogBatchRequest(events=events).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(bytes_)))
        bytes_[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=6))
    assume(_is_taken(bytes(bytes_)))
    sound = pb.LogBatchRequest(events=[event_pb2.NewEvent(type="a")]).SerializeToString()
    proposed = _propose([sound, bytes(bytes_), sound])
    assert 0 not in proposed.rejections
    assert 2 not in proposed.rejections
    proposed.events.validate(full=True)
    assert proposed.offsets[1] == 1
    assert proposed.offsets[3] - proposed.offsets[2] == 1
