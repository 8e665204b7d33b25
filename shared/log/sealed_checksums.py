"""Checksums of every byte of a sealed Parquet file, kept in its own footer.

Parquet's page checksums leave out page headers, bloom filters and the footer, and a wrong bit there can
yield wrong events. So the footer holds, under the key `eventlog.checksums`, one hexadecimal text:

    crc32c <footer> <between the last row group and the footer> <row group 0> <row group 1> ...

each a CRC-32C of 8 digits. The first row group counts from the beginning of the file, each to the
beginning of the next. The footer counts to the end of the file, with its own checksum's digits as zeros.

Invariant: a file whose parts all check is, byte for byte, what was written.
"""

import re
from dataclasses import dataclass

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHECKSUMS_KEY = b"eventlog.checksums"
_PREFIX = b"crc32c "
# The key, a byte of the footer's encoding, one to five of the length, the text.
_TEXT = re.compile(re.escape(CHECKSUMS_KEY) + rb"\x18.{1,5}?" + _PREFIX + rb"((?:[0-9a-f]{8}){2,})", re.DOTALL)
_TAIL_BYTES = 8


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """Which parts of a file are as they were written. The footer is, or there would be no answer."""

    metadata: pq.FileMetaData
    row_groups: tuple[bool, ...]
    between: bool

    @property
    def whole(self) -> bool:
        """Whether every byte is as it was written."""
        return self.between and all(self.row_groups)


def placeholder(row_groups: int) -> bytes:
    """Return the text to put into the footer before the checksums are known."""
    return _PREFIX + b"0" * 8 * (2 + row_groups)


def stamp(data: memoryview) -> bytes:
    """Return a Parquet file with its checksums in place of the placeholder.

    Asserts that the footer holds a placeholder of the right length.
    """
    start = _footer_start(data)
    assert start is not None
    found = _find(data, start)
    assert found is not None
    metadata = pq.read_metadata(pa.BufferReader(data))
    edges = _edges(metadata, start)
    checksums = [_crc(data, edges[-2], start)]
    checksums += [_crc(data, edges[n], edges[n + 1]) for n in range(metadata.num_row_groups)]
    assert found.end - found.start == 8 * (1 + len(checksums))
    footer = bytearray(data[start:])
    digits = found.start - start
    footer[digits + 8 : found.end - start] = b"".join(b"%08x" % checksum for checksum in checksums)
    # The footer's own checksum covers the others, so that a damaged one cannot accuse a whole row group.
    footer[digits : digits + 8] = b"%08x" % google_crc32c.value(bytes(footer))
    return b"".join((data[:start], footer))


def check(data: bytes) -> CheckedFile | None:
    """Compare a file with its checksums. None if the footer is damaged or has no checksums."""
    start = _footer_start(data)
    found = None if start is None else _find(data, start)
    if start is None or found is None:
        return None
    if not _footer_is_intact(data, start, found):
        return None
    expected = [int(data[at : at + 8], 16) for at in range(found.start + 8, found.end, 8)]
    try:
        metadata = pq.read_metadata(pa.BufferReader(data))
        edges = _edges(metadata, start)
    except Exception:  # noqa: BLE001 - whatever the library raises, there is no footer to read
        return None
    if len(expected) != metadata.num_row_groups + 1:
        return None
    groups = tuple(
        _crc(data, edges[number], edges[number + 1]) == expected[number + 1]
        for number in range(metadata.num_row_groups)
    )
    return CheckedFile(metadata, groups, between=_crc(data, edges[-2], start) == expected[0])


def check_footer(tail: bytes) -> pq.FileMetaData | None:
    """Read the footer from the last bytes of a file, at least all of the footer. None if it is damaged."""
    start = _footer_start(tail)
    found = None if start is None else _find(tail, start)
    if start is None or found is None or not _footer_is_intact(tail, start, found):
        return None
    try:
        return pq.read_metadata(pa.BufferReader(tail))
    except Exception:  # noqa: BLE001 - whatever the library raises, there is no footer to read
        return None


def footer_bytes(tail: bytes) -> int:
    """Return how many of the last bytes of a file are its footer, by its last 8 bytes."""
    return int.from_bytes(tail[-_TAIL_BYTES:-4], "little") + _TAIL_BYTES


def _footer_is_intact(data: bytes, start: int, found: "_Digits") -> bool:
    own = int(data[found.start : found.start + 8], 16)
    found_crc: int = google_crc32c.value(data[start : found.start] + b"0" * 8 + data[found.start + 8 :])
    return found_crc == own


@dataclass(frozen=True, slots=True)
class _Digits:
    """Where the digits of the checksums are in a file."""

    start: int
    end: int


def _find(data: bytes | memoryview, footer_start: int) -> _Digits | None:
    """Find the digits of the checksums in the footer.

    Texts of events look like anything, but they come earlier (as statistics) or in JSON, where the byte
    after the key cannot be. So the last match is the right one.
    """
    matches = list(_TEXT.finditer(data, footer_start))
    return _Digits(matches[-1].start(1), matches[-1].end(1)) if matches else None


def _footer_start(data: bytes | memoryview) -> int | None:
    """Return where the footer begins, None if the end of the file makes no sense."""
    if len(data) < 2 * _TAIL_BYTES or data[-4:] != b"PAR1":
        return None
    start = len(data) - _TAIL_BYTES - int.from_bytes(data[-_TAIL_BYTES:-4], "little")
    return start if start >= 4 else None


def _edges(metadata: pq.FileMetaData, footer_start: int) -> list[int]:
    """Return where each row group begins, where the last one ends, and where the footer begins."""
    edges = []
    end = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(index) for index in range(group.num_columns)]
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        edges.append(min(starts) if number else 0)
        end = max(s + column.total_compressed_size for s, column in zip(starts, columns, strict=True))
    return [*edges, end, footer_start]


def _crc(data: bytes | memoryview, start: int, end: int) -> int:
    """Return the CRC-32C of a range of bytes, without copying it."""
    return google_crc32c.value(np.frombuffer(data, np.uint8, end - start, start)) if end > start else 0
