"""What is remembered of named requests: within the horizon, within the maximum, across restarts."""

import pytest

from ingest_service.request_memory import RequestMemory, load_requests
from shared.errors import EventValidationException
from shared.log.names import requests_name
from shared.log.recovery import Recovered, RememberedRequest
from shared.log.request_file import write_request_file
from shared.log.types import Nanoseconds, Position, PositionRange
from tests.support.builders import LOG_ID
from tests.support.memory_file_system import MemoryFileSystem

_HORIZON_S = 1_000.0
_NANOS = 1_000_000_000


def _memory(requests_max: int = 10) -> RequestMemory:
    return RequestMemory(requests_max=requests_max, horizon_s=_HORIZON_S)


def _logged(request_id: str, first: int, *, count: int = 2, recorded_at: int = 0) -> RememberedRequest:
    return RememberedRequest(request_id, Position(first), count, Nanoseconds(recorded_at))


def _first(memory: RequestMemory, request_id: str, count: int = 2) -> int | None:
    found = memory.find(request_id, count, {})
    return found[0].first if found else None


def test_a_request_is_found_with_its_first_positions() -> None:
    """A known id answers positions and time; an unknown one nothing."""
    memory = _memory()
    memory.remember([_logged("a", 5, count=3, recorded_at=7)], 0)
    assert memory.find("a", 3, {}) == (PositionRange(Position(5), Position(7)), 7)
    assert memory.find("b", 3, {}) is None


def test_what_is_placed_in_the_same_frame_counts_as_known() -> None:
    """A request of the frame being built is found before the frame is."""
    assert _memory().find("a", 2, {"a": _logged("a", 5)}) == (PositionRange(Position(5), Position(6)), 0)


@pytest.mark.parametrize("framed", [True, False])
def test_another_number_of_events_under_the_same_id_is_refused(*, framed: bool) -> None:
    """An id that named another batch is a mistake of the producer, and said so."""
    memory = _memory()
    if not framed:
        memory.remember([_logged("a", 5)], 0)
    with pytest.raises(EventValidationException) as caught:
        memory.find("a", 3, {"a": _logged("a", 5)} if framed else {})
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert caught.value.metadata == {"first_position": "5", "count": "2"}


def test_the_oldest_are_forgotten_beyond_the_maximum() -> None:
    """The number of ids is bounded."""
    memory = _memory(requests_max=2)
    memory.remember([_logged("a", 1), _logged("b", 3), _logged("c", 5)], 0)
    assert (len(memory), _first(memory, "a"), _first(memory, "b")) == (2, None, 3)


def test_what_lies_beyond_the_horizon_is_forgotten() -> None:
    """A request is remembered for the whole horizon, and not longer than needed."""
    memory = _memory()
    memory.remember([_logged("a", 1)], 7.0)
    memory.remember([_logged("b", 3)], 8.0)
    memory.forget_expired(7.0 + _HORIZON_S)
    assert _first(memory, "a") == 1
    memory.forget_expired(8.0 + _HORIZON_S)
    assert (_first(memory, "a"), _first(memory, "b")) == (None, 3)


def test_an_id_that_was_forgotten_and_used_again_means_the_later_request() -> None:
    """Reading the disk finds both; only the later one is within the horizon, and a repeat of it is recognised."""
    recovered = _recovered(_logged("a", 1), _logged("b", 3), _logged("a", 500, recorded_at=1001 * _NANOS))
    memory = _memory()
    load_requests(memory, MemoryFileSystem(), recovered, now_s=5.0)
    assert _first(memory, "a") == 500
    assert _first(memory, "b") is None


def _recovered(*requests: RememberedRequest) -> Recovered:
    return Recovered(LOG_ID, requests=list(requests))


def _seal(fs: MemoryFileSystem, first: int, *requests: RememberedRequest) -> str:
    positions = PositionRange(Position(first), Position(first + 9))
    write_request_file(fs, positions, requests)
    return requests_name(positions)


def test_a_restart_reads_sealed_and_unsealed_segments() -> None:
    """Ids come from the .requests files, then from what recovery found in .log files."""
    fs = MemoryFileSystem()
    _seal(fs, 1, _logged("a", 1), _logged("b", 3))
    _seal(fs, 11, _logged("c", 11))
    memory = _memory()
    load_requests(memory, fs, _recovered(_logged("d", 21)), now_s=0.0)
    assert [_first(memory, name) for name in "abcd"] == [1, 3, 11, 21]


def test_a_restart_counts_the_horizon_from_the_newest_event() -> None:
    """Whatever time of day it is, what was logged within a horizon of the last event is remembered as long again."""
    recovered = _recovered(_logged("a", 1, recorded_at=0), _logged("b", 3, recorded_at=600 * _NANOS))
    recovered.last_recorded_at = Nanoseconds(1000 * _NANOS)
    memory = _memory()
    load_requests(memory, MemoryFileSystem(), recovered, now_s=5.0)
    memory.forget_expired(5.0)
    assert (_first(memory, "a"), _first(memory, "b")) == (1, 3)
    memory.forget_expired(6.0)
    assert (_first(memory, "a"), _first(memory, "b")) == (None, 3)
    memory.forget_expired(606.0)
    assert _first(memory, "b") is None


def test_a_restart_reads_no_more_than_may_be_remembered() -> None:
    """Of many files the newest ids are kept."""
    fs = MemoryFileSystem()
    for first in (1, 11, 21):
        _seal(fs, first, _logged(f"a{first}", first), _logged(f"b{first}", first + 2))
    memory = _memory(requests_max=3)
    load_requests(memory, fs, _recovered(), now_s=0.0)
    assert [_first(memory, name) for name in ("a11", "b11", "a21", "b21")] == [None, 13, 21, 23]


def test_a_damaged_request_file_loses_only_its_own_ids(caplog: pytest.LogCaptureFixture) -> None:
    """The service starts all the same, and says which ids are lost."""
    fs = MemoryFileSystem()
    fs.flip(_seal(fs, 1, _logged("a", 1)), 30)
    _seal(fs, 11, _logged("c", 11))
    memory = _memory()
    load_requests(memory, fs, _recovered(), now_s=0.0)
    assert (_first(memory, "a"), _first(memory, "c")) == (None, 11)
    assert "request ids of a sealed segment are lost" in caplog.text
