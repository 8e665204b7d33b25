"""What a single call says about its event beside type and payload."""

import datetime as dt
from collections.abc import Sequence
from typing import TypedDict


class EventFields(TypedDict, total=False):
    """Keywords that every logging method takes; what is left out comes from the logger's options."""

    # When it happened. Default: when the method was called. Without a time zone: UTC.
    timestamp: dt.datetime
    # On whose behalf, and in which session.
    user: str
    session_id: str
    # Added to the logger's own.
    tags: Sequence[str]
