"""Repair data: what brings back damaged blocks of a file.

The file is cut into blocks of 4 KiB. Each block has a CRC-32C, and the blocks are dealt out to stripes
like cards: block n belongs to stripe n modulo the number of stripes, and there are so many stripes that
none has more than 64 blocks. Each stripe has one parity block, the exclusive or of its blocks, from
which any one damaged block of the stripe can be computed.

What it brings back: any one damaged block in each stripe. As neighbours are in different stripes, a
burst of damage is repaired if it touches at most as many blocks in a row as there are stripes: 1/64 of
the file, at least one block (80 blocks or 320 KiB in a file of 20 MiB). Two flipped bits at random
places are beyond repair with the probability 1 / stripes.

    offset  size
    0       4      magic "EVPR"
    4       2      format version, 1, little endian as all numbers
    6       2      zero
    8       4      CRC-32C of everything from offset 12 to the parity blocks
    12      4      CRC-32C of the whole file
    16      8      size of the file in bytes
    24      4      number of blocks, B
    28      4      number of stripes, S
    32      4 B    CRC-32C of each block; the last one ends with the file
    ...     4 S    CRC-32C of each parity block
    ...     4096 S parity blocks

Its size is 1.66 % of the file's. It knows nothing of what is in the file.
"""

import struct
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 4096
STRIPE_BLOCKS_MAX = 64

_MAGIC = b"EVPR"
_VERSION = 1
_PREFIX = struct.Struct("<4sHHI")
_HEAD = struct.Struct("<IQII")
_TABLES_OFFSET = _PREFIX.size + _HEAD.size


@dataclass(frozen=True, slots=True)
class RepairResult:
    """What became of a file's bytes.

    `data` are the bytes, as good as they could be made. `damaged_blocks` are the numbers of the blocks
    that were wrong or missing. `repaired` is whether all of them are right now: if it is true, `data`
    is what it was when the repair data was built.
    """

    data: bytes
    damaged_blocks: tuple[int, ...]
    repaired: bool


@dataclass(frozen=True, slots=True)
class _Repair:
    """Repair data, taken apart."""

    size: int
    file_checksum: int
    blocks: npt.NDArray[np.uint32]
    parity_checksums: npt.NDArray[np.uint32]
    parity: npt.NDArray[np.uint8]


def build_repair_data(data: bytes) -> bytes:
    """Build the repair data of a file's bytes."""
    blocks = -(-len(data) // BLOCK_BYTES)
    stripes = -(-blocks // STRIPE_BLOCKS_MAX)
    parity = _parity(data, stripes)
    tables = _checksums(data).tobytes() + _checksums(parity.tobytes()).tobytes()
    head = _HEAD.pack(google_crc32c.value(data), len(data), blocks, stripes)
    return _PREFIX.pack(_MAGIC, _VERSION, 0, google_crc32c.value(head + tables)) + head + tables + parity.tobytes()


def check_and_repair(data: bytes, repair: bytes) -> RepairResult:
    """Compare a file's bytes with its repair data and bring back what can be brought back.

    Raises ValueError if the repair data itself is damaged or of a newer version: build it anew from
    the file if the file is whole.
    """
    known = _parse(repair)
    if len(data) == known.size and google_crc32c.value(data) == known.file_checksum:
        return RepairResult(data, (), repaired=True)
    # What is missing at the end counts as damaged; what is too much is cut.
    padded = data[: known.size].ljust(known.size, b"\0")
    damaged = np.flatnonzero(_checksums(padded) != known.blocks)
    repaired = _repair(padded, known, damaged)
    whole = google_crc32c.value(repaired) == known.file_checksum
    return RepairResult(repaired, tuple(damaged.tolist()), repaired=whole)


def is_whole(data: bytes, repair: bytes) -> bool:
    """Return whether repair data is whole, to the last bit of its parity, and that of exactly these bytes."""
    try:
        known = _parse(repair)
    except ValueError:
        return False
    if (len(data), google_crc32c.value(data)) != (known.size, known.file_checksum):
        return False
    return bool(np.array_equal(_checksums(known.parity.tobytes()), known.parity_checksums))


def _repair(data: bytes, known: _Repair, damaged: npt.NDArray[np.intp]) -> bytes:
    """Compute each damaged block that is the only one of its stripe and whose parity block is whole."""
    stripes = len(known.parity_checksums)
    pieces = bytearray(data)
    of_stripe = damaged % stripes if stripes else damaged
    alone = damaged[np.bincount(of_stripe, minlength=stripes)[of_stripe] == 1]
    for block in alone.tolist():
        stripe = block % stripes
        parity = known.parity[stripe]
        if google_crc32c.value(parity.tobytes()) != known.parity_checksums[stripe]:
            continue
        others = [_block(data, other) for other in range(stripe, len(known.blocks), stripes) if other != block]
        computed = np.bitwise_xor.reduce([parity, *others]).tobytes()
        start = block * BLOCK_BYTES
        wanted = computed[: len(data) - start]
        if google_crc32c.value(wanted) == known.blocks[block]:
            pieces[start : start + len(wanted)] = wanted
    return bytes(pieces)


def _block(data: bytes, number: int) -> npt.NDArray[np.uint8]:
    """Return a block, filled up with zeros if it is the last one."""
    block = data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
    return np.frombuffer(block.ljust(BLOCK_BYTES, b"\0"), np.uint8)


def _parity(data: bytes, stripes: int) -> npt.NDArray[np.uint8]:
    """Return the parity blocks: shape (stripes, BLOCK_BYTES)."""
    row_bytes = stripes * BLOCK_BYTES
    parity = np.zeros(row_bytes, np.uint8)
    for start in range(0, len(data), max(1, row_bytes)):
        row = np.frombuffer(data, np.uint8, min(row_bytes, len(data) - start), start)
        parity[: len(row)] ^= row
    return parity.reshape(stripes, BLOCK_BYTES)


def _checksums(data: bytes) -> npt.NDArray[np.uint32]:
    """Return the CRC-32C of each block."""
    starts = range(0, len(data), BLOCK_BYTES)
    return np.array([google_crc32c.value(data[at : at + BLOCK_BYTES]) for at in starts], "<u4")


def _parse(repair: bytes) -> _Repair:
    """Take repair data apart. Raises ValueError if it is damaged."""
    if len(repair) < _TABLES_OFFSET:
        raise ValueError("the repair data is cut short: build it anew")
    magic, version, zero, checksum = _PREFIX.unpack_from(repair)
    if magic != _MAGIC or zero != 0:
        raise ValueError("this is no repair data: build it anew")
    if version != _VERSION:
        raise ValueError(f"the repair data has format version {version}, this program knows {_VERSION}")
    file_checksum, size, blocks, stripes = _HEAD.unpack_from(repair, _PREFIX.size)
    tables_end = _TABLES_OFFSET + 4 * (blocks + stripes)
    # The length is checked first, so that a damaged count cannot make anything big.
    if len(repair) != tables_end + stripes * BLOCK_BYTES:
        raise ValueError("the repair data has the wrong length: build it anew")
    if google_crc32c.value(repair[_PREFIX.size : tables_end]) != checksum:
        raise ValueError("the repair data is damaged: build it anew")
    return _Repair(
        size=size,
        file_checksum=file_checksum,
        blocks=np.frombuffer(repair, "<u4", blocks, _TABLES_OFFSET),
        parity_checksums=np.frombuffer(repair, "<u4", stripes, _TABLES_OFFSET + 4 * blocks),
        parity=np.frombuffer(repair, np.uint8, stripes * BLOCK_BYTES, tables_end).reshape(stripes, BLOCK_BYTES),
    )
