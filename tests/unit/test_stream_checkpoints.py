"""Durable subscriptions on disk: whole, durable, and never another's."""

from errno import EIO, ENOSPC

import pytest

from shared.errors import StorageUnavailable
from stream_service.checkpoints import CheckpointStore, ParkedRecord, Record
from tests.support.memory_file_system import MemoryFileSystem

RECORD = Record(
    name="orders / ähnlich",
    created_ns=5,
    checkpoint=7,
    done=[9, 11],
    failures={8: 2},
    parked=[ParkedRecord(3, 5, "it hurts", 99)],
)


@pytest.fixture
def disk():
    """A disk in memory."""
    return MemoryFileSystem()


def test_what_is_saved_is_loaded(disk):
    """A record comes back as it was saved, whatever its name."""
    store = CheckpointStore(disk)
    other = Record(name="..", created_ns=1, checkpoint=0)
    store.save(RECORD)
    store.save(other)
    assert sorted(store.load(), key=lambda record: record.name) == [other, RECORD]


def test_saving_again_replaces(disk):
    """The last record of a name is the one that is there."""
    store = CheckpointStore(disk)
    store.save(RECORD)
    store.save(Record(name=RECORD.name, created_ns=5, checkpoint=8))
    assert [record.checkpoint for record in store.load()] == [8]


def test_deleting_forgets(disk):
    """A deleted record is gone; deleting it again does nothing."""
    store = CheckpointStore(disk)
    store.save(RECORD)
    store.delete(RECORD.name)
    store.delete(RECORD.name)
    assert store.load() == []


@pytest.mark.parametrize("keep", ["nothing", "random", "all"])
def test_a_saved_record_survives_power_loss(disk, keep):
    """What save returned from is there after a crash, and nothing half-written is taken for a record."""
    store = CheckpointStore(disk)
    store.save(RECORD)
    after = CheckpointStore(disk.crash(keep))
    assert after.load() == [RECORD]


@pytest.mark.parametrize("flip", range(0, 150, 7))
def test_a_flipped_bit_is_no_record(disk, flip):
    """A damaged file is left out, and left where it is."""
    store = CheckpointStore(disk)
    store.save(RECORD)
    (name,) = disk.list("subscriptions")
    data = bytearray(disk.read(name))
    data[flip % len(data)] ^= 4
    disk.remove(name)
    file = disk.create(name)
    file.append([bytes(data)])
    file.close()
    assert store.load() == []
    assert disk.list("subscriptions") == [name]


@pytest.mark.parametrize("code", [EIO, ENOSPC])
def test_a_failing_disk_keeps_the_record_before(disk, code):
    """Where saving fails at any step, the error says so and the record before is still there."""
    store = CheckpointStore(disk)
    store.save(RECORD)
    for operation in ("create", "append", "sync", "rename"):
        disk.fail_next(operation, OSError(code, "disk"))
        with pytest.raises(StorageUnavailable):
            store.save(Record(name=RECORD.name, created_ns=5, checkpoint=8))
        assert store.load() == [RECORD]
