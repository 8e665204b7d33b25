"""Filters with long lists of values: DuckDB joins them, which must change neither what is found nor its order."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from eventlog.v1 import event_pb2
from eventlog.v1 import query_service_pb2 as pb

from tests.benchmarks.query_log import LOG_ID, build_query_log
from tests.support.query_service import QueryUnderTest

_EVENTS = 200_000


@pytest.fixture(scope="module", params=["sealed", "unsealed"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several blocks or row groups."""
    directory = tmp_path_factory.mktemp("long-lists")
    sealed = request.param == "sealed"
    build_query_log(
        directory, sealed_segments=int(sealed), tail_events=0 if sealed else _EVENTS, segment_events=_EVENTS
    )
    return directory


@pytest.mark.parametrize("values", [2, 5, 20, 200])
async def test_events_of_a_long_list_come_whole_and_in_order(log: Path, values: int) -> None:
    """By Query in both directions, with a limit, by pages, by Scan, and counted."""
    async with QueryUnderTest(log, log_id=LOG_ID, with_log=False) as service:
        everything = await service.scan(columns=["correlation_id"])
        ids = pa.ipc.open_stream(everything.data).read_all().column("correlation_id").to_pylist()
        known = sorted({each for each in ids if each})
        chosen = set(random.Random(values).sample(known, values))
        expected = [position for position, each in enumerate(ids, 1) if each in chosen]
        expression = f"correlation_id IN ({', '.join(map(repr, sorted(chosen)))})"
        asked = pb.EventSelection(filters=event_pb2.EventFilters(expression=expression))
        assert (await service.query(selection=asked)).positions == expected
        down = await service.query(selection=asked, order=pb.EVENT_ORDER_POSITION_DESCENDING)
        assert down.positions == expected[::-1]
        limited = await service.query(selection=asked, limit=len(expected) // 2 + 1)
        assert limited.positions == expected[: len(expected) // 2 + 1]
        assert await service.list_all(selection=asked, page_size=max(3, len(expected) // 7)) == expected
        scanned = await service.scan(selection=asked, columns=["position", "type"])
        assert pa.ipc.open_stream(scanned.data).read_all().column("position").to_pylist() == expected
        assert (await service.count(selection=asked)).count == len(expected)


async def test_all_but_a_long_list_come_in_order(log: Path) -> None:
    """Nearly all events match: more than one message of them, in order."""
    async with QueryUnderTest(log, log_id=LOG_ID, with_log=False) as service:
        names = ", ".join(f"'no.such.{number}'" for number in range(20))
        asked = pb.EventSelection(filters=event_pb2.EventFilters(expression=f"type NOT IN ({names})"))
        scanned = await service.scan(selection=asked, columns=["position"])
        positions = pa.ipc.open_stream(scanned.data).read_all().column("position").to_pylist()
        assert positions == list(range(1, _EVENTS + 1))
