"""The events of sessions and what is related to them: each once, in order, however they are read; bounded."""

import pytest
from eventlog.v1 import event_pb2
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import EventStreamException
from stream_service import session_events
from stream_service.query_history import Extent, Selection, chains_filter
from stream_service.session_events import SessionEvents, read_together
from tests.support.encoded import batch


class MemoryHistory:
    """A history of positions by correlation id, which says what it was asked."""

    def __init__(self, chains):
        self.chains = chains
        self.asked = []

    async def read(self, wanted, *, limit=0):
        self.asked.append(wanted)
        ids = event_pb2.EventFilters.FromString(wanted.filters).correlation_ids
        found = sorted(position for name in ids for position in self.chains[name])
        found = [each for each in found if wanted.from_position <= each < wanted.until_position][: limit or None]
        for at in range(0, len(found), 3):
            yield batch(*found[at : at + 3])


@given(st.lists(st.integers(0, 4), max_size=60), st.integers(1, 5), st.integers(0, 60))
async def test_readings_together_give_everything_once_in_order(chain_of, limit, first):
    """Whatever is in which reading, and however small the pieces: all events from the first on, in order, once."""
    chains = {str(number): [] for number in range(5)}
    for at, number in enumerate(chain_of):
        chains[str(number)].append(at + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_events, "READING_EVENTS_MAX", limit)
        selections = [
            Selection(from_position=first, until_position=100, filters=chains_filter([name])) for name in chains
        ]
        history = MemoryHistory(chains)
        found = [int(each) async for events in read_together(history, selections) for each in events.positions]
    assert found == [position for position in range(1, len(chain_of) + 1) if position >= first]


class SessionHistory:
    """A history in which every event belongs to the session; correlation ids as in `batch`."""

    def __init__(self):
        self.asked = []

    async def read(self, wanted):
        self.asked.append((wanted.from_position, wanted.until_position))
        if wanted.from_position < wanted.until_position:
            yield batch(*range(wanted.from_position, wanted.until_position))


WITHIN = Selection(from_position=1, until_position=100)


async def selections(sessions, session="s", committed=10, **options):
    settings = {"include_related": True} | options
    return await sessions.selections(session, WITHIN, Extent(1, committed), **settings)


async def test_known_session_is_only_brought_up_to_date():
    """The second replay of a session reads what was logged since the first, for its correlation ids, and no more."""
    history = SessionHistory()
    sessions = SessionEvents(history, cache_size=2)
    first = await selections(sessions, committed=4)
    assert await selections(sessions, committed=7) == first
    assert history.asked == [(1, 5), (5, 8)]


async def test_known_session_is_not_asked_for_what_retention_removed():
    """Where the log begins behind what is known of a session by now, its update begins there."""
    history = SessionHistory()
    sessions = SessionEvents(history, cache_size=2)
    await selections(sessions, committed=4)
    await sessions.selections("s", WITHIN, Extent(9, 12), include_related=True)
    assert history.asked == [(1, 5), (9, 13)]


async def test_sessions_beyond_the_cache_are_forgotten():
    """No more sessions are remembered than configured; none, where that is 0."""
    history = SessionHistory()
    sessions = SessionEvents(history, cache_size=1)
    for session in ("a", "b", "a"):
        await selections(sessions, session)
    assert history.asked == [(1, 11)] * 3
    await selections(SessionEvents(history, cache_size=0))


async def test_session_without_its_relations_is_one_reading():
    """Without the related events, correlation ids do not matter."""
    history = SessionHistory()
    (only,) = await selections(SessionEvents(history, cache_size=1), "it's", include_related=False)
    expression = event_pb2.EventFilters.FromString(only.filters).expression
    assert (history.asked, expression) == ([], "metadata.session_id = 'it''s'")


async def test_session_with_too_many_chains_is_refused(monkeypatch):
    """More correlation ids than a replay follows are an error that says what to do."""
    monkeypatch.setattr(session_events, "CORRELATION_IDS_MAX", 1)
    with pytest.raises(EventStreamException, match="without the related") as caught:
        await selections(SessionEvents(SessionHistory(), cache_size=1))
    assert caught.value.reason == "SESSION_TOO_LARGE"


async def test_many_chains_are_several_readings(monkeypatch):
    """As many readings as the filter language needs for the correlation ids, and one for events without."""
    monkeypatch.setattr(session_events, "LIST_VALUES_MAX", 1)
    found = await selections(SessionEvents(SessionHistory(), cache_size=1))
    filters = [event_pb2.EventFilters.FromString(each.filters) for each in found]
    assert [list(each.correlation_ids) for each in filters] == [[], ["chain-1"], ["chain-2"]]
    assert filters[0].expression == "metadata.session_id = 's' AND correlation_id IS NULL"
