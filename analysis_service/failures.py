"""Which events tell of a failure. One rule for statistics, chains and root causes.

An event failed where one of these holds, ignoring case:
- a segment of its type is "error", "failed", "failure", "exception" or "timeout" ("pipeline.failed");
- payload.status is "error", "failed", "failure", "exception", "timeout", "fatal" or "critical", or a number
  from 500 to 599;
- payload.level (or payload.severity) is "error", "fatal", "critical" or "alert".
Payload fields count where they were scanned.
"""

from collections.abc import Callable

import numpy as np

from analysis_service.columns import EventColumns, Labels, Mask

STATUS_FIELD = "payload.status"
LEVEL_FIELDS = ("payload.level", "payload.severity")
FIELDS = (STATUS_FIELD, *LEVEL_FIELDS)

_TYPE_WORDS = {"error", "failed", "failure", "exception", "timeout"}
_STATUSES = _TYPE_WORDS | {"fatal", "critical"}
_LEVELS = {"error", "fatal", "critical", "alert"}


def _any_of(words: set[str]) -> str:
    return "|".join(sorted(words))


# The same rule in the filter language.
EXPRESSION = (
    f"(type MATCHES '(?i)(^|[.])({_any_of(_TYPE_WORDS)})([.]|$)'"
    f" OR {STATUS_FIELD} MATCHES '(?i)^({_any_of(_STATUSES)}|5[0-9][0-9]([.]0)?)$'"
    f" OR {STATUS_FIELD} BETWEEN 500 AND 599"
    + "".join(f" OR {field} MATCHES '(?i)^({_any_of(_LEVELS)})$'" for field in LEVEL_FIELDS)
    + ")"
)


def failed(events: EventColumns) -> Mask:
    """Which events failed."""
    mask = _having(events.labels("type"), lambda text: not _TYPE_WORDS.isdisjoint(text.lower().split(".")))
    if events.has(STATUS_FIELD):
        mask = mask | _having(events.labels(STATUS_FIELD), _bad_status)
    for field in LEVEL_FIELDS:
        if events.has(field):
            mask = mask | _having(events.labels(field), lambda text: text.lower() in _LEVELS)
    return mask


def _bad_status(text: str) -> bool:
    number = text.removesuffix(".0")
    return text.lower() in _STATUSES or (len(number) == 3 and number.isdecimal() and number[0] == "5")


def _having(labels: Labels, holds: Callable[[str], bool]) -> Mask:
    # One more for MISSING, which is the last one counted from the end.
    by_code = np.array([*map(holds, labels.values), False], np.bool_)
    mask: Mask = by_code[labels.codes]
    return mask
