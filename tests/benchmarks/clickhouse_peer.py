"""ClickHouse as a peer, on the same events: chDB, which is ClickHouse as a library, in a process of its own.

Its table is made as somebody would make it who knows these questions: MergeTree in the order of positions, as the log
is and as the answers must be; the payload in its JSON type; low cardinalities as such; a minimum and maximum of the
timestamps, a set of the types, and Bloom filters on the ids for each granule. Its times are those of the library, into
a buffer of Arrow: no network, no process between.

    python -m tests.benchmarks.clickhouse_peer DIRECTORY < requests > answers
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.benchmarks.peer_process import PeerFailedError, PeerMissingError

THREADS = 2
PACKAGES = Path(__file__).parents[2] / "build" / "bench-packages"

_TABLE = """
CREATE TABLE events (
    position UInt64,
    recorded_at DateTime64(9, 'UTC'),
    timestamp DateTime64(9, 'UTC'),
    type LowCardinality(String),
    source LowCardinality(String),
    correlation_id String,
    payload JSON,
    host LowCardinality(String),
    version LowCardinality(String),
    user String,
    session_id String,
    tags Array(LowCardinality(String)),
    INDEX by_time timestamp TYPE minmax GRANULARITY 1,
    INDEX by_type type TYPE set(100) GRANULARITY 1,
    INDEX by_correlation_id correlation_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_session_id session_id TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = MergeTree ORDER BY position
"""
_LOAD = """
INSERT INTO events
SELECT position, recorded_at, timestamp, type, source, ifNull(correlation_id, ''), payload::JSON, host, version,
    ifNull(user, ''), ifNull(session_id, ''), tags
FROM file('{files}', Parquet)
"""


class ClickHouse:
    """The peer's process. Belongs to one thread; use it as a context."""

    def __init__(self, directory: Path) -> None:
        """directory: where it keeps its data. Raises PeerMissingError where chDB is not installed."""
        if not (PACKAGES / "chdb").is_dir():
            raise PeerMissingError("chDB is not installed; `make bench` installs it into build/bench-packages")
        self._directory = directory

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.clickhouse_peer", str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": f"{PACKAGES}:{Path(__file__).parents[2]}"},
            text=True,
        )
        self.run(_TABLE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def load(self, files: str) -> None:
        """Load the events of Parquet files, named by a glob, beside those there are."""
        self.run(_LOAD.format(files=files))

    def times_ms(self, statements: Sequence[str]) -> list[float]:
        """How long each takes."""
        return [self.run(statement)["ms"] for statement in statements]

    def numbers(self, statement: str) -> list[int]:
        """The first column of the answer, which holds numbers."""
        text: str = self.run(statement, "TSV")["text"]
        return [int(line.split("\t")[0]) for line in text.splitlines()]

    def run(self, statement: str, form: str = "Arrow") -> dict[str, Any]:
        """Run a statement. Raises PeerFailedError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"statement": statement, "form": form}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process has ended"}
        if "error" in answer:
            raise PeerFailedError(f"ClickHouse: {answer['error']}")
        return answer


def _serve(directory: str) -> None:
    """Run the statements of standard input, a line each."""
    import chdb  # noqa: PLC0415 — only this process has it

    connection = chdb.connect(f"{directory}/clickhouse")
    connection.query(f"SET max_threads = {THREADS}")
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        try:
            result = connection.query(request["statement"], request["form"])
        except Exception as error:  # noqa: BLE001 — the parent decides
            answer: dict[str, Any] = {"error": str(error)}
        else:
            answer = {"ms": (time.perf_counter() - started) * 1000}
            if request["form"] == "TSV":
                answer["text"] = result.bytes().decode()
        print(json.dumps(answer), flush=True)
    connection.close()


if __name__ == "__main__":
    _serve(sys.argv[1])
