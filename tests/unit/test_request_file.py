"""The request ids kept beside a sealed segment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.log.frame import FrameDamaged
from shared.log.names import SEGMENTS, requests_name
from shared.log.recovery import RememberedRequest
from shared.log.request_file import newest_recorded_at, read_request_file, write_request_file
from shared.log.types import Nanoseconds, Position, PositionRange
from tests.support.memory_file_system import MemoryFileSystem, PowerLoss

RANGE = PositionRange(Position(1), Position(9))
NAME = requests_name(RANGE)
REQUEST = st.builds(
    RememberedRequest,
    st.text(max_size=300),
    st.integers(1, 2**63 - 1).map(Position),
    st.integers(1, 10_000),
    st.integers(0, 2**62).map(Nanoseconds),
)


def some_requests(count: int = 3) -> list[RememberedRequest]:
    return [RememberedRequest(f"request-{n}", Position(3 * n + 1), 3, Nanoseconds(100 + n)) for n in range(count)]


@given(requests=st.lists(REQUEST, min_size=1, max_size=20))
def test_requests_come_back(requests):
    """Any ids, positions, counts and times come back in order."""
    fs = MemoryFileSystem()
    write_request_file(fs, RANGE, requests)
    assert read_request_file(fs, NAME) == requests
    assert newest_recorded_at(fs, NAME) == max(request.recorded_at for request in requests)
    assert fs.is_durable()


def test_long_ids_of_the_costliest_characters_come_back():
    """A file of ids that JSON writes at six times their length is no damage."""
    fs = MemoryFileSystem()
    requests = [RememberedRequest("\x01" * 512, Position(1), 1, Nanoseconds(1))] * 50
    write_request_file(fs, RANGE, requests)
    assert read_request_file(fs, NAME) == requests


def test_no_requests_leave_no_file():
    """A segment without named requests has no file beside it."""
    fs = MemoryFileSystem()
    write_request_file(fs, RANGE, [])
    assert fs.list(SEGMENTS) == []


def test_every_flipped_bit_and_cut_is_damage():
    """A damaged file is an error, never other ids."""
    fs = MemoryFileSystem()
    write_request_file(fs, RANGE, some_requests())
    data = fs.read(NAME)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        fs.put(NAME, bytes(damaged))
        for read in (read_request_file, newest_recorded_at):
            with pytest.raises(FrameDamaged):
                read(fs, NAME)
    for size in range(len(data)):
        fs.put(NAME, data[:size])
        for read in (read_request_file, newest_recorded_at):
            with pytest.raises(FrameDamaged):
                read(fs, NAME)


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("keep", ["nothing", "all", "random"])
def test_file_is_whole_or_absent_after_any_crash(part, keep):
    """Losing power at any operation leaves no file or the whole one, and writing it again succeeds."""
    number = 0
    while True:
        number += 1
        fs = MemoryFileSystem()
        fs.sync_directory(SEGMENTS)
        fs.sync_directory(".")
        fs.lose_power_at(number, part=part)
        try:
            write_request_file(fs, RANGE, some_requests())
            break
        except PowerLoss:
            after = fs.crash(keep, seed=number)
        if NAME in after.list(SEGMENTS):
            assert read_request_file(after, NAME) == some_requests()
        write_request_file(after, RANGE, some_requests())
        assert read_request_file(after.crash("nothing"), NAME) == some_requests()
        assert after.list(SEGMENTS) == [NAME]
    assert number > 3


def test_file_that_could_not_be_written_is_written_later():
    """Any operation failing raises, leaves no half file under the name, and the next attempt succeeds."""
    number = 0
    while True:
        number += 1
        fs = MemoryFileSystem()
        fs.fail_nth(number, part=0.5)
        try:
            write_request_file(fs, RANGE, some_requests())
        except OSError:
            assert NAME not in fs.list(SEGMENTS) or read_request_file(fs, NAME) == some_requests()
        else:
            if fs.operations < number:
                break
        write_request_file(fs, RANGE, some_requests())
        assert read_request_file(fs, NAME) == some_requests()
    assert number > 3
