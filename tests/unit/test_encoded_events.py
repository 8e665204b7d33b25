"""Events that are passed on as bytes are the events that came, whatever is cut out of them and put together."""

import pytest
from eventlog.v1 import query_service_pb2, stream_service_pb2
from hypothesis import given
from hypothesis import strategies as st

from shared.columns.encoded_events import event_batch_field, interleave, read_answer
from shared.errors import EventStorageException
from tests.support.encoded import answer

# Sizes on both sides of where a length takes a byte more.
SIZES = st.sampled_from([0, 1, 60, 100, 200, 16_000, 17_000])


def events_in(data):
    return list(query_service_pb2.QueryResponse.FromString(data).events)


@given(st.lists(SIZES, max_size=30), st.booleans(), st.data())
def test_events_are_read_cut_and_wrapped_as_they_are(sizes, summary, data):
    """Columns, bytes, any slice and the batch made of it hold exactly the events of the answer."""
    message = answer(range(1, len(sizes) + 1), sizes, summary=summary)
    events, rest = read_answer(message.SerializeToString())
    assert events_in(events.data) == list(message.events)
    assert events.positions.tolist() == [event.position for event in message.events]
    assert events.timestamps_ns.tolist() == [event.timestamp.ToNanoseconds() for event in message.events]
    assert events.recorded_ns.tolist() == [event.recorded_at.ToNanoseconds() for event in message.events]
    assert query_service_pb2.ReadSummary.FromString(rest) == message.summary
    start = data.draw(st.integers(0, len(sizes)))
    stop = data.draw(st.integers(start, len(sizes)))
    cut = events.slice(start, stop)
    assert events_in(cut.data) == list(message.events)[start:stop]
    assert cut.slice(0, len(cut)).ends.tolist() == cut.ends.tolist()
    wrapped = stream_service_pb2.ReplayResponse.FromString(event_batch_field(2, cut, resume_position=2**40))
    assert (list(wrapped.events.events), wrapped.events.resume_position) == (list(message.events)[start:stop], 2**40)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), SIZES)
def test_interleaved_events_are_in_order(sources, size):
    """Events that came in several parts come out in the order of their positions, each with its own bytes."""
    everything = answer(range(1, len(sources) + 1), [size])
    parts = [
        read_answer(answer([at + 1 for at, of in enumerate(sources) if of == source], [size]).SerializeToString())[0]
        for source in sorted(set(sources))
    ]
    together = interleave(parts)
    assert events_in(together.data) == list(everything.events)
    assert together.timestamps_ns.tolist() == [event.timestamp.ToNanoseconds() for event in everything.events]


def test_correlation_ids_are_those_that_occur():
    """Each correlation id once; events without one add none."""
    events, _ = read_answer(answer(range(1, 10)).SerializeToString())
    assert events.correlation_ids() == {"chain-1", "chain-2"}


def test_bytes_that_are_no_events_are_refused():
    """What is no answer of the query service is an error, not wrong events."""
    with pytest.raises(EventStorageException, match="no events"):
        read_answer(b"\x0a\xff")
