"""Which events failed: the rule on columns and the same rule as a filter expression agree."""

import json

import pytest

from analysis_service.failures import EXPRESSION, failed
from shared.filters.live_event import LiveEvent
from shared.filters.parser import parse_filter
from shared.filters.predicate import compile_predicate
from tests.support.event_columns import columns_of

_TYPES = ["job.done", "job.failed", "FAILED", "unfailed.job", "job.Timeout.late", "errors", "a.error"]
_STATUSES = [None, "ok", "error", "Critical", "500", "503.0", "5000", "499", 200, 404, 500, 599, 600, 500.0, True]
_LEVELS = [None, "info", "FATAL", "alert", "alerted"]


@pytest.mark.parametrize("kind", _TYPES)
@pytest.mark.parametrize("status", _STATUSES, ids=str)
def test_rule_and_expression_agree(kind, status):
    """Over types, statuses as words and as numbers, and levels under either name."""
    holds = compile_predicate(parse_filter(EXPRESSION), 0)
    for level in _LEVELS:
        for name in ("level", "severity"):
            payload = {key: value for key, value in {"status": status, name: level}.items() if value is not None}
            texts = {f"payload.{key}": _text(value) for key, value in payload.items()}
            (found,) = failed(columns_of([{"type": kind, **texts}])).tolist()
            assert holds(_live(kind, json.dumps(payload))) == found, payload


def _text(value: object) -> str:
    """A value as a scan gives it."""
    return value if isinstance(value, str) else json.dumps(value)


def _live(kind: str, payload: str) -> LiveEvent:
    texts = {"source": "s", "correlation_id": None, "host": "h", "version": "1", "user": None, "session_id": None}
    return LiveEvent(position=1, timestamp=1, recorded_at=1, type=kind, payload=payload, tags=[], **texts)
