"""Repair data: damaged blocks come back, or are reported."""

import random

import pytest

from shared.log.repair_data import BLOCK_BYTES, STRIPE_BLOCKS_MAX, build_repair_data, check_and_repair

SIZES = [0, 1, 4095, 4096, 4097, 64 * 4096, 64 * 4096 + 1, 200 * 4096 + 5]


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("size", SIZES)
def test_whole_file_passes(size):
    """A file that is whole comes back as it is, with no damaged block."""
    data = some_bytes(size)
    result = check_and_repair(data, build_repair_data(data))
    assert (result.data, result.damaged_blocks, result.repaired) == (data, (), True)


@pytest.mark.parametrize("size", SIZES[1:])
def test_any_flipped_bit_is_repaired(size):
    """One wrong bit anywhere, the first and the last included, is put right."""
    data = some_bytes(size)
    repair = build_repair_data(data)
    for bit in [0, 8 * size - 1, *random.Random(1).sample(range(8 * size), min(40, 8 * size))]:
        result = check_and_repair(flipped(data, bit), repair)
        assert result.repaired
        assert result.data == data
        assert result.damaged_blocks == (bit // 8 // BLOCK_BYTES,)


@pytest.mark.parametrize("at", [0, 1000, 700 * BLOCK_BYTES - 1])
def test_burst_as_long_as_the_stripes_are_many_is_repaired(at):
    """A destroyed run of as many blocks as there are stripes is put right; the module promises it."""
    data = some_bytes(1000 * BLOCK_BYTES + 17)
    stripes = -(-1001 // STRIPE_BLOCKS_MAX)
    length = (stripes - 1) * BLOCK_BYTES + 1
    damaged = data[:at] + bytes(length) + data[at + length :]
    result = check_and_repair(damaged, build_repair_data(data))
    assert result.repaired
    assert result.data == data


@pytest.mark.parametrize("missing", [1, 4096, 3 * 4096])
def test_cut_and_grown_files_are_repaired(missing):
    """A file that lost a little of its end, or has something behind it, is put right."""
    data = some_bytes(300 * BLOCK_BYTES - 100)
    repair = build_repair_data(data)
    assert check_and_repair(data[:-missing], repair).data == data
    assert check_and_repair(data + b"x" * missing, repair).data == data


def test_two_damaged_blocks_of_a_stripe_are_reported():
    """What cannot be put right is said to be so, and whole blocks stay as they are."""
    data = some_bytes(200 * BLOCK_BYTES)
    stripes = -(-200 // STRIPE_BLOCKS_MAX)
    damaged = flipped(flipped(data, 0), 8 * stripes * BLOCK_BYTES)
    result = check_and_repair(damaged, build_repair_data(data))
    assert not result.repaired
    assert result.damaged_blocks == (0, stripes)
    assert result.data[BLOCK_BYTES : stripes * BLOCK_BYTES] == data[BLOCK_BYTES : stripes * BLOCK_BYTES]


def test_flipped_bit_in_repair_data_never_spoils_a_file():
    """Damaged repair data is refused, or does not matter because only an unneeded parity block is wrong."""
    data = some_bytes(130 * BLOCK_BYTES)
    repair = build_repair_data(data)
    damaged_data = flipped(data, 12345)
    for bit in [*range(8 * 40), *random.Random(2).sample(range(8 * len(repair)), 300)]:
        damaged = flipped(repair, bit)
        for given in (data, damaged_data):
            try:
                result = check_and_repair(given, damaged)
            except ValueError:
                continue
            assert result.data == data or not result.repaired
            assert given is damaged_data or result.data == data


def test_cut_repair_data_is_refused():
    """Repair data of any wrong length raises ValueError."""
    repair = build_repair_data(some_bytes(10_000))
    for size in [*range(60), len(repair) - 1]:
        with pytest.raises(ValueError, match="repair data"):
            check_and_repair(b"", repair[:size])
    with pytest.raises(ValueError, match="repair data"):
        check_and_repair(b"", repair + b"x")


def test_repair_data_is_small():
    """It takes less than 1.7 % of a large file."""
    size = 20_000_000
    assert len(build_repair_data(bytes(size))) < 0.017 * size
