"""What requests ask for, checked and with defaults: time ranges, windows, fields. Translates requests."""

from collections.abc import Sequence
from dataclasses import dataclass

from eventlog.v1 import analysis_service_pb2 as pb
from eventlog.v1 import event_pb2
from google.protobuf.duration_pb2 import Duration

from analysis_service.chains.spans import SpanFields
from analysis_service.expressions import between
from analysis_service.failures import FIELDS as FAILURE_FIELDS
from analysis_service.scan_columns import ScanColumns
from shared.errors import invalid_field
from shared.filters.checks import parse_field
from shared.filters.problems import FilterProblem
from shared.filters.tree import Field
from shared.rpc.filters import nanoseconds

_NOT_ONE_VALUE = {"id", "metadata.tags"}
_NS_MIN, _NS_MAX = -(2**63), 2**63 - 1
_WINDOW_S_MAX = 3650 * 86_400.0
PERCENTILES_DEFAULT = (50.0, 95.0, 99.0)
PERCENTILES_MAX = 32
VALUE_FIELDS_MAX = 16


@dataclass(frozen=True, slots=True)
class Range:
    """A range of timestamps, [start, end) in nanoseconds. None: open on that side."""

    start_ns: int | None
    end_ns: int | None

    @property
    def closed(self) -> tuple[int, int] | None:
        """Both ends, where it has both."""
        return None if self.start_ns is None or self.end_ns is None else (self.start_ns, self.end_ns)

    def expression(self) -> str:
        """Filter expression of it; empty where it is open on both sides."""
        if self.start_ns is None and self.end_ns is None:
            return ""
        start = _NS_MIN if self.start_ns is None else self.start_ns
        return between(start, _NS_MAX if self.end_ns is None else self.end_ns)


def time_range(message: event_pb2.TimeRange, field: str) -> Range:
    """A range as it is given. Raises EventValidationException (INVALID_FIELD) where its end is before its start."""
    start = nanoseconds(message.start, f"{field}.start") if message.HasField("start") else None
    end = nanoseconds(message.end, f"{field}.end") if message.HasField("end") else None
    if start is not None and end is not None and end <= start:
        raise invalid_field(f"{field}.end", "must be after the start")
    return Range(start, end)


def window(message: Duration, default_s: float, field: str) -> float:
    """Length of a window in seconds. Raises EventValidationException (INVALID_FIELD)."""
    seconds = message.seconds + message.nanos / 1e9
    if not seconds:
        return default_s
    if not 0 < seconds <= _WINDOW_S_MAX:
        raise invalid_field(field, f"must be above 0 and at most {_WINDOW_S_MAX:.0f} seconds")
    return float(seconds)


def range_or_window(
    given: event_pb2.TimeRange | None, length: Duration, *, now_ns: int, default_s: float, field: str
) -> tuple[int, int]:
    """A closed range: the one given, or the window that ends now.

    Raises EventValidationException (INVALID_FIELD) where both are given, or the range is open.
    """
    if given is None:
        return now_ns - round(window(length, default_s, field) * 1e9), now_ns
    if length.seconds or length.nanos:
        raise invalid_field("time_range", f"and {field}: give one of them")
    found = time_range(given, "time_range").closed
    if found is None:
        raise invalid_field("time_range", "must have a start and an end")
    return found


def percentiles(given: Sequence[float]) -> tuple[float, ...]:
    """Percentiles asked for. Raises EventValidationException (INVALID_FIELD)."""
    if len(given) > PERCENTILES_MAX:
        raise invalid_field("percentiles", f"has {len(given)} values; give at most {PERCENTILES_MAX}")
    for number, value in enumerate(given):
        if not 0 < value <= 100:
            raise invalid_field(f"percentiles[{number}]", f"is {value:g}; it must be above 0 and at most 100")
    return tuple(given) or PERCENTILES_DEFAULT


def value_fields(given: Sequence[str]) -> tuple[str, ...]:
    """Fields whose numbers are judged. Raises EventValidationException (INVALID_FIELD)."""
    if len(given) > VALUE_FIELDS_MAX:
        raise invalid_field("value_fields", f"has {len(given)} fields; give at most {VALUE_FIELDS_MAX}")
    for number, text in enumerate(given):
        if not read(text, f"value_fields[{number}]").path:
            raise invalid_field(
                f"value_fields[{number}]", f"is {text!r}; write a payload path, such as payload.duration_ms"
            )
    return tuple(given) or ("payload.duration_ms",)


def duration_field(given: str) -> str:
    """Payload path of durations. Raises EventValidationException (INVALID_FIELD)."""
    if given and not read(given, "duration_field").path:
        raise invalid_field("duration_field", f"is {given!r}; write a payload path, such as payload.duration_ms")
    return given or "payload.duration_ms"


def fields(given: Sequence[str], name: str) -> tuple[str, ...]:
    """Fields that have one value an event. name: of the request's field that has them.

    Raises EventValidationException (INVALID_FIELD).
    """
    return tuple(field(text, f"{name}[{number}]") for number, text in enumerate(given))


def field(text: str, name: str) -> str:
    """A field that has one value an event. Raises EventValidationException (INVALID_FIELD)."""
    if read(text, name).name in _NOT_ONE_VALUE:
        raise invalid_field(name, f"is {text!r}, which no two events share, or is not one value")
    return text


def read(text: str, name: str) -> Field:
    """A field by its text. Raises EventValidationException (INVALID_FIELD)."""
    try:
        return parse_field(text)
    except FilterProblem as problem:
        raise invalid_field(name, f"is {text!r}: {problem}") from None


def sensitivity(request: pb.DetectAnomaliesRequest | pb.WatchAnomaliesRequest, default: float) -> float:
    """Sensitivity asked for. Raises EventValidationException (INVALID_FIELD)."""
    value = request.sensitivity if request.HasField("sensitivity") else default
    if not 0 <= value <= 1:
        raise invalid_field("sensitivity", f"is {value:g}; it must be from 0 to 1")
    return float(value)


def span_fields(given: pb.ChainFields) -> SpanFields:
    """Fields of chains, defaults for those that are empty."""
    known = SpanFields()
    for name, text in (
        ("span_id", given.span_id),
        ("parent_id", given.parent_id),
        ("start", given.start),
        ("end", given.end),
        ("duration", given.duration),
    ):
        field(text or "type", f"fields.{name}")
    return SpanFields(
        span=given.span_id or known.span,
        parent=given.parent_id or known.parent,
        start=given.start or known.start,
        end=given.end or known.end,
        duration_ms=given.duration or known.duration_ms,
    )


def span_columns(fields: SpanFields, more: Sequence[str] = ()) -> ScanColumns:
    """Columns that chains need."""
    return ScanColumns(
        ["correlation_id", fields.span, fields.parent, *FAILURE_FIELDS, *more],
        integers=[fields.start, fields.end],
        numbers=[fields.duration_ms],
    )
