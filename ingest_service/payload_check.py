"""Whether payloads are JSON objects, for all rows of a column at once, pure.

Invariant: a payload passes only if it is the text of exactly one JSON object by itself. Joining
texts lets one spill into the next ('{"a":[1' and '2]}' make one object), so a separator that a
producer cannot guess stands between any two, and all separators must come out in their places.
"""

import secrets
from collections.abc import Iterator
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.columns.arrow import Array, StringArray
from shared.columns.arrow import compute as pc
from shared.columns.bytes_view import first_bytes, value_lengths, value_offsets
from shared.events.limits import PAYLOAD_DEPTH_MAX

# Texts looked at together: it bounds what looking takes in memory, some ten times as much.
_CHUNK_BYTES = 1024 * 1024
# No byte of UTF-8.
_END = b"\xff"
# What the brackets do to the depth, by their bytes.
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"{[")] = 1
_STEPS[list(b"}]")] = -1

# Sums of steps are kept in one byte.
assert np.iinfo(np.int8).max > PAYLOAD_DEPTH_MAX
# Says nothing about the depth.
_NO_STRUCTURE = bytes(set(range(256)) - set(b'{[]}"') - set(_END))

_Sum = TypeVar("_Sum", np.int8, np.uint8)

_raw_values = msgspec.json.Decoder(list[msgspec.Raw])
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class PayloadCheck:
    """Checks whether texts are JSON objects. Its separator is secret and lasts as long as the check."""

    def __init__(self) -> None:
        self._separator = f'"{secrets.token_hex(16)}"'.encode()
        # An Arrow scalar, made once: making one costs more than joining with it.
        self._joint = pa.scalar(f",{self._separator.decode()},")

    def find_invalid(self, payloads: StringArray) -> Iterator[tuple[int, str]]:
        """Rows that are not JSON objects, with what is wrong. Nulls pass."""
        texts = payloads.drop_null() if payloads.null_count else payloads
        if len(texts) == 0 or self._all_objects(texts):
            return
        for row, text in enumerate(payloads):
            if text.is_valid and (problem := _problem(text.as_buffer())):
                yield row, problem

    def _all_objects(self, texts: StringArray) -> bool:
        offsets: Array = pa.array(np.array([0, len(texts)], np.int32))
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), self._joint)[0].as_buffer()
        try:
            values = _raw_values.decode(b"".join((b"[", joined, b"]")))
        except (msgspec.DecodeError, RecursionError):
            return False
        if len(values) != 2 * len(texts) - 1:
            return False
        if b"".join(values[1::2]) != self._separator * (len(texts) - 1):
            return False
        opens = first_bytes(texts) == ord("{")
        return bool(opens.all()) or bool((first_bytes(pc.ascii_ltrim(texts, " \t\r\n")) == ord("{")).all())


def _problem(text: pa.Buffer) -> str | None:
    try:
        _raw_object.decode(text)
    except msgspec.ValidationError:
        return "must be a JSON object, such as {}"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"is not valid JSON: {error}"
    except RecursionError:
        return f"is nested deeper than {PAYLOAD_DEPTH_MAX} levels"
    return None


def find_deep_payloads(payloads: StringArray) -> list[int]:
    """Rows nested deeper than PAYLOAD_DEPTH_MAX. Rows that are not JSON may or may not be among them."""
    lengths = value_lengths(payloads)
    # That many levels need that many opening and closing brackets.
    long = np.flatnonzero(lengths > 2 * PAYLOAD_DEPTH_MAX)
    if len(long) == 0:
        return []
    texts = payloads.take(pa.array(long))
    rows = long[_opening_brackets(texts) > PAYLOAD_DEPTH_MAX]
    return [row for chunk in _chunks(rows, lengths[rows]) for row in _deep_rows(payloads, chunk)]


def _opening_brackets(texts: StringArray) -> npt.NDArray[np.int32]:
    """How many { and [ each text holds; none is empty."""
    offsets = value_offsets(texts)
    characters = np.frombuffer(texts.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    # One bit tells [ from {, and no other character becomes { by it.
    return np.add.reduceat((characters | 0x20) == ord("{"), offsets[:-1] - offsets[0], dtype=np.int32)


def _chunks(rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int32]) -> Iterator[list[int]]:
    """The rows in pieces of about _CHUNK_BYTES."""
    numbers = np.cumsum(lengths, dtype=np.int64) // _CHUNK_BYTES
    for piece in np.split(rows, np.flatnonzero(np.diff(numbers)) + 1):
        if len(piece):
            yield piece.tolist()


def _deep_rows(payloads: StringArray, rows: list[int]) -> list[int]:
    """Those of the rows whose brackets outside of strings nest too deep.

    Sums are kept in one byte: a depth beyond it was beyond the maximum before, and of quotes only the parity counts.
    """
    texts = b"".join(piece for row in rows for piece in (payloads[row].as_buffer(), _END))
    # Without escaped characters, every quote that is left begins or ends a string.
    texts = texts.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_STRUCTURE)
    characters = np.frombuffer(texts, np.uint8)
    starts = np.append(0, np.flatnonzero(characters == _END[0])[:-1] + 1)
    quotes = _since(starts, np.cumsum(characters == ord('"'), dtype=np.uint8))
    steps = np.where(quotes & 1, np.int8(0), _STEPS[characters])
    depths = _since(starts, np.cumsum(steps, dtype=np.int8))
    deepest = np.maximum.reduceat(depths, starts)
    return [rows[index] for index in np.flatnonzero(deepest > PAYLOAD_DEPTH_MAX).tolist()]


def _since(starts: npt.NDArray[np.int64], sums: npt.NDArray[_Sum]) -> npt.NDArray[_Sum]:
    """Running sums that begin anew at each start; the first start is 0."""
    before = np.append(np.zeros(1, sums.dtype), sums[starts[1:] - 1])
    return sums - np.repeat(before, np.diff(np.append(starts, len(sums))))
