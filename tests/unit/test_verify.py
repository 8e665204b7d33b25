"""Verifying segments, mending what can be mended, and keeping sidecars as they should be."""

import contextlib
from collections.abc import Iterator

import google_crc32c
import pytest

from shared.errors import LogCorrupted
from shared.log.committed_position import Committed
from shared.log.frame import FrameHeader, _pack_header
from shared.log.log_reader import LocalLogReader, SegmentSpan
from shared.log.log_writer import LocalLogWriter
from shared.log.names import QUARANTINE, SEGMENTS, TOKEN_KEY, log_name, requests_name
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import seal_events
from shared.log.sealing import SealOrder, seal_segment
from shared.log.sidecars import rebuild_sidecars
from shared.log.types import Damage, Nanoseconds, Position, PositionRange
from shared.log.verify import Verified, mend_segment, verify_segment
from tests.support import reference_events
from tests.support.builders import LOG_ID, numbered_frame, open_writer
from tests.support.fake_clock import START_NS, FakeClock
from tests.support.log_reading import read_events
from tests.support.memory_file_system import MemoryFileSystem, io_error

_FIRST_LOG, _SECOND_LOG = log_name(Position(1)), log_name(Position(10))
_STEM = f"{SEGMENTS}/{1:020d}-{9:020d}"


class _Log:
    """A log of a rotated segment with three frames of three events and an active one with two."""

    def __init__(self) -> None:
        self.fs = MemoryFileSystem()
        self.writer: LocalLogWriter = open_writer(self.fs)
        for first in (1, 4, 7, 10, 13):
            if first == 10:
                self.writer.rotate()
            self.writer.append(numbered_frame(first, 3))
        self.reader = LocalLogReader(self.fs)

    @property
    def committed(self) -> Committed:
        return self.reader.committed()

    def span(self, number: int = 0) -> SegmentSpan:
        return self.reader.segments(self.committed)[number]

    def verify(self, number: int = 0, *, clock: FakeClock | None = None) -> Verified:
        return verify_segment(self.fs, self.span(number), self.committed, clock=clock or FakeClock())

    def seal(self, **by_type_s: int) -> None:
        seal_segment(
            self.fs,
            SealOrder(
                base_path="",
                log_id=LOG_ID,
                first=1,
                until=10,
                retention_default_s=1,
                retention_by_type_s=by_type_s,
                promoted_paths=[],
                compress=True,
                write_index=True,
            ),
        )


@pytest.fixture
def log() -> Iterator[_Log]:
    """The log of these tests."""
    made = _Log()
    yield made
    made.writer.close()


@pytest.fixture
def sealed(log: _Log) -> _Log:
    """The same with its first segment sealed."""
    log.seal()
    return log


class _Mixed:
    """A sealed segment of positions 1 to 60: every third event is of the class audit, every fifth of error."""

    def __init__(self) -> None:
        self.fs = MemoryFileSystem()
        self.writer = open_writer(self.fs)
        kinds = ["audit" if at % 3 == 0 else "error" if at % 5 == 0 else "test" for at in range(1, 61)]
        self.positions = {kind: [at for at, each in enumerate(kinds, 1) if each == kind] for kind in set(kinds)}
        events = reference_events.event_batch([{"type": kind, "payload": '{"a":1}'} for kind in kinds])
        classes = RetentionClasses(default_seconds=100, by_type={"audit": 300, "error": 200})
        self.writer.append(numbered_frame(1, 60))
        self.writer.rotate()
        self.writer.close()
        sealed = seal_events(
            self.fs, first=Position(1), last=Position(60), events=[events], log_id=LOG_ID, classes=classes
        )
        self.fs.delete(_FIRST_LOG)
        self.names = {file.name.retention_class: file.name.parquet for file in sealed.files}

    def lose(self, *classes: str) -> None:
        for each in classes:
            self.fs.delete(self.names[each])

    def verify(self, after_s: float = 0) -> Verified:
        reader, clock = LocalLogReader(self.fs), FakeClock()
        clock.advance(after_s)
        (span,) = reader.segments(reader.committed())
        return verify_segment(self.fs, span, reader.committed(), clock=clock)


@pytest.mark.parametrize("lost", ["default", "error", "audit"])
def test_a_missing_file_is_damage_of_the_positions_it_held(lost: str) -> None:
    """VerifyLog names the file, and every event that was in it, and no other."""
    log = _Mixed()
    log.lose(lost)
    damage = log.verify().damage
    held = log.positions["test" if lost == "default" else lost]
    assert {each.file for each in damage} == {log.names[lost]}
    assert f"with {len(held)} events that are to be kept" in damage[0].problem
    assert [at for first, last in _ranges(damage) for at in range(first, last + 1)] == held


def test_a_file_whose_events_have_expired_may_be_missing() -> None:
    """Retention removes it: from the moment on at which the newest event has been kept long enough."""
    log = _Mixed()
    log.lose("default", "error")
    assert {each.file for each in log.verify(99).damage} == {log.names["default"], log.names["error"]}
    assert {each.file for each in log.verify(101).damage} == {log.names["error"]}
    assert log.verify(201).damage == []


@pytest.mark.parametrize(("after_s", "expected"), [(99, 1), (201, None)])
def test_a_reader_is_told_of_a_missing_file_until_its_events_have_expired(after_s: float, expected: int | None) -> None:
    """It reads up to the first event that is gone; what retention may have removed is passed over."""
    log = _Mixed()
    log.lose("error", "default")
    clock = FakeClock()
    clock.advance(after_s)
    reader = LocalLogReader(log.fs, clock)
    if expected is None:
        found = [at for batch in read_events(reader) for at in batch.column("position").to_pylist()]
        assert found == log.positions["audit"]
        return
    with pytest.raises(LogCorrupted) as damage:
        list(read_events(reader))
    assert int(damage.value.metadata["first_position"]) == expected


def test_damage_that_is_known_is_not_taken_for_a_missing_file() -> None:
    """Of a file that cannot be read and one that is missing, each is told by itself."""
    log = _Mixed()
    log.lose("error")
    log.fs.put(log.names["audit"], b"nothing of it is left")
    log.fs.delete(log.names["audit"].replace(".parquet", ".par"))
    damage = log.verify().damage
    assert _ranges([each for each in damage if each.file == log.names["audit"]]) == [(1, 60)]
    assert _ranges([each for each in damage if each.file == log.names["error"]]) == [(1, 0)]


def test_a_flipped_bit_in_the_header_of_a_log_file_is_reported(log: _Log) -> None:
    """Every byte is checked, also those that nobody needs; no event is concerned."""
    log.fs.flip(_FIRST_LOG, 20)
    verified = log.verify()
    assert (verified.events, _ranges(verified.damage)) == (9, [(1, 0)])
    assert "the header" in verified.damage[0].problem


def test_a_flipped_bit_anywhere_in_repair_data_is_reported(sealed: _Log) -> None:
    """Also where nothing would need it: in the parity, which is only used once a block is damaged."""
    name = f"{_STEM}.default.par"
    whole = sealed.fs.files()[name]
    for offset in [*range(0, len(whole), 101), len(whole) - 1]:
        sealed.fs.flip(name, offset)
        verified = sealed.verify()
        assert [each.file for each in verified.damage] == [name], f"offset {offset}"
        mend_segment(sealed.fs, sealed.span())
        assert sealed.fs.files()[name] == whole


def _ranges(damage: list[Damage]) -> list[tuple[int, int]]:
    return [(each.positions.first, each.positions.last) for each in damage]


def _flip_frame(log: _Log, name: str, number: int) -> None:
    data = log.fs.files()[name]
    starts = [at for at in range(len(data)) if data.startswith(b"EVFR", at)]
    log.fs.flip(name, starts[number] + 60)


def test_a_sound_log_verifies(sealed: _Log) -> None:
    """Every event and every byte is looked at, and nothing is found."""
    for number, events in ((0, 9), (1, 6)):
        verified = sealed.verify(number)
        assert (verified.events, verified.damage) == (events, [])
        assert verified.bytes > 0


def test_only_what_is_committed_is_verified(log: _Log) -> None:
    """Bytes behind the committed end may be half a frame: that is no damage."""
    log.fs.put(_SECOND_LOG, log.fs.files()[_SECOND_LOG] + b"EVFR half a frame")
    assert (log.verify(1).events, log.verify(1).damage) == (6, [])


@pytest.mark.parametrize(("number", "lost"), [(0, (1, 3)), (1, (4, 6)), (2, (7, 9))])
def test_a_damaged_frame_is_found_past_every_cache(log: _Log, number: int, lost: tuple[int, int]) -> None:
    """A reader that knew the frame does not hide it; the others are counted."""
    assert log.verify().damage == []
    _flip_frame(log, _FIRST_LOG, number)
    verified = log.verify()
    assert (verified.events, _ranges(verified.damage)) == (6, [lost])


def test_intact_bytes_that_are_no_events_are_found(log: _Log) -> None:
    """A frame whose checksums hold and whose events do not decode is damage, not an exception."""
    body = b"not what a frame holds"
    header = FrameHeader(Position(7), 3, len(body), Nanoseconds(START_NS), 5, 2, google_crc32c.value(body))
    data = log.fs.files()[_FIRST_LOG]
    third = [at for at in range(len(data)) if data.startswith(b"EVFR", at)][2]
    log.fs.put(_FIRST_LOG, data[:third] + _pack_header(header) + body)
    verified = log.verify()
    assert (verified.events, _ranges(verified.damage)) == (6, [(7, 9)])


def test_damage_that_was_sealed_is_told_again(log: _Log) -> None:
    """VerifyLog names what is lost, also what was lost before sealing."""
    _flip_frame(log, _FIRST_LOG, 1)
    log.seal()
    verified = log.verify()
    assert (verified.events, _ranges(verified.damage)) == (6, [(4, 6)])


def _flip_sealed(log: _Log) -> bytes:
    """Flip one bit of the sealed events; return the file as it is then."""
    log.fs.flip(f"{_STEM}.default.parquet", 100)
    return log.fs.files()[f"{_STEM}.default.parquet"]


def test_a_flipped_bit_of_a_sealed_file_is_repaired_on_disk(sealed: _Log) -> None:
    """No event is lost; the damaged bytes are kept in quarantine; afterwards all is as it was."""
    whole = sealed.fs.files()
    damaged = _flip_sealed(sealed)
    verified = sealed.verify()
    assert verified.events == 9
    assert _ranges(verified.damage) == [(1, 0)]
    mend_segment(sealed.fs, sealed.span())
    (kept,) = sealed.fs.list(QUARANTINE)
    assert sealed.fs.files()[kept] == damaged
    assert {name: data for name, data in sealed.fs.files().items() if name.startswith(_STEM)} == {
        name: data for name, data in whole.items() if name.startswith(_STEM)
    }
    assert sealed.verify().damage == []
    assert sealed.fs.is_durable()


def _damaged_log() -> _Log:
    log = _Log()
    log.seal()
    _flip_sealed(log)
    return log


@pytest.mark.parametrize("part", [0.0, 1.0])
def test_mending_may_fail_at_any_operation(part: float) -> None:
    """No event is lost meanwhile, and mending again ends as if nothing had happened."""
    well = _damaged_log()
    span = well.span()
    before = well.fs.operations
    mend_segment(well.fs, span)
    other_secret = {TOKEN_KEY: well.fs.files()[TOKEN_KEY]}
    for number in range(1, well.fs.operations - before + 1):
        log = _damaged_log()
        span = log.span()
        log.fs.fail_nth(number, io_error(), part=part)
        with contextlib.suppress(OSError):
            mend_segment(log.fs, span)
        log.fs.heal()
        assert log.verify().events == 9
        mend_segment(log.fs, log.span())
        assert log.verify().damage == []
        assert log.fs.files() | other_secret == well.fs.files()
        assert log.fs.is_durable()


def test_mending_again_keeps_no_second_copy(sealed: _Log) -> None:
    """What cannot be repaired is kept once, however often it is looked at."""
    sealed.fs.put(f"{_STEM}.default.parquet", b"nothing of it is left")
    sealed.fs.delete(f"{_STEM}.default.par")
    for _ in range(2):
        assert _ranges(sealed.verify().damage) == [(1, 9)]
        mend_segment(sealed.fs, sealed.span())
    assert len(sealed.fs.list(QUARANTINE)) == 1
    assert sealed.fs.files()[f"{_STEM}.default.parquet"] == b"nothing of it is left"


def test_a_damaged_file_is_not_replaced_before_it_is_kept(sealed: _Log) -> None:
    """Where the copy cannot be written, nothing is changed."""
    damaged = _flip_sealed(sealed)
    sealed.fs.fail_next("sync", io_error())
    with pytest.raises(OSError, match="Input/output error"):
        mend_segment(sealed.fs, sealed.span())
    assert sealed.fs.files()[f"{_STEM}.default.parquet"] == damaged
    mend_segment(sealed.fs, sealed.span())
    assert sealed.verify().damage == []


@pytest.mark.parametrize("missing", [True, False])
def test_repair_data_is_made_anew(sealed: _Log, *, missing: bool) -> None:
    """Missing or damaged, it is reported and mended; no event is concerned."""
    name = f"{_STEM}.default.par"
    whole = sealed.fs.files()[name]
    if missing:
        sealed.fs.delete(name)
    else:
        sealed.fs.flip(name, 40)
    verified = sealed.verify()
    assert (verified.events, _ranges(verified.damage)) == (9, [(1, 0)])
    mend_segment(sealed.fs, sealed.span())
    assert sealed.fs.files()[name] == whole
    assert sealed.fs.list(QUARANTINE) == []


def test_damaged_request_ids_are_reported_once(log: _Log) -> None:
    """However many classes the segment has; its events are whole."""
    log.seal(test=5)
    name = requests_name(PositionRange(Position(1), Position(9)))
    log.fs.flip(name, 30)
    verified = log.verify()
    assert (verified.events, [each.file for each in verified.damage]) == (9, [name])
    assert "would be logged again" in verified.damage[0].problem


def test_a_segment_that_was_sealed_meanwhile_is_not_found(log: _Log) -> None:
    """Whoever verifies looks at the directory again."""
    span = log.span()
    log.seal()
    with pytest.raises(FileNotFoundError):
        verify_segment(log.fs, span, log.committed)


def test_sidecars_are_made_where_they_are_missing_or_damaged(sealed: _Log) -> None:
    """A sound one is left alone unless all are to be made; the new one is the same."""
    name = f"{_STEM}.default.idx"
    whole = sealed.fs.files()[name]
    kept = rebuild_sidecars(sealed.fs, only_missing=True)
    assert (kept.made, kept.kept) == (0, 1)
    sealed.fs.flip(name, 50)
    assert (rebuild_sidecars(sealed.fs, only_missing=True).made, sealed.fs.files()[name]) == (1, whole)
    sealed.fs.delete(name)
    assert (rebuild_sidecars(sealed.fs, only_missing=True).made, sealed.fs.files()[name]) == (1, whole)
    assert rebuild_sidecars(sealed.fs, only_missing=False).made == 1


def test_no_sidecar_is_made_of_half_a_file(sealed: _Log) -> None:
    """It would hide the other half: the damage is reported instead, and the other files go on."""
    sealed.fs.put(f"{_STEM}.default.parquet", b"nothing of it is left")
    sealed.fs.delete(f"{_STEM}.default.par")
    sealed.fs.delete(f"{_STEM}.default.idx")
    rebuilt = rebuild_sidecars(sealed.fs, only_missing=False)
    assert (rebuilt.made, _ranges(rebuilt.damage)) == (0, [(1, 9)])
    assert f"{_STEM}.default.idx" not in sealed.fs.files()
