"""EventStore against real services: the specification's store, over gRPC."""

import datetime as dt

import pytest

from shared.client import EventFilter, EventStore, LoggerOptions, QueryOptions
from shared.config import EventConfig, IngestConfig, QueryConfig, RotationConfig, StorageConfig
from shared.events import Event
from shared.rpc.remote_error import RemoteError

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(module_cluster):
    """An ingest and a query service."""
    with module_cluster() as cluster:
        yield cluster


def store_of(cluster, **rotation) -> EventStore:
    """A store whose own limits of rotation are these."""
    config = EventConfig(
        storage=StorageConfig(rotation=RotationConfig(**rotation)),
        ingest=IngestConfig(listen=cluster.ingest.address),
        query=QueryConfig(listen=cluster.query.address),
    )
    return EventStore(config, logger_options=LoggerOptions(version="1"), query_options=QueryOptions())


async def test_appended_events_are_rotated_when_a_limit_is_reached(cluster):
    """append gives the id of an acknowledged event; rotate_if_needed rotates at a limit, and not twice."""
    async with store_of(cluster, max_events=1) as store:
        await store.append(Event(type="store.zeroth"))
        await store.rotate_if_needed()
    async with store_of(cluster, max_events=2) as store:
        first = await store.append(Event(type="store.first", payload={"n": 1}))
        assert first.startswith("evt_")
        assert not await store.rotate_if_needed()
        assert await store.append(Event(type="store.second")) > first
        assert await store.rotate_if_needed()
        assert not await store.rotate_if_needed()


async def test_young_small_segment_is_not_rotated(cluster):
    """Below all limits nothing happens."""
    async with store_of(cluster) as store:
        await store.append(Event(type="store.third"))
        assert not await store.rotate_if_needed()


async def test_archiving_says_that_it_is_not_there_yet(cluster):
    """What the service cannot do is a typed error, which says so."""
    async with store_of(cluster) as store:
        with pytest.raises(RemoteError) as caught:
            await store.archive_old_logs(dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    assert caught.value.reason == "NOT_IMPLEMENTED"


async def test_query_finds_what_was_appended(cluster):
    """What was appended is found by a filter, oldest first and no more than the limit."""
    async with store_of(cluster) as store:
        ids = [await store.append(Event(type="store.found", payload={"n": number})) for number in range(3)]
        found = await store.query(EventFilter().build_filter(type_pattern="store.f?und"), limit=2)
        assert [event.id for event in found] == ids[:2]
        assert [event.id for event in await store.query("type = 'store.found' AND payload.n = 2")] == ids[2:]
