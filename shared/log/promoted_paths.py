"""Which scalar paths of the payloads are worth a column of their own, judged by a sample.

Invariants: looks at a bounded sample only, whatever the payloads hold; the same payloads give the same
paths in the same order. What it gives are candidates: the exact shares are known after extraction.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson

from shared.columns.arrow import StringArray
from shared.log.json_path import PATH_SEGMENTS_MAX, JsonPath, duckdb_path

PATHS_MAX = 64
# A path on a smaller share of the rows, as a fraction, is left in the text.
SHARE_MIN = 0.01

_SAMPLE_ROWS_MAX = 2_000
_SAMPLE_ROW_BYTES_MAX = 64 * 1024
_SAMPLE_BYTES_MAX = 16 * 1024 * 1024
_SAMPLE_KEYS_PER_ROW_MAX = 1_000
_SAMPLE_PATHS_MAX = 20_000


def choose_paths(payloads: Sequence[StringArray], declared: Sequence[JsonPath]) -> list[JsonPath]:
    """Return at most 64 paths: the declared ones, then the most frequent of a sample of the payloads.

    The payloads come in chunks. Paths that DuckDB cannot express are left out.
    """
    counts: Counter[JsonPath] = Counter()
    rows = 0
    for text in _sample(payloads):
        rows += 1
        counts.update(_scalar_paths(text, known=counts))
    # A sample errs: three quarters of the share make it a candidate, the full count decides.
    enough = max(1.0, 0.75 * SHARE_MIN * rows)
    frequent = sorted((path for path, count in counts.items() if count >= enough), key=lambda p: (-counts[p], p))
    usable = [path for path in dict.fromkeys([*declared, *frequent]) if duckdb_path(path) is not None]
    return usable[:PATHS_MAX]


def _sample(payloads: Sequence[StringArray]) -> Iterable[str]:
    """Give payloads at even distances, none very long, of bounded size together."""
    ends = np.cumsum([len(chunk) for chunk in payloads], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    rows = np.unique(np.linspace(0, total - 1, min(total, _SAMPLE_ROWS_MAX)).astype(np.int64)) if total else ()
    taken_bytes = 0
    for row in rows:
        number = int(np.searchsorted(ends, row, side="right"))
        chunk = payloads[number]
        scalar = chunk[int(row - ends[number]) + len(chunk)]
        buffer = scalar.as_buffer()
        if buffer is None or buffer.size > _SAMPLE_ROW_BYTES_MAX:
            continue
        taken_bytes += buffer.size
        if taken_bytes > _SAMPLE_BYTES_MAX:
            return
        yield str(scalar.as_py())


def _scalar_paths(text: str, known: Counter[JsonPath]) -> set[JsonPath]:
    """Return the paths of the scalars of one payload; none if it is no JSON object.

    Once very many paths are known, others are passed over: they cannot be frequent.
    """
    try:
        payload: Any = orjson.loads(text)
    except ValueError:
        return set()
    found: set[JsonPath] = set()
    stack: list[tuple[JsonPath, Any]] = [((), payload)]
    visited = 0
    while stack and visited < _SAMPLE_KEYS_PER_ROW_MAX:
        path, value = stack.pop()
        if not isinstance(value, dict) or len(path) == PATH_SEGMENTS_MAX:
            continue
        for key, child in value.items():
            visited += 1
            if visited > _SAMPLE_KEYS_PER_ROW_MAX:
                break
            below = (*path, key)
            if isinstance(child, dict):
                stack.append((below, child))
            elif isinstance(child, str | int | float) and (len(known) < _SAMPLE_PATHS_MAX or below in known):
                found.add(below)
    return found
