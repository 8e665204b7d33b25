"""The id of the request that this task serves, so that its log lines can be found.

Not the `request_id` field of an append, which makes a retry idempotent.
"""

import os
import re
from contextvars import ContextVar

# Empty outside a request. A ContextVar is per task: calls served at the same time do not see each other's.
current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")

_SANE = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def new_request_id() -> str:
    """Return 16 random hexadecimal digits."""
    return os.urandom(8).hex()


def accepted_request_id(proposed: object) -> str | None:
    """Return a caller's id if it is 1 to 128 of letters, digits and ._:/+=-, and None otherwise."""
    if isinstance(proposed, str) and _SANE.fullmatch(proposed):
        return proposed
    return None
