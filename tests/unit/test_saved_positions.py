"""Saved positions are there as a whole or not at all, under any name, whatever the disk does."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import EventException, StorageUnavailable
from shared.log.file_system import LocalFileSystem
from stream_service import saved_positions
from stream_service.saved_positions import NAME_BYTES_MAX, SavedPositions
from tests.support.memory_file_system import MemoryFileSystem, PowerLoss

NAMES = st.text(min_size=1, max_size=NAME_BYTES_MAX).filter(lambda name: 1 <= len(name.encode()) <= NAME_BYTES_MAX)


def reason_of(call):
    with pytest.raises(EventException) as caught:
        call()
    return caught.value.reason


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=8))
def test_any_name_is_found_again_and_listed_in_order(saved):
    """What was saved under any text is loaded under it, and pages list all of it in the order of the names' bytes."""
    positions = SavedPositions(MemoryFileSystem())
    for number, (name, state) in enumerate(saved.items()):
        positions.save(name, state, saved_at_ns=number)
    for number, (name, state) in enumerate(saved.items()):
        assert positions.load(name) == saved_positions.SavedPosition(name, state, number)
    listed, after = [], ""
    while not (page := positions.page(after=after, count=3)).is_last:
        listed += [each.name for each in page.positions]
        after = listed[-1]
    listed += [each.name for each in page.positions]
    assert listed == sorted(saved, key=str.encode)


def test_longest_names_are_files_of_a_real_directory(tmp_path):
    """A name of 128 bytes, and one with slashes and zero bytes, can be saved, loaded and deleted on a real disk."""
    positions = SavedPositions(LocalFileSystem(tmp_path / "checkpoints"))
    for name in ("é" * 64, "../../etc/\0passwd", "a" * 128):
        positions.save(name, b"state", saved_at_ns=7)
        assert SavedPositions(LocalFileSystem(tmp_path / "checkpoints")).load(name).state == b"state"
    positions.delete("é" * 64)
    assert [each.name for each in positions.page(after="", count=9).positions] == ["../../etc/\0passwd", "a" * 128]


def test_saving_again_replaces():
    """The last of two saves under one name counts."""
    positions = SavedPositions(MemoryFileSystem())
    positions.save("a", b"one", saved_at_ns=1)
    positions.save("a", b"two", saved_at_ns=2)
    assert positions.load("a").state == b"two"


def test_unknown_name_is_not_found():
    """Loading and deleting what was never saved says so."""
    positions = SavedPositions(MemoryFileSystem())
    assert reason_of(lambda: positions.load("a")) == "CHECKPOINT_NOT_FOUND"
    assert reason_of(lambda: positions.delete("a")) == "CHECKPOINT_NOT_FOUND"


def test_every_damaged_byte_is_noticed():
    """A file with any byte changed or cut off is an error; it is listed without a state, and can be deleted."""
    fs = MemoryFileSystem()
    positions = SavedPositions(fs)
    positions.save("name", b"a state", saved_at_ns=5)
    (file,) = fs.files()
    intact = fs.files()[file]
    for at in range(len(intact)):
        for damaged in (intact[:at], intact[:at] + bytes([intact[at] ^ 0x40]) + intact[at + 1 :]):
            fs.put(file, damaged)
            assert reason_of(lambda: positions.load("name")) == "CHECKPOINT_DAMAGED"
            assert [(each.name, each.state) for each in positions.page(after="", count=9).positions] == [("name", None)]
    positions.delete("name")
    assert positions.page(after="", count=9).positions == []


def test_number_of_positions_is_bounded(monkeypatch):
    """Beyond the maximum a new name is refused; an old one can be saved again, and deleting makes room."""
    monkeypatch.setattr(saved_positions, "POSITIONS_MAX", 3)
    positions = SavedPositions(MemoryFileSystem())
    for name in "abc":
        positions.save(name, b"", saved_at_ns=1)
    assert reason_of(lambda: positions.save("d", b"", saved_at_ns=1)) == "TOO_MANY_CHECKPOINTS"
    positions.save("a", b"again", saved_at_ns=2)
    positions.delete("b")
    positions.save("d", b"", saved_at_ns=1)


def test_pages_are_bounded_in_bytes(monkeypatch):
    """Large states make short pages, of at least one position each; none is left out."""
    monkeypatch.setattr(saved_positions, "PAGE_BYTES_MAX", 100)
    positions = SavedPositions(MemoryFileSystem())
    for name in "abcde":
        positions.save(name, bytes(60), saved_at_ns=1)
    first = positions.page(after="", count=9)
    assert ([each.name for each in first.positions], first.is_last) == (["a", "b"], False)
    last = positions.page(after="d", count=9)
    assert ([each.name for each in last.positions], last.is_last) == (["e"], True)


def test_files_of_others_are_left_alone():
    """What else lies in the folder is neither listed nor counted."""
    fs = MemoryFileSystem()
    positions = SavedPositions(fs)
    for name in ("positions/README.position", "positions/00.position.tmp", "positions/c5.txt", "positions/zz.position"):
        fs.put(name, b"")
    positions.save("a", b"", saved_at_ns=1)
    assert [each.name for each in positions.page(after="", count=9).positions] == ["a"]


def test_failing_disk_loses_nothing_that_was_saved():
    """Whichever operation of a save fails, the position is the old or the new one; a save that returned is kept."""
    for number in range(1, 20):
        fs = MemoryFileSystem()
        positions = SavedPositions(fs)
        positions.save("a", b"old", saved_at_ns=1)
        fs.fail_nth(number)
        try:
            positions.save("a", b"new", saved_at_ns=2)
        except StorageUnavailable:
            expected = {b"old", b"new"}
        else:
            expected = {b"new"}
        fs.heal()
        assert positions.load("a").state in expected
        for keep in ("nothing", "all", "random"):
            assert SavedPositions(fs.crash(keep, seed=number)).load("a").state in expected


def test_power_loss_at_any_moment_keeps_old_or_new():
    """After the loss of power at any operation of a save, the old or the new position is there, undamaged."""
    for number in range(1, 12):
        for keep in ("nothing", "all", "random"):
            fs = MemoryFileSystem()
            SavedPositions(fs).save("a", b"old", saved_at_ns=1)
            fs.lose_power_at(number, part=0.5)
            with suppress(PowerLoss):
                SavedPositions(fs).save("a", b"new", saved_at_ns=2)
            assert SavedPositions(fs.crash(keep, seed=number)).load("a").state in {b"old", b"new"}


def test_failing_disk_is_told_as_unavailable():
    """An error of the disk while loading is none of the position's."""
    fs = MemoryFileSystem()
    positions = SavedPositions(fs)
    positions.save("a", b"", saved_at_ns=1)
    fs.fail_next("read")
    with pytest.raises(StorageUnavailable, match="checkpoint_dir"):
        positions.load("a")
