"""Which code inherits a correlation id."""

import asyncio
import contextvars
import threading

import pytest

from shared.client.correlation import CorrelationScope, current_correlation_id
from shared.errors import EventValidationException


def run_in_thread(function):
    """What the function returns in a new thread."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_scopes_nest():
    """The innermost scope counts; leaving it brings back the one around it."""
    outer, inner = CorrelationScope("outer"), CorrelationScope("inner")
    assert current_correlation_id() is None
    outer.enter()
    inner.enter()
    assert current_correlation_id() == "inner"
    inner.leave()
    assert current_correlation_id() == "outer"
    outer.leave()
    assert current_correlation_id() is None


def test_same_scope_entered_twice_must_be_left_twice():
    """A scope is reusable and re-entrant."""
    scope = CorrelationScope("a")
    scope.enter()
    scope.enter()
    scope.leave()
    assert current_correlation_id() == "a"
    scope.leave()
    assert current_correlation_id() is None
    scope.leave()  # nothing to leave: no error


async def test_tasks_inherit_and_keep_to_themselves():
    """A task made inside a scope has its id; what the task enters does not leak out of it."""
    scope = CorrelationScope("request-1")
    entered = asyncio.Event()

    async def nested():
        seen = current_correlation_id()
        CorrelationScope("inside").enter()
        entered.set()
        return seen

    scope.enter()
    task = asyncio.create_task(nested())
    await entered.wait()
    assert current_correlation_id() == "request-1"
    scope.leave()
    assert await task == "request-1"
    assert current_correlation_id() is None


def test_thread_does_not_inherit_unless_given_the_context():
    """A new thread starts outside of every scope; copy_context carries the id over."""
    scope = CorrelationScope("a")
    scope.enter()
    assert run_in_thread(current_correlation_id) is None
    context = contextvars.copy_context()
    assert run_in_thread(lambda: context.run(current_correlation_id)) == "a"
    scope.leave()


@pytest.mark.parametrize("wrong", ["", None, 7])
def test_scope_needs_a_text(wrong):
    """An empty or missing id is refused where it is made."""
    with pytest.raises(EventValidationException):
        CorrelationScope(wrong)
