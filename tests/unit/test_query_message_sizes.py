"""Answers are cut so that each message fits, and no event is lost where they are cut."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from query_service.message_sizes import fitting, pieces
from shared.columns.answers import AnswerEncoder
from shared.columns.wire import WireCodec
from tests.support.reference_events import event_batch, reference_batch

_ENCODER = AnswerEncoder(WireCodec(), "TEST0001")

_rows = st.lists(
    st.fixed_dictionaries(
        {
            "payload": st.integers(0, 3_000).map(lambda size: f'{{"s":"{"x" * size}"}}'),
            "source": st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
            "user": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
            "tags": st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=30),
        }
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=80)
@given(_rows, st.integers(1, 20_000), st.integers(0, 5))
def test_pieces_fit_and_joined_are_the_events(rows, bytes_max, start):
    """Each piece, encoded, takes no more than it may, or is one single event; slices are cut like whole batches."""
    events = event_batch(rows).slice(start)
    cut = list(pieces(events, bytes_max))
    assert pa.Table.from_batches(cut, events.schema).equals(pa.Table.from_batches([events]))
    for piece in cut:
        assert piece.num_rows == 1 or len(_ENCODER.encode(piece, payload_as_struct=False)) <= bytes_max


def test_as_many_as_fit_are_taken() -> None:
    """Not half of what would."""
    events = reference_batch(10_000, 1, 1)
    taken, size = fitting(events, 1_000_000, at_least=1)
    assert 0.7 * 1_000_000 < len(_ENCODER.encode(taken, payload_as_struct=False)) <= size <= 1_000_000
    assert fitting(events, 0, at_least=0)[0].num_rows == 0
    assert fitting(events, -5, at_least=1)[0].num_rows == 1
    assert fitting(events.slice(0, 0), 100, at_least=1) == (events.slice(0, 0), 0)
