"""The correlation id that nested and asynchronous code inherits.

It lives in a context variable: functions called inside the `with`, and asyncio tasks created inside it,
see it. Threads do not: a new thread starts with an empty context. Hand the contextual logger to the thread,
or run its function with `contextvars.copy_context().run(function)`.

The variable is shared by all loggers of the process: what is done for one request belongs together, whichever
logger a library happens to hold.
"""

from contextvars import ContextVar

from shared.errors import EventValidationException, FieldViolation

# Ids entered and not left yet, innermost last. A tuple, not tokens: leaving works in any context.
_entered: ContextVar[tuple[str, ...]] = ContextVar("eventlog_correlation_ids", default=())


def current_correlation_id() -> str | None:
    """Id of the innermost `with_correlation` around the caller, None outside of one."""
    entered = _entered.get()
    return entered[-1] if entered else None


class CorrelationScope:
    """Enters and leaves one correlation id; may be entered again and by several tasks and threads at once."""

    def __init__(self, correlation_id: str) -> None:
        if not correlation_id or not isinstance(correlation_id, str):
            problem = f"is {correlation_id!r}; pass a text of 1 to 255 bytes"
            raise EventValidationException(
                f"correlation_id {problem}", violations=[FieldViolation("correlation_id", problem)]
            )
        self.correlation_id = correlation_id

    def enter(self) -> None:
        """Make it the current id of this context."""
        _entered.set((*_entered.get(), self.correlation_id))

    def leave(self) -> None:
        """Make the id before it current again."""
        entered = _entered.get()
        # A generator may be closed in another context than the one it was entered in: nothing to leave there.
        for index in range(len(entered) - 1, -1, -1):
            if entered[index] == self.correlation_id:
                _entered.set(entered[:index])
                return
