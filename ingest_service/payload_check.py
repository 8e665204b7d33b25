"""Whether payloads are JSON objects, for all rows of a column at once, pure.

Invariant: a payload passes only if it is the text of exactly one JSON object by itself. Joining
texts lets one spill into the next ('{"a":[1' and '2]}' make one object), so a separator that a
producer cannot guess stands between any two, and all separators must come out in their places.
"""

import secrets
from collections.abc import Iterator

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PAYLOAD_DEPTH_MAX = 100

_raw_values = msgspec.json.Decoder(list[msgspec.Raw])
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def find_invalid_payloads(payloads: pa.StringArray) -> Iterator[tuple[int, str]]:
    """Rows that are not JSON objects, with what is wrong. Nulls pass."""
    texts = payloads.drop_null() if payloads.null_count else payloads
    if len(texts) == 0 or _all_objects(texts):
        return
    for row, text in enumerate(payloads):
        if text.is_valid and (problem := _problem(text.as_buffer())):
            yield row, problem


def _all_objects(texts: pa.StringArray) -> bool:
    separator = f'"{secrets.token_hex(8)}"'
    offsets = pa.array([0, len(texts)], pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), f",{separator},")[0].as_buffer()
    try:
        values = _raw_values.decode(b"".join((b"[", joined, b"]")))
    except (msgspec.DecodeError, RecursionError):
        return False
    if len(values) != 2 * len(texts) - 1:
        return False
    if b"".join(values[1::2]) != separator.encode() * (len(texts) - 1):
        return False
    opens = pc.starts_with(texts, "{")
    return bool(pc.all(opens).as_py()) or bool(pc.all(pc.starts_with(pc.ascii_ltrim(texts, " \t\r\n"), "{")).as_py())


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


def find_deep_payloads(payloads: pa.StringArray) -> list[int]:
    """Rows nested deeper than PAYLOAD_DEPTH_MAX. Rows that are not JSON may or may not be among them."""
    lengths = pc.binary_length(payloads)
    # That many levels need that many opening and closing brackets.
    if (pc.max(lengths).as_py() or 0) <= 2 * PAYLOAD_DEPTH_MAX:
        return []
    rows = pc.indices_nonzero(pc.greater(lengths, 2 * PAYLOAD_DEPTH_MAX)).to_pylist()
    return [row for row in rows if _is_deep(payloads[row].as_buffer().to_pybytes())]


def _is_deep(text: bytes) -> bool:
    if text.count(b"{") + text.count(b"[") <= PAYLOAD_DEPTH_MAX:
        return False
    # Without escaped characters, every quote that is left begins or ends a string.
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    characters = np.frombuffer(plain, np.uint8)
    outside = np.cumsum(characters == ord('"')) % 2 == 0
    opening = (characters == ord("{")) | (characters == ord("["))
    closing = (characters == ord("}")) | (characters == ord("]"))
    steps = (opening & outside).astype(np.int32) - (closing & outside).astype(np.int32)
    return int(np.cumsum(steps).max(initial=0)) > PAYLOAD_DEPTH_MAX
