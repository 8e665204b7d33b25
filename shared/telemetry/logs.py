"""Log lines of a service: one JSON object a line on stderr, through the standard logging module.

Invariants: a line never contains a line break; formatting never raises, whatever the record holds.
Fields: time (RFC 3339, UTC), level, logger, event (the message), service, request_id (inside a request),
the `extra` of the call, and traceback where there is an exception. Does not ship or rotate logs.
"""

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from shared.errors import EventConfigException
from shared.telemetry.request_id import current_request_id

# What logging itself puts on every record; anything else came as `extra`.
_OWN_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

_LEVELS = ("debug", "info", "warning", "error", "critical")


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without its line break."""
        line: dict[str, Any] = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _message(record),
            "service": self._service,
        }
        if request_id := current_request_id.get():
            line["request_id"] = request_id
        for key, value in _extra(record).items():
            line.setdefault(key, value)
        if traceback := _traceback(self, record):
            line["traceback"] = traceback
        return _to_json(line)


class TextFormatter(logging.Formatter):
    """Formats a record for people: time, level, logger, message, then key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record: one line, and more where there is a traceback."""
        parts = [_rfc3339(record.created), record.levelname.ljust(7), record.name, _one_line(_message(record))]
        if request_id := current_request_id.get():
            parts.append(f"request_id={request_id}")
        parts += [f"{key}={_one_line(_shown(value))}" for key, value in _extra(record).items()]
        text = " ".join(parts)
        traceback = _traceback(self, record)
        return f"{text}\n{traceback}" if traceback else text


def configure_logging(
    *,
    level: str,
    log_format: str,
    service: str,
    stream: TextIO | None = None,
) -> None:
    """Send the records of the whole process to stderr, or to the stream given. Replaces earlier handlers.

    level: debug, info, warning, error or critical, in either case. log_format: json or text. For __main__ modules and
    tests only. Raises EventConfigException for an unknown level or format.
    """
    if level.lower() not in _LEVELS:
        raise EventConfigException(f'unknown log level "{level}"; write one of {", ".join(_LEVELS)}')
    formatters: dict[str, logging.Formatter] = {"json": JsonFormatter(service), "text": TextFormatter()}
    if log_format not in formatters:
        raise EventConfigException(f'unknown log format "{log_format}"; write json or text')
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatters[log_format])
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Below info, libraries tell of every selector and loop, which hides what the service does.
    for library in ("asyncio", "grpc"):
        logging.getLogger(library).setLevel(max(logging.INFO, logging.getLogger().level))
    logging.captureWarnings(capture=True)


def _extra(record: logging.LogRecord) -> Mapping[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in _OWN_ATTRIBUTES}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 — arguments that do not fit, or an object whose __str__ fails
        return f"{_shown(record.msg)} (it cannot be shown, or its arguments do not fit)"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[0]:
        return formatter.formatException(record.exc_info)
    return record.exc_text or ""


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 — a broken __str__ must not lose the line
        return f"<{type(value).__name__}>"


def _one_line(text: str) -> str:
    """Escape what would break the line or could not be written."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in _writable(text))


def _writable(text: str) -> str:
    """Escape lone surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _to_json(line: dict[str, Any]) -> str:
    try:
        return orjson.dumps(line, default=_shown, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, RecursionError):
        # Lone surrogates, integers beyond 64 bits, cycles: rare, so all as text.
        return orjson.dumps({_writable(key): _writable(_shown(value)) for key, value in line.items()}).decode()
