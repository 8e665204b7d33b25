"""Columns of a scan: what a request may name, and values that promoted columns do not change."""

import json
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query_service.asked_columns import COLUMNS_MAX, asked_columns
from query_service.database import Database
from query_service.question import Order, Question
from query_service.reading import Engine
from query_service.readings import Asked, open_reading
from query_service.scan_projection import ScanProjection
from query_service.work import Work
from shared.clock import SystemClock
from shared.errors import EventValidationException
from shared.filters.tree import Everything
from shared.log.log_reader import LocalLogReader
from shared.log.segment_columns import ColumnReader
from shared.log.types import Position
from tests.support.filter_strategies import LOG_ID, payloads
from tests.support.reference_filter import NOTHING, Object, compact, parse
from tests.support.small_logs import SegmentPlan, write_log

_MIB = 1024 * 1024
_KINDS = ("string", "double", "integer", "boolean")
_COLUMNS = [f"payload.a{kind}" for kind in ("", ":text", *(f":{kind}" for kind in _KINDS))]
_DIGITS = "-0123456789"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory for all logs."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[Database]:
    """One database for all logs."""
    with Database(folder, threads=1, memory_bytes_max=256 * _MIB) as opened:
        yield opened


def _event(payload: str) -> dict[str, object]:
    fields = {"timestamp": 1, "type": "a", "source": "", "correlation_id": None, "payload": payload, "host": ""}
    return fields | {"version": "1", "user": None, "session_id": None, "tags": []}


def _raw(payload: str) -> str | None:
    """The JSON text under the key a, compact; None where there is nothing."""
    text = compact(payload)
    decoder, at = json.JSONDecoder(parse_float=str, parse_int=str), 1
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        _, end = decoder.raw_decode(text, at + 1)
        if key == "a":
            return text[at + 1 : end]
        at = end + (text[end] == ",")
    return None


def _typed(payload: str, kind: str) -> object:
    """The value under the key a as a kind has it."""
    value, raw = parse(payload).values.get("a", NOTHING), _raw(payload)
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or raw is None:
        return None
    if kind == "double":
        return float(raw)
    whole = not set(raw) - set(_DIGITS)
    return int(raw) if whole and len(raw) < 25 and -(2**63) <= int(raw) < 2**63 else None


def _as_text(value: object, raw: str | None) -> str | None:
    """A value as text: a string as it is, null as nothing, all else its JSON text."""
    if isinstance(value, str):
        return value
    return None if value is None else "0" if raw == "-0" else raw


@settings(max_examples=60)
@given(st.lists(payloads, min_size=1, max_size=8))
def test_values_are_those_of_the_payload_promoted_or_not(database, folder, texts):
    """In a sealed file with promoted columns and in the unsealed tail, each kind gives the same, and the true value."""
    frame = [_event(text) for text in texts]
    plan = [SegmentPlan([frame], sealed=True, damaged=None), SegmentPlan([frame], sealed=False, damaged=None)]
    log = write_log(Path(tempfile.mkdtemp(dir=folder)), plan)
    reader = LocalLogReader(log.fs)
    engine = Engine(database, ColumnReader(log.fs, reader, tail_bytes_max=_MIB, use_sidecars=True))
    projection = ScanProjection(asked_columns(_COLUMNS), log_id=LOG_ID)
    question = Question(LOG_ID, Everything(), None, Position(log.last + 1))
    asked = Asked(question, reader.committed(), Order.POSITION_ASCENDING, None, None)
    reading = open_reading(engine, SystemClock(), asked, Work(SystemClock()), projection)
    rows = [row for chunk in reading.chunks() for row in projection.finish(chunk.events).to_pylist()]
    assert len(rows) == 2 * len(texts)
    for text, sealed, tail in zip(texts, rows[: len(texts)], rows[len(texts) :], strict=True):
        assert repr(sealed) == repr(tail), text
        for kind in _KINDS:
            found, expected = sealed[f"payload.a:{kind}"], _typed(text, kind)
            if kind == "double" and expected in {float("inf"), float("-inf")}:
                assert found in {None, expected}, text
            else:
                assert found == expected, (kind, text)
        value = parse(text).values.get("a", NOTHING)
        assert (sealed["payload.a"] is None) == (value is NOTHING), text
        assert sealed["payload.a:text"] == _as_text(value, sealed["payload.a"]), text
        if not isinstance(value, Object | list) and value is not NOTHING:
            (found,) = parse(f"[{sealed['payload.a']}]")
            # A number with a point or an exponent comes as the shortest text of its double.
            spelled = isinstance(value, Decimal) and set(str(_raw(text))) - set(_DIGITS)
            assert found == value or (spelled and float(found) == float(str(_raw(text)))), text


@pytest.mark.parametrize(
    "names",
    [
        ["nothing"],
        [""],
        ["payload.a:decimal"],
        ["type:string"],
        ["payload:text"],
        ["payload.a AND"],
        ["id", "id"],
        [f"payload.c{number}" for number in range(COLUMNS_MAX + 1)],
        ["payload." + ".".join("a" * 17)],
    ],
)
def test_what_is_no_column_is_refused_by_name(names: list[str]) -> None:
    """The field that is wrong is named."""
    with pytest.raises(EventValidationException) as refusal:
        asked_columns(names)
    assert refusal.value.reason == "INVALID_FIELD"
    assert refusal.value.violations[0].field.startswith("columns")


def test_no_column_means_all_fields() -> None:
    """As filters name them."""
    assert {column.name for column in asked_columns([])} >= {"id", "position", "payload", "metadata.tags"}
