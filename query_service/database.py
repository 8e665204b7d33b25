"""DuckDB, locked down: it reads the segments, and nothing of a request is ever in the text of a statement.

Invariants: a statement reads the files and tables it names and writes nothing; its values are bound parameters;
a cursor serves one statement at a time and can be interrupted by itself. A statement that needs more memory than there
is ends with EventException (TOO_MANY_REQUESTS).
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from query_service.work import Work
from shared.errors import EventException
from shared.filters.sql_functions import register_filter_functions

# Of few rows, a copy more is nothing.
warnings.filterwarnings("ignore", message="Arrow output on a DB-API result makes an extra copy")

# Set in this order, the last ones lock the rest.
_HARDENING = (
    "SET python_enable_replacements = false",
    # Bytes of files are for the kernel to keep: ours would not notice that a file was replaced.
    "SET enable_external_file_cache = false",
    # No statement has a result that does not fit; nothing may be written to the disk.
    "SET max_temp_directory_size = '0B'",
    "SET preserve_insertion_order = true",
)
_LOCKS = ("SET enable_external_access = false", "SET lock_configuration = true")


@dataclass(frozen=True, slots=True)
class Statement:
    """A SELECT, the values of its named parameters, and the Arrow tables that it names."""

    sql: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


class Database:
    """A DuckDB in memory that can read one directory. It opens when it is first asked. Several threads may use it."""

    def __init__(self, directory: Path, *, threads: int, memory_bytes_max: int) -> None:
        """directory: that of the segments; it need not exist yet."""
        self._directory = directory
        self._threads = threads
        self._memory_bytes_max = memory_bytes_max
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back. Idempotent."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def rows(self, statement: Statement, work: Work) -> list[tuple[Any, ...]]:
        """Return all rows, of which there must be few.

        Raises WorkCancelled, WorkExpired, FileNotFoundError where a file is gone.
        """
        with self._cursor(statement, work) as cursor, work.running(cursor):
            return cursor.execute(statement.sql, dict(statement.parameters)).fetchall()

    def few(self, statement: Statement, work: Work) -> pa.RecordBatch:
        """Return all rows of a result that is held as a whole: its LIMIT must bound it. Raises as `rows`.

        It is planned once, where `batches` plans it twice: a third of the time that it takes to find a few events.
        """
        with self._cursor(statement, work) as cursor, work.running(cursor):
            found = cursor.execute(statement.sql, dict(statement.parameters)).to_arrow_table()
            assert found is not None, "a SELECT has a result"
        batches = found.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=found.schema)

    def batches(self, statement: Statement, work: Work, *, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the result in batches of about `rows` rows, while the statement goes on. Raises as `rows`."""
        with self._cursor(statement, work) as cursor:
            with work.running(cursor):
                reader = cursor.sql(statement.sql, params=dict(statement.parameters)).to_arrow_reader(rows)
            # Its statement may still be running: it ends before the cursor does.
            with contextlib.closing(reader):
                while True:
                    with work.running(cursor):
                        batch = next(reader, None)
                    if batch is None:
                        return
                    yield batch

    @contextlib.contextmanager
    def _cursor(self, statement: Statement, work: Work) -> Iterator[duckdb.DuckDBPyConnection]:
        work.check()
        connection = self._connected()
        cursor = connection.cursor()
        try:
            for name, table in statement.tables.items():
                cursor.register(name, table)
            yield cursor
        except (duckdb.FatalException, duckdb.InternalException):
            # A database that has met an error of its own refuses all that comes after it.
            self._forget(connection)
            raise
        except duckdb.OutOfMemoryException as error:
            raise EventException(
                "the statement needs more memory than query.database_bytes_max leaves: ask when fewer ask, for fewer "
                "columns or groups, or raise that setting",
                reason="TOO_MANY_REQUESTS",
            ) from error
        except duckdb.IOException as error:
            # A file went between the plan and the statement. What else can fail there is said as it is.
            if any(not Path(path).exists() for path in _paths(statement)):
                raise FileNotFoundError(str(error)) from error
            raise OSError(str(error)) from error
        finally:
            # While this thread holds the tables: the last one to let go of them must be Python's.
            with contextlib.suppress(duckdb.Error):
                for name in statement.tables:
                    cursor.unregister(name)
            cursor.close()

    def _connected(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
            return self._connection

    def _forget(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Open another one when it is next asked; cursors of this one keep it until they are closed."""
        with self._lock:
            if self._connection is connection:
                self._connection = None

    def _open(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(
            ":memory:",
            config={
                "threads": self._threads,
                "memory_limit": f"{self._memory_bytes_max // 1024}KiB",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
            },
        )
        register_filter_functions(connection)
        for setting in _HARDENING:
            connection.execute(setting)
        directory = str(self._directory.absolute())
        connection.execute("SET allowed_directories = [$directory]", {"directory": directory})
        for setting in _LOCKS:
            connection.execute(setting)
        return connection


def _paths(statement: Statement) -> Iterator[str]:
    for value in statement.parameters.values():
        if isinstance(value, list):
            yield from value
