"""EventQuery and AsyncEventQuery against real services: what was logged is found, paged, counted and exported."""

import asyncio
import csv
import io
import json

import pyarrow.parquet as pq
import pytest
import zstandard

from shared.client import (
    AsyncEventQuery,
    EventFilter,
    EventLogger,
    EventOrder,
    EventQuery,
    LoggerOptions,
    QueryOptions,
)
from shared.config import EventConfig, IngestConfig, QueryConfig
from shared.errors import EventFilterException, EventStorageException, EventValidationException
from shared.events import Event
from shared.events.document import to_document

pytestmark = pytest.mark.cluster

EVENTS = 2_500
SEALED = 1_000


@pytest.fixture(scope="module")
def cluster(module_cluster):
    """Services with some events, part of them in rotated segments."""
    with module_cluster(storage={"rotation": {"max_events": SEALED}}) as cluster:
        events = [
            Event(
                type="even.event" if number % 2 == 0 else "odd.event",
                source="=cmd" if number % 100 == 0 else "tests",
                correlation_id=f"chain {number // 10}",
                payload={"number": number, "big": 2**70 + number, "text": f'line\n"{number}", ü'},
            )
            for number in range(EVENTS)
        ]
        with EventLogger(config_of(cluster), LoggerOptions(version="1")) as logger:
            for start in range(0, EVENTS, 500):
                logger.log_batch(events[start : start + 500])
        yield cluster


def config_of(cluster) -> EventConfig:
    """The configuration of a program that uses the cluster."""
    return EventConfig(
        ingest=IngestConfig(listen=cluster.ingest.address), query=QueryConfig(listen=cluster.query.address)
    )


@pytest.fixture
def query(cluster):
    """A client for threads."""
    with EventQuery(config_of(cluster)) as query:
        yield query


def test_events_come_back_as_they_were_logged(query):
    """Iterating gives everything, in order, with every digit."""
    events = list(query.events())
    assert [event.payload["number"] for event in events] == list(range(EVENTS))
    assert events[7].payload == {"number": 7, "big": 2**70 + 7, "text": 'line\n"7", ü'}
    assert (events[7].type, events[7].correlation_id, events[7].metadata.version) == ("odd.event", "chain 0", "1")


def test_filters_orders_and_limits_choose_events(query):
    """Expressions and EventFilters choose; the newest come first where that is asked for."""
    newest = query.events("type = 'even.event'", 3, order=EventOrder.POSITION_DESCENDING)
    assert [event.payload["number"] for event in newest] == [EVENTS - 2, EVENTS - 4, EVENTS - 6]
    chain = query.events(EventFilter().build_filter(correlation_id="chain 12"))
    assert [event.payload["number"] for event in chain] == list(range(120, 130))
    middle = query.events("payload.number >= 10", from_position=1, until_position=21)
    assert [event.position for event in middle] == list(range(11, 21))


def test_pages_counts_and_single_events_agree(query):
    """The pages together hold as many events as the count says, and each can be got by its id."""
    expression = "payload.number BETWEEN 100 AND 1299 AND type LIKE 'odd.*'"
    pages, token = [], ""
    while token or not pages:
        page = query.page(expression, 250, token)
        pages.append(page.events)
        token = page.next_page_token
    events = [event for page in pages for event in page]
    assert len(events) == query.count(expression) == 600
    assert query.get(events[-1].id) == query.get(events[-1].position) == events[-1]
    with pytest.raises(EventStorageException) as caught:
        query.get(10**9)
    assert caught.value.reason == "EVENT_NOT_FOUND"


def test_explanation_shows_the_filter_and_the_segments(query):
    """The expression in full, its tree, and for each segment whether it would be read."""
    explanation = query.explain("correlation_id = 'chain 5' OR type = 'x'")
    assert "correlation_id" in explanation.tree
    assert "chain 5" in explanation.expression
    assert explanation.segments
    assert all(segment.why for segment in explanation.segments)


def test_wrong_filter_names_the_place(query):
    """The error is a filter's, with line and column."""
    with pytest.raises(EventFilterException) as caught:
        list(query.events("type == 'a'"))
    assert caught.value.metadata["line"] == "1"


def test_json_export_holds_the_documents(query, tmp_path):
    """Each line is the document form of an event, also in a compressed file."""
    plain = query.export(tmp_path / "events.jsonl", "json")
    packed = query.export(tmp_path / "events.jsonl.zst", "json", zstd=True)
    lines = (tmp_path / "events.jsonl").read_bytes().split(b"\n")[:-1]
    assert lines == [to_document(event) for event in query.events()]
    assert plain.events == packed.events == EVENTS
    unpacked = zstandard.ZstdDecompressor().stream_reader((tmp_path / "events.jsonl.zst").read_bytes()).read()
    assert unpacked == (tmp_path / "events.jsonl").read_bytes()
    assert packed.bytes == (tmp_path / "events.jsonl.zst").stat().st_size


def test_csv_export_is_flat_and_harmless(query, tmp_path):
    """Payload keys are columns, digits are kept, formulas are text."""
    report = query.export(tmp_path / "events.csv", "csv", "payload.number < 300")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "events.csv").read_text(), newline="")))
    assert len(rows) == report.events == 300
    assert rows[200]["source"] == "'=cmd"
    assert rows[200]["payload.big"] == str(2**70 + 200)
    assert json.loads(rows[7]["payload"])["text"] == 'line\n"7", ü'


def test_parquet_export_is_read_by_others(query, tmp_path):
    """The file has a row for each event; progress tells how far it is."""
    progress = []
    report = query.export(tmp_path / "odd.parquet", "parquet", "type = 'odd.event'", on_progress=progress.append)
    table = pq.read_table(tmp_path / "odd.parquet")
    assert table.num_rows == report.events == progress[-1].events == EVENTS // 2
    assert table["id"][0].as_py() == next(query.events("type = 'odd.event'", 1)).id


def test_unknown_format_is_refused_before_anything_is_written(query, tmp_path):
    """The error names the formats there are; no file appears."""
    with pytest.raises(EventValidationException, match="parquet"):
        query.export(tmp_path / "events.xml", "xml")
    assert list(tmp_path.iterdir()) == []


async def test_asyncio_form_answers_the_same(cluster, query, tmp_path):
    """All methods, several at a time, in one event loop."""
    expression = "type = 'even.event' AND payload.number < 500"
    async with AsyncEventQuery(config_of(cluster), QueryOptions(call_timeout_s=20)) as client:

        async def positions() -> list[int]:
            return [event.position async for event in client.events(expression)]

        found, count, page, report = await asyncio.gather(
            positions(),
            client.count(expression),
            client.page(expression, 10_000),
            client.export(tmp_path / "async.jsonl", "json", expression),
        )
        assert (
            found == [event.position for event in page.events] == [event.position for event in query.events(expression)]
        )
        assert len(found) == count == report.events == 250
        assert (await client.get(found[0])).position == found[0]
        assert (await client.explain(expression)).sql
