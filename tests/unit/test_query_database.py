"""DuckDB under the service: locked down, interruptible, and used by many threads at once."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from query_service.database import Database, Statement
from query_service.work import Work, WorkCancelled, WorkExpired
from shared.clock import SystemClock
from shared.errors import EventException
from tests.support.reference_events import reference_batch

_MIB = 1024 * 1024


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database that reads tmp_path."""
    with Database(tmp_path, threads=2, memory_bytes_max=256 * _MIB) as opened:
        yield opened


def _work() -> Work:
    return Work(SystemClock())


@pytest.fixture(scope="module")
def events() -> pa.Table:
    """Unsealed events, as readers keep them: some columns dictionary-encoded."""
    table = pa.Table.from_batches([reference_batch(20_000, 1, 1)])
    for name in ("type", "source", "correlation_id"):
        table = table.set_column(table.schema.get_field_index(name), name, table.column(name).dictionary_encode())
    return table


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_parquet('/tmp/*.parquet')",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT getenv('HOME')",
    ],
)
def test_nothing_but_the_segments_can_be_reached(database: Database, sql: str) -> None:
    """Not even by a statement that somebody smuggled in."""
    with pytest.raises((duckdb.Error, OSError)):
        database.rows(Statement(sql), _work())


def test_a_file_that_is_gone_is_not_there(database: Database, tmp_path: Path) -> None:
    """So that the segment is looked up anew."""
    statement = Statement("SELECT * FROM read_parquet($files)", {"files": [str(tmp_path / "gone.parquet")]})
    with pytest.raises(FileNotFoundError):
        database.rows(statement, _work())
    with pytest.raises(FileNotFoundError):
        list(database.batches(statement, _work(), rows=10))


def test_a_stream_that_is_left_lets_go_of_its_table(database: Database, events: pa.Table) -> None:
    """A reader that leaves early leaves nothing behind, and others go on."""
    statement = Statement("SELECT position FROM events", {}, {"events": events})
    for _ in range(20):
        stream = database.batches(statement, _work(), rows=100)
        assert next(stream).num_rows
        stream.close()  # type: ignore[attr-defined]
    assert database.rows(Statement("SELECT count(*) FROM events", {}, {"events": events}), _work()) == [(20_000,)]


def test_what_needs_too_much_memory_is_refused_and_says_what_to_do(database: Database) -> None:
    """Others go on."""
    greedy = Statement("SELECT list(repeat('x', 1000) || i) FROM range(3_000_000) t(i)")
    with pytest.raises(EventException, match="database_bytes_max") as refusal:
        database.rows(greedy, _work())
    assert refusal.value.reason == "TOO_MANY_REQUESTS"
    assert database.rows(Statement("SELECT 1"), _work()) == [(1,)]


def test_a_database_that_failed_is_opened_anew(database: Database) -> None:
    """An error of DuckDB's own must not be the end of the service."""
    with pytest.raises(duckdb.InternalException), database._cursor(Statement("SELECT 1"), _work()):
        raise duckdb.InternalException("made up")
    assert database.rows(Statement("SELECT 1"), _work()) == [(1,)]


def test_many_threads_query_tables_and_are_cancelled_at_any_moment(database: Database, events: pa.Table) -> None:
    """Each statement gives its rows, or ends as cancelled or expired; the process survives it."""
    database.rows(Statement("SELECT 1"), _work())
    texts = events.column("payload").to_pylist()
    expected = {word: sum(word in text for text in texts) for word in ("error", "retry", "#77")}

    def ask(seed: int) -> int:
        chance, answered = random.Random(seed), 0
        for _ in range(40):
            work, word = _work(), chance.choice(list(expected))
            work.has_progress = True
            timer = threading.Timer(chance.random() * 0.04, chance.choice([work.cancel, work.expire]))
            timer.start()
            table = pa.concat_tables([events.slice(0, 10_000), events.slice(10_000)])
            condition = "FROM events WHERE payload LIKE $like"
            try:
                if chance.random() < 0.5:
                    statement = Statement(f"SELECT count(*) {condition}", {"like": f"%{word}%"}, {"events": table})
                    found = database.rows(statement, work)[0][0]
                else:
                    statement = Statement(f"SELECT position {condition}", {"like": f"%{word}%"}, {"events": table})
                    found = sum(batch.num_rows for batch in database.batches(statement, work, rows=500))
            except (WorkCancelled, WorkExpired):
                continue
            finally:
                timer.cancel()
                timer.join()
            assert found == expected[word]
            answered += 1
        return answered

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(ask, range(4))) > 0
