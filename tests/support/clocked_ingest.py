"""The ingest service with a clock that a test sets while it runs.

    clock = SettableClock(tmp_path / "clock")
    with Cluster(tmp_path, ingest_module=MODULE, environ=clock.environ) as cluster:
        clock.jump(-3600)

`python -m tests.support.clocked_ingest --config FILE` is `python -m ingest_service` otherwise. The test and the
service share eight bytes of memory: by how many nanoseconds the time of day is wrong.
"""

import mmap
import os
import struct
import sys
from functools import partial
from pathlib import Path

from ingest_service.composition import run
from shared.clock import SystemClock
from shared.rpc.service_main import service_main

MODULE = "tests.support.clocked_ingest"
_FILE = "EVENTLOG_TEST_CLOCK"
_ERROR_NS = struct.Struct("<q")


class SettableClock(SystemClock):
    """A system clock whose time of day is wrong by what the file says; made right where there is no file."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_ERROR_NS.pack(0))
        self.environ = {_FILE: str(path)}
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _ERROR_NS.size)

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, UTC, and how wrong the clock is."""
        [error_ns] = _ERROR_NS.unpack(self._shared)
        return super().now_ns() + int(error_ns)

    def jump(self, seconds: float) -> None:
        """Set the time of day forward or back for whoever shares the file."""
        [error_ns] = _ERROR_NS.unpack(self._shared)
        self._shared[:] = _ERROR_NS.pack(error_ns + round(seconds * 1e9))


if __name__ == "__main__":
    clock = SettableClock(Path(os.environ[_FILE]))
    sys.exit(service_main(partial(run, clock=clock), service="ingest_service"))
