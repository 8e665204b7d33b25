"""Exceptions become payloads that say what was raised, where and why, and stay small."""

import orjson
import pytest

from shared.client.error_payload import CAUSES_MAX, FRAMES_MAX, TEXT_CHARACTERS_MAX, error_payload


def raised(function):
    """The exception that the function raises."""
    try:
        function()
    except BaseException as error:  # noqa: BLE001 — any
        return error
    raise AssertionError("nothing was raised")


def fail_with_cause():
    try:
        int("x")
    except ValueError as error:
        raise RuntimeError("cannot load") from error


def test_payload_has_type_message_frames_and_cause():
    """The chain of causes is there, each with its own traceback, innermost line last."""
    payload = error_payload(raised(fail_with_cause), {"document": 7})
    assert payload["error_type"] == "builtins.RuntimeError"
    assert payload["message"] == "cannot load"
    assert payload["frames"][-1]["function"] == "fail_with_cause"
    assert payload["frames"][-1]["code"] == 'raise RuntimeError("cannot load") from error'
    [cause] = payload["causes"]
    assert (cause["relation"], cause["error_type"]) == ("cause", "builtins.ValueError")
    assert payload["context"] == {"document": 7}


def test_suppressed_context_is_left_out_and_unsuppressed_is_told():
    """`from None` hides what came before; an exception raised while handling another tells it."""

    def fail(*, suppress):
        try:
            int("x")
        except ValueError:
            if suppress:
                raise KeyError("k") from None
            raise KeyError("k")  # noqa: B904 — the context is the point

    assert "causes" not in error_payload(raised(lambda: fail(suppress=True)))
    [context] = error_payload(raised(lambda: fail(suppress=False)))["causes"]
    assert context["relation"] == "context"


def test_message_takes_along_the_exception_being_handled():
    """A message logged in an except block has the exception too; elsewhere it stands alone."""
    assert error_payload("gone wrong") == {"message": "gone wrong"}
    try:
        int("x")
    except ValueError:
        payload = error_payload("gone wrong")
    assert payload["message"] == "gone wrong"
    assert payload["error_type"] == "builtins.ValueError"
    assert "invalid literal" in payload["error_message"]


def test_payload_of_endless_recursion_is_bounded():
    """A thousand frames are recorded as the outermost and the innermost, and counted."""

    def recurse():
        recurse()

    payload = error_payload(raised(recurse))
    assert len(payload["frames"]) == FRAMES_MAX
    assert payload["frames_omitted"] > 500
    assert payload["frames"][0]["function"] == "raised"


def test_long_message_and_long_chain_are_bounded():
    """Neither a huge message nor a long chain makes a huge event, and cycles end."""
    first = error = ValueError("x" * 1_000_000)
    for number in range(50):
        error.__cause__ = ValueError(f"cause {number}")
        error = error.__cause__
    error.__cause__ = first
    payload = error_payload(first)
    assert len(payload["message"]) == TEXT_CHARACTERS_MAX
    assert len(payload["causes"]) == CAUSES_MAX
    assert payload["causes_omitted"] == 50 - CAUSES_MAX
    assert len(orjson.dumps(payload)) < 100_000


def test_members_of_a_group_are_told():
    """The exceptions of an ExceptionGroup are among the causes."""
    payload = error_payload(ExceptionGroup("several", [ValueError("a"), TypeError("b")]))
    assert [cause["relation"] for cause in payload["causes"]] == ["member", "member"]


def test_notes_are_told():
    """Notes added to an exception are recorded."""
    error = ValueError("a")
    error.add_note("while reading page 3")
    assert error_payload(error)["notes"] == ["while reading page 3"]


def test_exception_that_cannot_be_printed_is_logged_all_the_same():
    """A __str__ that raises, and text that is not Unicode, do not make logging the error fail."""

    class BrokenError(Exception):
        def __str__(self):
            raise RuntimeError

    assert "raised RuntimeError" in error_payload(BrokenError())["message"]
    orjson.dumps(error_payload(ValueError("\ud800")))


@pytest.mark.parametrize("size", [TEXT_CHARACTERS_MAX, TEXT_CHARACTERS_MAX + 1])
def test_message_is_cut_only_beyond_the_bound(size):
    """A message of exactly the bound is whole; a cut one ends with an ellipsis."""
    message = error_payload("x" * size)["message"]
    assert len(message) == TEXT_CHARACTERS_MAX
    assert message.endswith("…") == (size > TEXT_CHARACTERS_MAX)
