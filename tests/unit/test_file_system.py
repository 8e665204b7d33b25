"""The seam to the disk: the real one, the one in memory that must behave alike, and what the latter forgets."""

import errno
import os
from pathlib import Path

import pytest

from shared.log.file_system import FileSystem, LocalFileSystem
from tests.support.memory_file_system import MemoryFileSystem, PowerLoss, no_space


@pytest.fixture(params=["local", "memory"])
def fs(request, tmp_path) -> FileSystem:
    return LocalFileSystem(tmp_path / "log") if request.param == "local" else MemoryFileSystem()


def put(fs: FileSystem, name: str, content: bytes) -> None:
    file = fs.create(name)
    file.append([content])
    file.sync()
    file.close()


def test_appended_pieces_are_read_back(fs):
    """Pieces lie one after the other, and any range can be read."""
    file = fs.create("segments/a")
    file.append([b"one", bytearray(b"two"), memoryview(b"three")])
    file.append([b""])
    file.append([b"four"])
    file.sync()
    assert fs.read("segments/a") == b"onetwothreefour"
    assert fs.read("segments/a", 3, 3) == b"two"
    assert fs.read("segments/a", 11) == b"four"
    assert fs.read("segments/a", 11, 100) == b"four"
    assert fs.read("segments/a", 100, 5) == b""
    assert fs.read("segments/a", 3, 0) == b""
    assert fs.size("segments/a") == 15
    file.close()
    file.close()


def test_create_refuses_an_existing_name(fs):
    """A file is never written over."""
    put(fs, "segments/a", b"x")
    with pytest.raises(FileExistsError):
        fs.create("segments/a")
    assert fs.read("segments/a") == b"x"


def test_list_gives_sorted_names_of_one_directory(fs):
    """Names come with their directory, sorted, without those of others; a missing directory is empty."""
    for name in ("segments/b", "segments/a", "quarantine/c", "identity"):
        put(fs, name, b"")
    assert fs.list("segments") == ["segments/a", "segments/b"]
    assert fs.list("quarantine") == ["quarantine/c"]
    assert fs.list(".") == ["./identity"]
    assert fs.list("nowhere") == []


def test_rename_replaces_and_an_open_file_goes_on(fs):
    """The new name holds the old file's bytes, and who has it open appends to it still."""
    put(fs, "segments/a", b"old")
    file = fs.create("segments/b")
    file.append([b"new"])
    fs.rename("segments/b", "segments/a")
    file.append([b"er"])
    file.sync()
    file.close()
    assert fs.list("segments") == ["segments/a"]
    assert fs.read("segments/a") == b"newer"


def test_rename_may_make_the_directory(fs):
    """A file can be moved to a directory that is not there yet."""
    put(fs, "segments/a", b"x")
    fs.rename("segments/a", "quarantine/a")
    assert (fs.list("segments"), fs.read("quarantine/a")) == ([], b"x")


@pytest.mark.parametrize("act", ["read", "size", "remove", "truncate", "rename"])
def test_missing_file_is_said_to_be_missing(fs, act):
    """Every operation on a file that is not there raises FileNotFoundError."""
    arguments = {"truncate": (0,), "rename": ("segments/b",)}.get(act, ())
    with pytest.raises(FileNotFoundError):
        getattr(fs, act)("segments/a", *arguments)


def test_remove_and_truncate(fs):
    """A removed file is gone, a cut one is shorter."""
    put(fs, "segments/a", b"12345")
    fs.truncate("segments/a", 2)
    assert fs.read("segments/a") == b"12"
    fs.remove("segments/a")
    assert fs.list("segments") == []


def test_shared_map_is_seen_by_readers_and_by_other_maps(fs):
    """What is written to the map is read from the file at once, also through a second map."""
    first = fs.map_shared("committed", 64)
    second = fs.map_shared("committed", 64)
    first[0:5] = b"hello"
    assert fs.read("committed", 0, 6) == b"hello\0"
    assert second[0:5] == b"hello"
    first.close()
    second.close()
    assert fs.size("committed") == 64


@pytest.mark.parametrize("content", [b"", b"abc", b"x" * 100])
def test_shared_map_of_another_size_is_resized(fs, content):
    """A file of any size becomes one of exactly the size asked for, and keeps what fits."""
    put(fs, "committed", content)
    view = fs.map_shared("committed", 64)
    assert view[:64] == content[:64].ljust(64, b"\0")
    view.close()
    assert fs.size("committed") == 64


def test_lock_excludes_others_and_names_the_holder(fs):
    """Only one holds the lock; who comes second learns who; released, it can be had again."""
    lock = fs.lock("lock")
    with pytest.raises(BlockingIOError, match="process 1|process " + str(os.getpid())):
        fs.lock("lock")
    lock.release()
    lock.release()
    fs.lock("lock").release()


def test_removing_a_lock_file_frees_nothing(tmp_path):
    """Somebody who takes it for left over cannot let a second writer in."""
    fs = LocalFileSystem(tmp_path)
    held = fs.lock("lock")
    fs.remove("lock")
    with pytest.raises(BlockingIOError, match="an unknown process"):
        fs.lock("lock")
    held.release()


def test_free_space_and_directory_sync(fs):
    """There is room, and a directory can be synced before anything is in it."""
    fs.sync_directory("segments")
    fs.sync_directory(".")
    assert fs.free_bytes() > 0
    assert fs.list("segments") == []


def test_short_writes_of_the_system_are_completed(tmp_path, monkeypatch):
    """Where the system takes a part of the bytes, the rest follows."""
    real_writev, real_write = os.writev, os.write
    monkeypatch.setattr(os, "writev", lambda fd, pieces: real_writev(fd, [b"".join(pieces)[:4]]))
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data)[:3]))
    fs = LocalFileSystem(tmp_path)
    put(fs, "a", b"0123456789abc")
    assert fs.read("a") == b"0123456789abc"


def test_failed_write_of_the_system_is_raised(tmp_path, monkeypatch):
    """A full disk halfway through is an error, not a short file taken for whole."""

    def full(*_: object) -> int:
        raise no_space()

    fs = LocalFileSystem(tmp_path)
    file = fs.create("a")
    real_writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, pieces: real_writev(fd, [b"".join(pieces)[:2]]))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        file.append([b"12345"])
    file.close()


def test_lock_note_that_cannot_be_written_gives_the_lock_back(tmp_path, monkeypatch):
    """A disk that is full when the lock is taken does not leave it held by nobody."""

    def full(*_: object) -> int:
        raise no_space()

    fs = LocalFileSystem(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            fs.lock("lock")
    fs.lock("lock").release()


def test_map_reserves_its_space(tmp_path, monkeypatch):
    """A full disk is an error when the file is mapped; a hole would end the process when it is written."""

    def full(*_: object) -> None:
        raise no_space()

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        LocalFileSystem(tmp_path).map_shared("committed", 64)


def test_directories_made_for_the_log_are_synced(tmp_path, monkeypatch):
    """The log's own directory survives the loss of power: each directory made for it is synced in its parent."""
    synced: list[Path] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    LocalFileSystem(tmp_path / "a" / "b")
    assert {tmp_path, tmp_path / "a"} <= set(synced)
    synced.clear()
    LocalFileSystem(tmp_path / "a" / "b")
    assert synced == []


# What the file system in memory forgets, tears and refuses.


def test_memory_forgets_what_was_not_synced():
    """Bytes, creations, renames and removals survive the loss of power once they are synced, not before."""
    fs = MemoryFileSystem()
    put(fs, "a", b"1")
    put(fs, "b", b"2")
    fs.sync_directory(".")
    file = fs.create("c")
    file.append([b"3"])
    file.sync()
    fs.rename("a", "d")
    fs.remove("b")
    assert fs.crash("nothing").files() == {"a": b"1", "b": b"2"}
    assert fs.crash("all").files() == {"c": b"3", "d": b"1"}
    fs.sync_directory(".")
    assert fs.crash("nothing").files() == {"c": b"3", "d": b"1"}
    file.append([b"4"])
    assert fs.crash("nothing").read("c") == b"3"


def test_memory_keeps_any_part_of_what_was_not_synced():
    """Over many crashes every kind of loss occurs: beginnings, zeros, holes, and any subset of entries."""
    fs = MemoryFileSystem()
    put(fs, "a", b"synced")
    fs.sync_directory(".")
    for name in ("b", "c"):
        fs.create(name)
    file = fs.create("d")
    file.append([b"synced"])
    file.sync()
    fs.sync_directory(".")
    for name in ("e", "f"):
        fs.create(name)
    file.append([b"x" * 100])
    outcomes = [fs.crash("random", seed) for seed in range(300)]
    assert {frozenset(o.files().keys() & {"e", "f"}) for o in outcomes} == {
        frozenset(),
        frozenset("e"),
        frozenset("f"),
        frozenset("ef"),
    }
    contents = {o.read("d") for o in outcomes}
    assert all(content.startswith(b"synced") for content in contents)
    assert {b"synced", b"synced" + b"x" * 100} <= contents
    assert any(b"\0" in content for content in contents)
    assert any(b"\0x" in content for content in contents)


def test_memory_never_writes_what_a_failed_sync_forgot():
    """After a failed sync its bytes are seen, a later sync succeeds, and the loss of power takes them."""
    fs = MemoryFileSystem()
    fs.sync_directory(".")
    file = fs.create("a")
    fs.sync_directory(".")
    file.append([b"good"])
    file.sync()
    file.append([b"lost"])
    fs.fail_next("sync")
    with pytest.raises(OSError, match="error"):
        file.sync()
    file.append([b"more"])
    fs.truncate("a", 12)
    assert fs.read("a") == b"goodlostmore"
    assert fs.crash("nothing").read("a") == b"good\0\0\0\0more"


def test_memory_loses_a_directory_that_was_not_synced():
    """Synced files in a directory whose own entry was not synced are gone."""
    fs = MemoryFileSystem()
    put(fs, "segments/a", b"x")
    fs.sync_directory("segments")
    assert fs.crash("nothing").list("segments") == []
    fs.sync_directory(".")
    assert fs.crash("nothing").list("segments") == ["segments/a"]


def test_memory_keeps_some_earlier_state_of_a_shared_map():
    """A map is written back when the system likes: any state it was in may be found, also half of one."""
    fs = MemoryFileSystem()
    view = fs.map_shared("m", 4)
    fs.sync_directory(".")
    for state in (b"1111", b"2222"):
        view[:4] = state
        fs.free_bytes()
    found = {fs.crash("random", seed).read("m") for seed in range(200)}
    assert {b"\0\0\0\0", b"1111", b"2222"} <= found
    assert any(b"1\0" in state or b"21" in state for state in found)
    assert fs.crash("all").read("m") == b"2222"
    view.close()


def test_memory_fails_the_operation_it_was_told_to():
    """The n-th operation fails, or the next of a name, with the part that was asked for; then all is well."""
    fs = MemoryFileSystem()
    file = fs.create("a")
    fs.fail_nth(2, no_space(), part=0.5)
    file.append([b"12"])
    with pytest.raises(OSError, match="No space") as caught:
        file.append([b"3456"])
    assert caught.value.errno == errno.ENOSPC
    assert fs.read("a") == b"1234"
    fs.fail_next("rename", part=1.0)
    with pytest.raises(OSError, match="error"):
        fs.rename("a", "b")
    assert fs.list(".") == ["./b"]
    fs.mode = "full"
    with pytest.raises(OSError, match="No space"):
        file.append([b"56"])
    fs.mode = "read_only"
    with pytest.raises(OSError, match="Read-only"):
        fs.create("c")
    fs.heal()
    file.append([b"7"])
    assert fs.read("b") == b"123457"


def test_memory_has_no_power_after_the_loss():
    """Nothing works after the loss of power until the crash is over, and locks are free then."""
    fs = MemoryFileSystem()
    fs.lock("lock")
    fs.lose_power_at(1)
    for _ in range(2):
        with pytest.raises(PowerLoss):
            fs.list(".")
    fs.crash("nothing").lock("lock")
    fs.kill()
    fs.lock("lock")
