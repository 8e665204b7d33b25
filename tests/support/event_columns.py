"""Events as the columns that analyses take: real ones from their files, and made-up ones."""

import gzip
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from analysis_service.columns import EventColumns

_TIMESTAMP = pa.timestamp("ns", tz="UTC")
_TEXT_FIELDS = ("type", "source", "correlation_id", "host", "version", "user", "session_id")


class _Line(msgspec.Struct):
    timestamp: str
    type: str
    source: str | None = None
    correlation_id: str | None = None
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    metadata: dict[str, Any] = {}


def columns_of(rows: Sequence[Mapping[str, Any]]) -> EventColumns:
    """Columns of hand-written events: whatever keys they have, "payload.x" among them.

    position: from 1. timestamp: nanoseconds, by default one microsecond after the other.
    """
    names = dict.fromkeys(["type", "source", "correlation_id", *(name for row in rows for name in row)])
    columns: dict[str, Any] = {
        name: [row.get(name) for row in rows] for name in names if name not in {"position", "timestamp"}
    }
    for name in _TEXT_FIELDS:
        if name in columns:
            columns[name] = pa.array(columns[name], pa.string())
    columns["position"] = pa.array([row.get("position", at) for at, row in enumerate(rows, 1)], pa.uint64())
    columns["timestamp"] = pa.array([row.get("timestamp", 1000 * at) for at, row in enumerate(rows)], _TIMESTAMP)
    return EventColumns(pa.table(columns))


def real_columns(path: Path, *, payload: Iterable[str] = ()) -> EventColumns:
    """Columns of a file of JSON lines; payload names top-level keys to have as "payload.KEY"."""
    with gzip.open(path) as lines:
        return document_columns(lines, payload=payload)


def document_columns(lines: Iterable[bytes], *, payload: Iterable[str] = ()) -> EventColumns:
    """Columns of documents, one a line, at positions from 1."""
    decoder = msgspec.json.Decoder(_Line)
    keys = list(payload)
    columns: dict[str, list[Any]] = {name: [] for name in ("timestamp", *_TEXT_FIELDS, *keys)}
    for raw in lines:
        line = decoder.decode(raw)
        columns["timestamp"].append(line.timestamp)
        for name in ("type", "source", "correlation_id"):
            columns[name].append(getattr(line, name))
        for name in _TEXT_FIELDS[3:]:
            columns[name].append(line.metadata.get(name))
        if keys:
            values = msgspec.json.decode(line.payload)
            for key in keys:
                columns[key].append(values.get(key))
    return _table(columns, keys)


def nanoseconds(text: str) -> int:
    """Nanoseconds since the epoch of a time in ISO format, UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def _table(columns: dict[str, list[Any]], keys: list[str]) -> EventColumns:
    arrays: dict[str, Any] = {name: pa.array(columns[name], pa.string()) for name in _TEXT_FIELDS}
    arrays |= {f"payload.{key}": pa.array(columns[key]) for key in keys}
    arrays["timestamp"] = pa.array(columns["timestamp"], pa.string()).cast(_TIMESTAMP)
    arrays["position"] = pa.array(range(1, len(columns["timestamp"]) + 1), pa.uint64())
    return EventColumns(pa.table(arrays))
