"""What all tests share: the real data, hypothesis profiles, and the check that nothing is left running."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

# A busy machine makes any example slow, so there is no deadline for one; pytest-timeout ends what hangs.
settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Processes of multiprocessing that live as long as the interpreter, by what their command line holds.
_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")
_END_S_MAX = 10.0


def pytest_report_header() -> str:
    """Say which data the tests run with."""
    folder = _data_folder()
    return f"real data: {folder if folder.is_dir() else f'none at {folder}, the tests that need it are skipped'}"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data: EVENTLOG_DATA_DIR, else ../shared/data beside the project."""
    folder = _data_folder()
    if not folder.is_dir():
        pytest.skip(f"there is no real data at {folder}; name its folder in EVENTLOG_DATA_DIR")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    """Fail where a child process, or a thread that keeps the interpreter from ending, outlives the tests.

    Set up before all other fixtures of the session, so it looks after they are torn down.
    """
    before = set(threading.enumerate())
    yield
    give_up_at = monotonic() + _END_S_MAX
    waiting = threading.Event()
    while (left := [*_child_processes(), *_threads_since(before)]) and monotonic() < give_up_at:
        waiting.wait(0.05)
    assert left == [], "the tests left these running; close what starts them"


def _data_folder() -> Path:
    given = os.environ.get("EVENTLOG_DATA_DIR")
    return (ROOT / given).resolve() if given else ROOT.parent / "shared" / "data"


def _threads_since(before: set[threading.Thread]) -> list[str]:
    return [f"thread {thread.name}" for thread in threading.enumerate() if not thread.daemon and thread not in before]


def _child_processes() -> Iterator[str]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # "pid (command) state parent ...", and the command may hold spaces and brackets.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:  # ended meanwhile
            continue
        if int(parent) == os.getpid() and not any(helper in command for helper in _HELPERS):
            yield f"process {stat.parent.name} ({state}): {command.replace(bytes(1), b' ').decode(errors='replace')}"
