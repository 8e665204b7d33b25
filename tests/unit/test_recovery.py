"""Opening a log after torn writes, rot and lost files: nothing committed is lost, hidden, or invented."""

import struct

import google_crc32c
import msgspec
import pytest

from shared.errors import EventStorageException, UnsupportedFormat
from shared.log.committed_position import Committed, CommittedPositionWriter, read_committed
from shared.log.frame import RequestMark
from shared.log.names import COMMITTED, IDENTITY, QUARANTINE, SEGMENTS, log_name
from shared.log.recovery import Identity, RememberedRequest, recover
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import seal_events
from shared.log.segment_scan import SEGMENT_HEADER_BYTES
from shared.log.types import Nanoseconds, Offset, Position
from tests.support.builders import LOG_ID, Contents, frame_of, numbered_frame, open_writer, payload, read_all
from tests.support.fake_clock import START_NS
from tests.support.memory_file_system import MemoryFileSystem
from tests.support.reference_events import reference_batch

# Events of each frame of the small log: one segment, then, where asked for, another.
SIZES = (2, 1, 3)
LAST = sum(SIZES)


def small_log(*, rotate_before: int | None = None) -> MemoryFileSystem:
    """A log of three frames, closed in order."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    for number, size in enumerate(SIZES):
        if number == rotate_before:
            writer.rotate()
        writer.append(numbered_frame(writer.last_position + 1, size, recorded_at=START_NS + number))
    writer.close()
    return fs


def frames_of(fs: MemoryFileSystem, first: int = 1) -> list[tuple[int, int]]:
    """Offsets at which the frames of a segment begin and end, taken from how they were made."""
    offsets, at, position = [], SEGMENT_HEADER_BYTES, 1
    for number, size in enumerate(SIZES):
        length = numbered_frame(position, size, recorded_at=START_NS + number).header.length
        if position >= first:
            offsets.append((at, at + length))
            at += length
        position += size
    assert at == len(fs.files()[log_name(Position(first))])
    return offsets


def events(*ranges: tuple[int, int]) -> dict[int, str]:
    return {n: payload(f"event {n}") for first, last in ranges for n in range(first, last + 1)}


def quarantine(fs: MemoryFileSystem) -> list[bytes]:
    return [content for name, content in fs.files().items() if name.startswith(f"{QUARANTINE}/")]


def assert_goes_on(fs: MemoryFileSystem, found: Contents, last: int, *, deletes_committed: bool = True) -> None:
    """The log is opened again and again with the same answers, and goes on at the position after `last`."""
    for again in (fs, fs.crash("nothing")):
        if deletes_committed:
            again.delete(COMMITTED)
        writer = open_writer(again)
        assert writer.last_position == last
        assert read_all(again) == found
        assert {(d.positions.first, d.positions.last) for d in writer.recovered.damage} == set(found.damaged)
        writer.append(numbered_frame(last + 1, 2))
        writer.close()
        writer = open_writer(again)
        after = read_all(again)
        assert after.events == found.events | events((last + 1, last + 2))
        assert after.damaged == found.damaged
        writer.close()


def test_clean_log_is_opened_as_it_was():
    """Closing and opening loses nothing, cuts nothing, and changes no segment."""
    fs = small_log()
    before = fs.files()
    writer = open_writer(fs)
    assert (writer.last_position, writer.recovered.torn_bytes) == (LAST, 0)
    assert (writer.recovered.damage, writer.recovered.quarantined) == ([], [])
    assert writer.recovered.last_recorded_at == START_NS + 2
    assert read_all(fs) == Contents(events((1, LAST)))
    assert {n: c for n, c in fs.files().items() if n != COMMITTED} == {
        n: c for n, c in before.items() if n != COMMITTED
    }


def test_requests_are_remembered():
    """Named requests of every frame come back with their positions and times, oldest first."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    marks = (RequestMark("a", 0, 1), RequestMark("b", 1, 2))
    writer.append(frame_of(1, ["{}"] * 3, recorded_at=5, marks=marks))
    writer.rotate()
    writer.append(frame_of(4, ["{}"], recorded_at=6))
    writer.append(frame_of(5, ["{}"], recorded_at=7, marks=(RequestMark("c", 0, 1),)))
    writer.close()
    assert open_writer(fs).recovered.requests == [
        RememberedRequest("a", Position(1), 1, Nanoseconds(5)),
        RememberedRequest("b", Position(2), 2, Nanoseconds(5)),
        RememberedRequest("c", Position(5), 1, Nanoseconds(7)),
    ]


def test_last_frame_cut_at_any_byte_without_the_promise_is_a_torn_tail():
    """Where nothing shows that the last frame was committed, its rest is cut, kept, counted; all before stays."""
    start, end = frames_of(small_log())[-1]
    for size in range(start, end):
        fs = small_log()
        data = fs.files()[log_name(Position(1))]
        fs.put(log_name(Position(1)), data[:size])
        fs.delete(COMMITTED)
        writer = open_writer(fs)
        assert writer.last_position == 3
        assert read_all(fs) == Contents(events((1, 3)))
        assert writer.recovered.torn_bytes == size - start
        assert writer.recovered.damage == []
        assert quarantine(fs) == ([data[start:size]] if size > start else [])
        assert len(writer.recovered.quarantined) == (size > start)
        assert fs.size(log_name(Position(1))) == start
        writer.close()
        assert_goes_on(fs, Contents(events((1, 3))), 3)


def test_last_frame_cut_at_any_byte_despite_the_promise_is_damage():
    """Where the committed position shows that the frame was committed, its positions are never given out again."""
    start, end = frames_of(small_log())[-1]
    for size in range(start, end):
        fs = small_log()
        data = fs.files()[log_name(Position(1))]
        fs.put(log_name(Position(1)), data[:size])
        writer = open_writer(fs)
        found = Contents(events((1, 3)), [(4, 6)])
        assert writer.last_position == LAST
        assert read_all(fs) == found
        assert [(d.positions.first, d.positions.last, d.file) for d in writer.recovered.damage] == [
            (4, 6, log_name(Position(1)))
        ]
        assert writer.recovered.torn_bytes == 0
        assert quarantine(fs) == ([data[start:size]] if size > start else [])
        writer.close()
        assert_goes_on(fs, found, LAST)


def test_file_cut_anywhere_keeps_the_frames_before():
    """Cut within any frame or the header, every whole frame stays and the promised positions stay given out."""
    offsets = frames_of(small_log())
    for size in range(offsets[-1][1]):
        fs = small_log()
        fs.put(log_name(Position(1)), fs.files()[log_name(Position(1))][:size])
        whole = sum(count for count, (_, end) in zip(SIZES, offsets, strict=True) if end <= size)
        writer = open_writer(fs)
        found = Contents(events((1, whole)), [(whole + 1, LAST)])
        assert (read_all(fs), writer.last_position) == (found, LAST)
        writer.close()
        if size % 16 == 0:
            assert_goes_on(fs, found, LAST)


@pytest.mark.parametrize("rotate_before", [None, 1, 2])
def test_flipped_bit_in_a_segment_costs_its_frame_alone(rotate_before):
    """A wrong bit at any byte: that frame is reported exactly, all others are read, and no position comes twice."""
    clean = small_log(rotate_before=rotate_before)
    firsts = [1] if rotate_before is None else [1, 1 + sum(SIZES[:rotate_before])]
    for segment in firsts:
        name = log_name(Position(segment))
        for at in range(len(clean.files()[name])):
            fs = clean.crash("all")
            fs.flip(name, at, 1 << at % 8)
            lost = _positions_at(clean, segment, firsts, at)
            found = Contents(
                {p: text for p, text in events((1, LAST)).items() if p not in lost},
                [(min(lost), max(lost))] if lost else [],
            )
            writer = open_writer(fs)
            assert writer.last_position == LAST
            assert read_all(fs) == found
            assert [(d.positions.first, d.positions.last, d.file) for d in writer.recovered.damage] == [
                (*each, name) for each in found.damaged
            ]
            assert len(quarantine(fs)) == len(found.damaged)
            writer.close()
            if at % 16 == 0:
                assert_goes_on(fs, found, LAST)


def _positions_at(fs: MemoryFileSystem, segment: int, firsts: list[int], at: int) -> set[int]:
    """Positions of the frame that holds a byte of a segment."""
    until = next((first for first in firsts if first > segment), LAST + 1)
    offset, position = SEGMENT_HEADER_BYTES, 1
    for number, size in enumerate(SIZES):
        length = numbered_frame(position, size, recorded_at=START_NS + number).header.length
        if segment <= position < until:
            if offset <= at < offset + length:
                return set(range(position, position + size))
            offset += length
        position += size
    assert at < SEGMENT_HEADER_BYTES
    return set()


@pytest.mark.parametrize("name", [COMMITTED, IDENTITY])
def test_damaged_or_missing_derived_file_changes_no_answer(name):
    """A wrong bit at any byte of the promise or the identity, or losing the file, changes nothing."""
    size = len(small_log().files()[name])
    for at in range(size + 1):
        fs = small_log(rotate_before=1)
        if at < size:
            fs.flip(name, at, 1 << at % 8)
        else:
            fs.delete(name)
        writer = open_writer(fs, new_log_id="newlog00")
        assert (writer.log_id, writer.last_position) == (LOG_ID, LAST)
        assert read_all(fs) == Contents(events((1, LAST)))
        assert writer.recovered.last_recorded_at == START_NS + 2
        assert (writer.recovered.damage, writer.recovered.quarantined) == ([], [])
        writer.close()
        assert open_writer(fs, new_log_id="newlog00").log_id == LOG_ID


def test_identity_survives_as_long_as_anything_names_the_log():
    """Without its file the id comes from a segment's header, then from the promise, then from sealed files."""
    fs = small_log()
    fs.delete(IDENTITY)
    fs.flip(log_name(Position(1)), 10)
    assert open_writer(fs, new_log_id="newlog00").log_id == LOG_ID
    fs = small_log()
    for name in (IDENTITY, COMMITTED):
        fs.delete(name)
    assert open_writer(fs, new_log_id="newlog00").log_id == LOG_ID
    fs = MemoryFileSystem()
    sealed = reference_batch(9, 1, 1)
    classes = RetentionClasses(default_seconds=1, by_type={})
    seal_events(fs, first=Position(1), last=Position(9), events=[sealed], log_id=LOG_ID, classes=classes)
    recovered = recover(fs, new_log_id="newlog00")
    newest = sealed.column("recorded_at")[-1].value
    assert (recovered.log_id, recovered.last_position, recovered.last_recorded_at) == (LOG_ID, 9, newest)


def test_lost_identity_is_never_replaced_by_a_new_one_where_events_are():
    """Events never change their ids: where nothing names the log any more, opening it fails and says what to do."""
    for holds_log in (True, False):
        fs = small_log() if holds_log else MemoryFileSystem()
        if holds_log:
            fs.flip(log_name(Position(1)), 10)
            fs.delete(IDENTITY)
            fs.delete(COMMITTED)
        else:
            fs.put(f"{SEGMENTS}/{1:020d}-{9:020d}.default.parquet", b"sealed")
        with pytest.raises(EventStorageException, match="restore the file 'identity' from a backup"):
            open_writer(fs, new_log_id="newlog00")


def test_promise_of_another_log_is_not_believed():
    """A committed file copied from elsewhere gives this log no positions."""
    fs = small_log()
    promise = CommittedPositionWriter(fs)
    promise.publish(Committed("another1", Position(500), Nanoseconds(0), Position(1), Offset(32)))
    promise.close()
    writer = open_writer(fs)
    assert (writer.last_position, writer.recovered.damage) == (LAST, [])
    assert read_committed(fs).log_id == LOG_ID


def test_positions_that_no_file_holds_any_more_are_damage():
    """A committed segment that is gone altogether is reported, and its positions are not given out again."""
    fs = small_log(rotate_before=2)
    fs.delete(log_name(Position(4)))
    writer = open_writer(fs)
    found = Contents(events((1, 3)), [(4, 6)])
    assert (writer.last_position, read_all(fs)) == (LAST, found)
    assert [(d.positions.first, d.positions.last) for d in writer.recovered.damage] == [(4, 6)]
    writer.close()
    assert_goes_on(fs, found, LAST)


def test_missing_segment_in_the_middle_is_damage():
    """Where a segment between others is gone, its positions are reported and the others are read."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    for size in SIZES:
        writer.append(numbered_frame(writer.last_position + 1, size))
        writer.rotate()
    writer.close()
    fs.delete(log_name(Position(3)))
    writer = open_writer(fs)
    found = Contents(events((1, 2), (4, 6)), [(3, 3)])
    assert (writer.last_position, read_all(fs)) == (LAST, found)
    writer.close()
    assert_goes_on(fs, found, LAST)


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"EVFR" * 30, b"x", numbered_frame(7, 2).pieces[0]])
def test_anything_behind_the_last_frame_is_a_torn_tail(tail):
    """Zeros and halves behind the last frame, as a loss of power leaves them, are cut and kept."""
    fs = small_log()
    name = log_name(Position(1))
    data = fs.files()[name]
    fs.put(name, data + tail)
    writer = open_writer(fs)
    assert (writer.last_position, writer.recovered.torn_bytes, writer.recovered.damage) == (LAST, len(tail), [])
    assert (fs.files()[name], quarantine(fs)) == (data, [tail])
    assert read_all(fs) == Contents(events((1, LAST)))


def test_torn_tails_of_the_same_place_are_all_kept():
    """A second torn tail at the same bytes does not replace the first in quarantine, nor is it lost."""
    fs = small_log()
    name = log_name(Position(1))
    data = fs.files()[name]
    tails = [b"first tail", b"other tail", b"first tail"]
    for tail in tails:
        fs.put(name, data + tail)
        open_writer(fs).close()
    assert sorted(quarantine(fs)) == sorted(set(tails))


def test_frame_that_makes_no_sense_under_right_checksums_keeps_no_log_from_opening():
    """What a faulty memory wrote is its reader's trouble; the log opens, and its other frames are read."""
    fs = small_log()
    body = b"no zstd"
    fields = bytearray(numbered_frame(7, 1).pieces[0][:44])
    struct.pack_into("<I", fields, 20, len(body))
    struct.pack_into("<I", fields, 40, google_crc32c.value(body))
    frame = bytes(fields) + google_crc32c.value(bytes(fields)).to_bytes(4, "little") + body
    fs.put(log_name(Position(1)), fs.files()[log_name(Position(1))] + frame)
    writer = open_writer(fs)
    assert writer.last_position == 7
    assert read_all(fs) == Contents(events((1, LAST)), [(7, 7)])


def test_half_a_quarantined_file_is_not_taken_for_the_whole():
    """Where the power went while damage was put into quarantine, the next recovery keeps all of it."""
    fs = small_log()
    name = log_name(Position(1))
    fs.put(name, fs.files()[name] + b"a tail to be kept")
    for number in range(1, 60):
        again = fs.crash("all")
        again.lose_power_at(number)
        try:
            open_writer(again).close()
        except BaseException:  # noqa: BLE001 - the loss of power is none of Exception
            again = again.crash("random", seed=number)
            open_writer(again).close()
        assert b"a tail to be kept" in quarantine(again)


def test_unacknowledged_frame_after_a_failed_sync_is_durable_once_it_is_committed():
    """Recovery may keep a frame whose sync failed, but makes it durable anew: no later sync of that file would."""
    fs = small_log()
    writer = open_writer(fs)
    writer.append(numbered_frame(7, 1))
    fs.fail_next("sync")
    with pytest.raises(Exception, match="cannot append"):
        writer.append(numbered_frame(8, 2))
    fs.kill()
    reopened = open_writer(fs)
    assert fs.is_durable()
    after = fs.crash("nothing")
    open_writer(after)
    assert read_all(after) == Contents(events((1, reopened.last_position)))


def test_frames_given_up_by_one_writer_do_not_come_back():
    """A frame left in a segment given up is hidden by the one that took its positions, however often it is opened."""
    fs = MemoryFileSystem()
    writer = open_writer(fs)
    writer.append(numbered_frame(1, 2))
    fs.fail_next("sync")
    with pytest.raises(Exception, match="cannot append"):
        writer.append(numbered_frame(3, 3, word="given-up"))
    writer.append(numbered_frame(3, 2))
    writer.append(numbered_frame(5, 1))
    writer.close()
    for _ in range(3):
        writer = open_writer(fs)
        assert (writer.last_position, writer.recovered.damage) == (5, [])
        assert read_all(fs) == Contents(events((1, 5)))
        assert "given-up-3" not in [request.request_id for request in writer.recovered.requests]
        writer.close()


@pytest.mark.parametrize("where", ["segment", "frame"])
def test_newer_format_is_refused_and_left_as_it_is(where):
    """A log written by a newer version is not cut to what this one understands."""
    fs = small_log()
    name = log_name(Position(1))
    data = bytearray(fs.files()[name])
    start, size = (0, 28) if where == "segment" else (frames_of(fs)[-1][0], 44)
    data[start + 4] = 2
    data[start + size : start + size + 4] = google_crc32c.value(bytes(data[start : start + size])).to_bytes(4, "little")
    fs.put(name, bytes(data))
    before = fs.files()
    with pytest.raises(UnsupportedFormat, match="version 2"):
        open_writer(fs)
    assert fs.files()[name] == before[name]


def test_segment_sealed_while_the_log_is_opened_is_no_error():
    """A process that seals may outlive the last writer: a .log that turns into a sealed file is found as that."""
    for number in range(1, 40):
        fs = small_log(rotate_before=2)
        calls = iter(range(1, 1000))

        def seal(fs: MemoryFileSystem = fs, calls=calls, number: int = number) -> None:
            if next(calls) == number:
                fs.put(f"{SEGMENTS}/{1:020d}-{3:020d}.default.parquet", b"sealed")
                fs.delete(log_name(Position(1)))

        fs.watch = seal
        writer = open_writer(fs)
        assert (writer.last_position, writer.recovered.damage) == (LAST, [])
        assert writer.log_id == LOG_ID


def test_other_files_in_the_directory_disturb_nothing():
    """What is left of interrupted work, and what others put there, is not taken for a segment."""
    fs = small_log()
    for name in ("segments/x.tmp", "segments/00000000000000000009.log.tmp", "segments/notes.txt", "segments/1.log"):
        fs.put(name, b"something")
    writer = open_writer(fs)
    assert (writer.last_position, writer.recovered.damage) == (LAST, [])
    assert read_all(fs) == Contents(events((1, LAST)))


def test_identity_knows_when_it_is_damaged():
    """The file carries a checksum of the id."""
    fs = small_log()
    identity = msgspec.json.decode(fs.files()[IDENTITY], type=Identity)
    assert identity == Identity.of(LOG_ID)
